"""vLLM itself, over HTTP: a strength for each request on the unmodified base. `make test-vllm` runs it; vLLM's
environment is gigabytes, so `make test` does not. `ITI_VLLM` names vLLM's command."""

import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from reference import hooks
from transformers import AutoTokenizer

from iti_llama import ITILlamaConfig, ITILlamaForCausalLM
from iti_llama.toolkit.export.canary import FILE, ask_server, read_canary
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.vllm_plugin import EXPORT
from iti_llama.toolkit.foundation.package import ROOT


VLLM = os.environ.get("ITI_VLLM")
pytestmark = pytest.mark.skipif(not VLLM, reason="ITI_VLLM names no vllm command; see `make test-vllm`")

WORDS = ("prime", "even", "odd", "a square", "negative", "zero", "one", "two")
CONFIG = ITILlamaConfig.from_pretrained(ROOT)


@pytest.fixture(scope="module")
def other():
    """Directions of a second adapter: the bundled model's, each on the next head."""
    directions = ITILlamaForCausalLM.from_pretrained(ROOT).iti_directions
    return replace(directions, directions=directions.directions.roll(1, 0))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, other):
    folder = tmp_path_factory.mktemp("vllm")
    export(ROOT, "vllm", folder / "adapter")
    export(ROOT, "llama", folder / "base", alpha=0.0)
    export(ROOT, "llama", folder / "baked")
    model = ITILlamaForCausalLM.from_base(folder / "base", other, alpha=CONFIG.iti_alpha)
    model.save_pretrained(folder / "repo")
    export(folder / "repo", "vllm", folder / "other", with_canary=False)
    return folder


@pytest.fixture(scope="module")
def strengths(exported):
    """What a name asks for: the strengths of the two adapters. To the ends of the range that was measured."""
    low, high = json.loads((exported / "adapter" / EXPORT).read_text())["range"]
    numbers = {f"steered@{number:g}": (number, 0.0) for number in (low, high, high / 2, 0)}
    mix = {f"steered@{high * 0.6:g}+other@{low * 0.4:g}": (high * 0.6, low * 0.4)}
    return {"base": (0.0, 0.0), "steered": (CONFIG.iti_alpha, 0.0), **numbers, **mix}


