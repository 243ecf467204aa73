"""transformers' own server over HTTP, with the openai client: plain and steered by turns, by the request."""

import json
import os
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from iti_llama.toolkit.export.canary import ask_server, make_canary
from iti_llama.toolkit.foundation.package import ROOT


PROMPT = 'def is_prime(n):\n    """Check if a number is prime."""\n'


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    pytest.importorskip("transformers.cli.serve", reason="transformers 4 has another server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [
        sys.executable,
        "-m",
        "iti_llama.toolkit.cli",
        "serve",
        str(ROOT),
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
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


def test_the_canary_finds_it_steered(address):
    from transformers import AutoTokenizer

    from iti_llama import ITILlamaForCausalLM

    canary = make_canary(ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT))
    assert canary.verdict(ask_server(address, str(ROOT))(canary)) == "steered"
