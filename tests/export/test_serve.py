"""transformers' own server over HTTP, with the openai client: plain and steered by turns, by the request; a strength
that cannot be had is refused, there and in `generate_batch`."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from transformers import AutoTokenizer, GenerationConfig

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.export.canary import ask_server, make_canary
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.serve import check_strength
from iti_llama.toolkit.foundation.package import ROOT


PROMPT = 'def is_prime(n):\n    """Check if a number is prime."""\n'


@contextmanager
def serving(log, *options):
    """The address of `iti-llama serve` with these options."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    pytest.importorskip("transformers.cli.serving", reason="transformers before 5.5 has another server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "iti_llama.toolkit.cli", "serve", *map(str, options)]
    command += ["--port", str(port), "--device", "cpu"]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(240):
            try:
                with urlopen(f"http://localhost:{port}/health", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        else:
            pytest.fail(log.read_text())
        yield f"http://localhost:{port}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("serve") / "log", ROOT) as address:
        yield address


@pytest.fixture(scope="module")
def batching(tmp_path_factory):
    """A server that batches continuously."""
    options = ("--continuous-batching", "--cb-num-blocks", "16", "--cb-max-batch-tokens", "64")
    with serving(tmp_path_factory.mktemp("batching") / "log", ROOT, *options) as address:
        yield address


@pytest.fixture(scope="module")
def canary():
    return make_canary(ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT))


def status_of(address: str, path: str, **body) -> tuple[int, str]:
    """Status and text of the answer to a request."""
    body = {"model": str(ROOT), "temperature": 0, "max_tokens": 8} | body
    asked = Request(f"{address}/v1/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(asked, timeout=120) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_a_request_says_its_strength(address):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", timeout=120)

    def answer(alpha: float | None) -> str:
        asked = {"iti_alpha": alpha, "max_new_tokens": 40, "eos_token_id": 1, "pad_token_id": 2}
        extra = {} if alpha is None else {"extra_body": {"generation_config": json.dumps(asked)}}
        reply = client.completions.create(model=str(ROOT), prompt=PROMPT, max_tokens=40, temperature=0, **extra)
        return reply.choices[0].text

    steered, plain = "    return n > 1 and all(", "    if n < 2:"
    for alpha, start in ((None, steered), (0.0, plain), (0.4, steered), (-0.5, plain), (None, steered)):
        assert answer(alpha).startswith(start), alpha


def test_the_canary_finds_it_steered(address, canary):
    assert canary.verdict(ask_server(address, str(ROOT))(canary)) == "steered"


def test_the_canary_finds_a_server_of_the_base_plain(canary, tmp_path):
    export(ROOT, "llama", tmp_path / "base", alpha=0.0)
    with serving(tmp_path / "log", tmp_path / "base") as address:
        assert canary.verdict(ask_server(address, str(tmp_path / "base"))(canary)) == "plain"


@pytest.mark.parametrize("alpha", ["abc", float("nan"), True, [0.1, 0.2], {"short": 1.0}, {"default": "x"}])
def test_what_is_no_strength_is_422(alpha, address):
    status, said = status_of(address, "completions", prompt=PROMPT, generation_config=json.dumps({"iti_alpha": alpha}))
    assert status == 422 and ("expected a finite number" in said or "no behaviour is called 'short'" in said)


NO_OBJECTS = ["[]", "[0.5]", "0.5", "null", "true", '"x"', "", "{", "[" * 100_000, ["iti_alpha"], {"iti_alpha": 0.5},
              0.5, True, '{"iti_alpha": 1e999}', '{"iti_gate": [1]}']  # fmt: skip


@pytest.mark.parametrize("given", NO_OBJECTS)
def test_a_generation_config_that_is_no_object_is_refused_by_name(given, steered):
    with pytest.raises(ValueError, match="^(generation_config|iti_alpha|iti_gate) is "):
        check_strength({"generation_config": given}, steered, continuous=False)


def test_a_request_without_a_strength_passes(steered):
    for body in ({}, {"generation_config": None}, {"generation_config": "{}"}):
        check_strength(body, steered, continuous=True)


@pytest.mark.parametrize("given", ["[0.5]", ["iti_alpha"], {"iti_alpha": 0.5}])
def test_a_generation_config_that_is_no_object_is_422(given, address):
    status, text = status_of(address, "completions", prompt=PROMPT, generation_config=given)
    assert status == 422 and "generation_config is" in text


def test_continuous_batching_refuses_a_requests_strength(batching):
    alpha = {"generation_config": json.dumps({"iti_alpha": 0.0, "max_new_tokens": 8, "eos_token_id": 1})}
    for stream in (False, True):
        status, said = status_of(batching, "completions", prompt=PROMPT, stream=stream, **alpha)
        assert status == 422 and "every request has the strength of the repo" in said
    own = {"generation_config": json.dumps({"max_new_tokens": 8, "eos_token_id": 1})}
    status, said = status_of(batching, "completions", prompt=PROMPT, **own)
    assert status == 200 and json.loads(said)["choices"][0]["text"].startswith("    return n > 1")
    status, said = status_of(batching, "completions", prompt=PROMPT, **alpha)  # not from the first request's manager
    assert status == 422


def test_a_batch_that_would_not_be_steered_so_is_refused(steered):
    with pytest.raises(ValueError, match="iti_alpha is passed, but continuous batching has one strength"):
        steered.generate_batch([[5, 6, 7]], iti_alpha=0.0)
    asked = GenerationConfig(max_new_tokens=2, iti_alpha=0.0)
    for call in (steered.generate_batch, lambda _, **given: steered.init_continuous_batching(**given)):
        with pytest.raises(ValueError, match="generation config has an iti_alpha, but continuous batching"):
            call([[5, 6, 7]], generation_config=asked)
    steered.generation_config.iti_alpha = 0.0
    with pytest.raises(ValueError, match=r"model\.generation_config: iti_alpha is 0\.0; expected no such field"):
        steered.generate_batch([[5, 6, 7]], generation_config=GenerationConfig(max_new_tokens=2))
