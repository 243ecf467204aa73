"""What the page's API answers, over HTTP: each answer says what steered it, and what was not measured is refused."""

import json
import os
import socket
import subprocess
import sys
import time
from hashlib import sha256
from urllib.request import Request, urlopen

import pytest

from iti_llama import ITIDirections
from iti_llama.toolkit.foundation.package import ROOT


pytest.importorskip("gradio", reason="gradio is not installed: make test-space")

PROMPT = "def f(n):"

DIGEST = {"iti_directions.safetensors": sha256((ROOT / "iti_directions.safetensors").read_bytes()).hexdigest()}

ORIGIN = {"repo": ROOT.name, "commit": None, "directions_sha256": DIGEST, "scope": "generated", "gate": None}


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Starts `iti-llama space` with these options and gives its address. It leaves no file in the temporary folder,
    where gradio makes an empty folder of its own."""
    pages, temporary = [], tmp_path_factory.mktemp("space")

    def start(*options: str, **environment: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "iti_llama.toolkit.cli", "space", "--model", ROOT, "--port", port]
        command += ["--max-new-tokens", 3, "--a-minute", 10_000, *options]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TMPDIR": str(temporary)} | environment
        pages.append(subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL))
        for _ in range(240):
            try:
                with urlopen(f"http://127.0.0.1:{port}/gradio_api/info", timeout=5):
                    return f"http://127.0.0.1:{port}"
            except OSError:
                assert pages[-1].poll() is None
                time.sleep(0.5)
        pytest.fail("it does not answer")

    yield start
    for page in pages:
        page.terminate()
        page.wait(30)
    assert [path for path in temporary.rglob("*") if not path.is_dir()] == []


@pytest.fixture(scope="module")
def url(serve):
    return serve()


def ask(url: str, alpha, scope="all", heads=None) -> tuple[str, object]:
    """("complete", the answers) or ("error", what is said)."""
    call, asked = f"{url}/gradio_api/call/answer", {"data": [PROMPT, alpha, scope, heads, ""]}
    request = Request(call, json.dumps(asked).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as reply:
        event = json.load(reply)["event_id"]
    with urlopen(f"{call}/{event}", timeout=120) as reply:
        lines = [line for line in reply.read().decode().splitlines() if not line.startswith("event: heartbeat")]
    kind, data = lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))
    return kind, data[0] if kind == "complete" else data


@pytest.mark.parametrize("alpha,strength", [(0.25, 0.25), (2.5e-1, 0.25), (-0.5, -0.5), (0, 0.0), (-0.0, 0.0)])
def test_each_answer_says_what_steered_it(alpha, strength, url):
    some = [
        ".".join(map(str, head)) for head in ITIDirections.load(ROOT / "iti_directions.safetensors").heads[:3].tolist()
    ]
    kind, answers = ask(url, alpha, "generated", some)
    assert kind == "complete"
    for answer, alpha in zip(answers, (-strength, 0.0, strength), strict=True):
        about = answer["iti"]["default"]
        assert set(about.pop("heads")) == set(some)
        assert about == {"strength": alpha} | ORIGIN
        assert list(answer["iti"]) == ["default"]


@pytest.mark.parametrize(
    "alpha,scope,said",
    [(0.6, "all", "is 0.6; expected from -0.5 to 0.5, no stronger than what the repo's sweep measured"),
     (-0.6, "generated", "is -0.6; expected from -0.5 to 0.5, which was not measured"),
     (float("nan"), "all", "expected a finite number"), (float("inf"), "all", "expected a finite number"),
     (True, "all", "expected a finite number"), ([0.5], "all", "expected a finite number"),
     ("0.5", "all", "expected a finite number"), (None, "all", "expected a finite number"),
     (0.5, ["all"], "'generated' are offered")],
)  # fmt: skip
def test_what_was_not_measured_or_is_no_strength_is_refused_in_words(alpha, scope, said, url):
    kind, error = ask(url, alpha, scope)
    assert kind == "error" and said in json.dumps(error)


@pytest.mark.parametrize("options,environment", [(["--any-strength"], {}), ([], {"ITI_ANY_STRENGTH": "1"})])
def test_the_operator_may_allow_every_strength(options, environment, serve):
    url = serve(*options, **environment)
    kind, answers = ask(url, 7)
    assert kind == "complete" and [answer["iti"]["default"]["strength"] for answer in answers] == [-7.0, 0.0, 7.0]
    kind, error = ask(url, float("nan"))
    assert kind == "error" and "finite" in json.dumps(error)