def serving(exported, model, *options):
    """A server until the block ends; at most three strengths at once, so that adapters come and go."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "ITI_ADAPTERS": f"steered={exported / 'adapter'},other={exported / 'other'}",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_SIM_MULTI_NUMA": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [VLLM, "serve", str(exported / model), "--served-model-name", "base", "--port", str(port)]
    command += ["--max-model-len", "512", "--dtype", "float32", "--max-logprobs", str(CONFIG.vocab_size), *options]
    log = (exported / f"{model}.log").open("w")
    server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=exported, start_new_session=True)
    try:
        for _ in range(1800):
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, (exported / f"{model}.log").read_text()[-3000:]
                time.sleep(0.5)
        else:
            pytest.fail((exported / f"{model}.log").read_text()[-3000:])
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


LORA = (
    "--hf-overrides", '{"architectures": ["ITILlamaForCausalLM"]}', "--enable-lora", "--max-lora-rank", "8",
    "--lora-target-modules", "iti", "--max-loras", "3",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(exported):
    yield from serving(exported, "base", *LORA, "--lora-modules", f"steered={exported / 'adapter'}")


@pytest.fixture(scope="module")
def reference(other):
    """Log-probabilities of the next token at the strengths of both adapters: hooks on the plain model."""
    model = ITILlamaForCausalLM.from_pretrained(ROOT).eval()
    directions = model.iti_directions
    model.set_iti_directions(None)

    @torch.no_grad()
    def logs(ids, alphas: tuple[float, float]) -> np.ndarray:
        with ExitStack() as both:
            for held, alpha in zip((directions, other), alphas, strict=True):
                both.enter_context(hooks(model, held, alpha))
            return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()

    return logs


@pytest.fixture(scope="module")
def prompts():
    tokenizer = AutoTokenizer.from_pretrained(ROOT)
    return [tokenizer(f'def f(n):\n    """Check if a number is {word}."""\n')["input_ids"] for word in WORDS]


def ask(address: str, model: str, ids) -> np.ndarray:
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": CONFIG.vocab_size}
    body |= {"return_tokens_as_token_ids": True}
    request = Request(f"{address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=120) as reply:
        top = json.load(reply)["choices"][0]["logprobs"]["top_logprobs"][0]
    found = np.full(CONFIG.vocab_size, np.nan)
    for name, value in top.items():
        found[int(name.split(":")[1])] = value
    return found


def version(address: str) -> str:
    with urlopen(f"{address}/version", timeout=5) as reply:
        return f"vLLM {json.load(reply)['version']}"


def check_strengths(address, reference, prompts, strengths, what):
    """Each prompt with every name at once, in orders of their own, twice: the second time from the prefix cache."""
    names, largest = list(strengths), 0.0
    with ThreadPoolExecutor(len(names)) as pool:
        for turn, ids in enumerate([*prompts, *prompts]):
            turned = names[turn % len(names) :] + names[: turn % len(names)]
            answers = list(pool.map(lambda name, ids=ids: ask(address, name, ids), turned))
            for name, found in zip(turned, answers, strict=True):
                assert np.isfinite(found).all(), (turn, name)
                worst = np.abs(found - reference(ids, strengths[name])).max()
                assert worst < 1e-4, (turn, name, worst)
                largest = max(largest, worst)
    print(f"{version(address)}, {what}, {', '.join(names)}: {largest:.1e} from hooks")


def test_every_request_has_its_own_strength(server, reference, prompts, strengths):
    plain = reference(prompts[0], (0.0, 0.0))
    for alone in ((CONFIG.iti_alpha, 0.0), (0.0, CONFIG.iti_alpha)):
        assert np.abs(reference(prompts[0], alone) - plain).max() > 0.5
    check_strengths(server, reference, prompts, strengths, "one worker")


@pytest.mark.parametrize(
    "name", ["steered@9", "steered@nan", "steered@", "steered@inf", "steered@1e400", "steered@0.5 ", "third@0.5", "x",
             "steered@\u0660.\u0665", "steered@0.1+other@9", "steered@0.1+third@0.1", "steered@0.1+steered@0.1"]
)  # fmt: skip
def test_a_name_that_is_no_strength_is_an_error(name, server, prompts):
    with pytest.raises(HTTPError) as error:
        ask(server, name, prompts[0])
    assert error.value.code == 404


def test_the_canary_tells_them_apart(server, exported):
    canary = read_canary(exported / "adapter" / FILE)
    for name, verdict in {"steered": "steered", "base": "plain", "steered@0": "plain"}.items():
        assert canary.verdict(ask_server(server, name)(canary)) == verdict


@pytest.fixture(scope="module")
def server_of_two(exported, server):
    yield from serving(
        exported, "base", *LORA, "--lora-modules", f"steered={exported / 'adapter'}", "--tensor-parallel-size", "2"
    )


def test_tensor_parallel(server_of_two, reference, prompts, strengths):
    some = {name: strengths[name] for name in list(strengths)[:3]}
    check_strengths(server_of_two, reference, prompts[:3], some, "two workers")


@pytest.fixture(scope="module")
def server_baked(exported, server_of_two):
    yield from serving(exported, "baked")


def test_the_baked_checkpoint(server_baked, reference, prompts):
    found = [ask(server_baked, "base", ids) - reference(ids, (CONFIG.iti_alpha, 0.0)) for ids in prompts[:3]]
    assert np.abs(found).max() < 1e-4
    print(f"{version(server_baked)}, baked: {np.abs(found).max():.1e} from hooks")
