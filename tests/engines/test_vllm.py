"""vLLM itself, over HTTP: a strength for each request on the unmodified base. `make test-vllm` runs it; vLLM's
environment is gigabytes, so `make test` does not. `ITI_VLLM` names vLLM's command."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from real_model import need_smollm2
from reference import SCOPE_POSITIONS, hooks
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
BLOCK = 32
"""Tokens of a block of the prefix cache, the fewest on CPU: prompts are longer, so that they are found there."""


@pytest.fixture(scope="module")
def directions():
    """Those of each adapter, and its scope: the bundled model's, each on the next head, in the other scope."""
    held = ITILlamaForCausalLM.from_pretrained(ROOT).iti_directions
    other = replace(held, directions=held.directions.roll(1, 0))
    return {"steered": (held, "all"), "other": (other, "all"), "late": (held, "generated")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, directions):
    folder = tmp_path_factory.mktemp("vllm")
    export(ROOT, "vllm", folder / "steered")
    export(ROOT, "llama", folder / "base", alpha=0.0)
    export(ROOT, "llama", folder / "baked", with_canary=False)
    for name in ("other", "late"):
        held, scope = directions[name]
        model = ITILlamaForCausalLM.from_base(folder / "base", held, alpha=CONFIG.iti_alpha, scope=scope)
        model.save_pretrained(folder / f"repo of {name}")
        export(folder / f"repo of {name}", "vllm", folder / name, with_canary=False)
    return folder


@pytest.fixture(scope="module")
def strengths(exported):
    """What a model's name or `vllm_xargs` asks for. To the ends of the range that was measured."""
    low, high = json.loads((exported / "steered" / EXPORT).read_text())["range"]
    names = {"base": {}, "steered": {"steered": CONFIG.iti_alpha}}
    names |= {f"steered@{number:g}": {"steered": number} for number in (low, high / 2, 0)}
    names[f"steered@{high * 0.6:g}+other@{low * 0.4:g}"] = {"steered": high * 0.6, "other": low * 0.4}
    names[f"late@{high:g}"] = {"late": high}
    names[f"iti: steered={high:g},late={low:g}"] = {"steered": high, "late": low}
    return names


def serving(exported, model, *options):
    """A server until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "ITI_ADAPTERS": ",".join(f"{name}={exported / name}" for name in ("steered", "other", "late")),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_SIM_MULTI_NUMA": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [VLLM, "serve", str(exported / model), "--served-model-name", "base", "--port", str(port)]
    command += ["--max-model-len", "512", "--dtype", "float32", "--max-logprobs", str(CONFIG.vocab_size)]
    command += ["--block-size", str(BLOCK), *options]
    log = (exported / f"{model}.log").open("w")
    server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=exported, start_new_session=True)
    try:
        for _ in range(1800):
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, (exported / f"{model}.log").read_text()
                time.sleep(0.5)
        else:
            pytest.fail((exported / f"{model}.log").read_text()[-3000:])
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


PLUGIN = (
    "--hf-overrides", '{"architectures": ["ITILlamaForCausalLM"]}',
    "--logits-processors", "iti_llama.toolkit.export.vllm_strengths:Strengths",
    "--middleware", "iti_llama.toolkit.export.vllm_server.Steering",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(exported):
    yield from serving(exported, "base", *PLUGIN)


@pytest.fixture(scope="module")
def reference(directions):
    """Hooks on the plain model, at the strengths of each adapter: log-probabilities of the next token, or greedy
    tokens, of which the last prompt token and those that follow are the positions of scope "generated"."""
    model = ITILlamaForCausalLM.from_pretrained(ROOT).eval()
    model.set_iti_directions(None)

    class Reference:
        def hooked(self, alphas: dict[str, float]) -> ExitStack:
            stack = ExitStack()
            for name, alpha in alphas.items():
                held, scope = directions[name]
                stack.enter_context(hooks(model, held, alpha, SCOPE_POSITIONS[scope]))
            return stack

        @torch.no_grad()
        def logs(self, ids, alphas) -> np.ndarray:
            with self.hooked(alphas):
                return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()

        @torch.no_grad()
        def tokens(self, ids, alphas, count: int) -> list[int]:
            inputs = torch.tensor([ids])
            with self.hooked(alphas):
                out = model.generate(
                    inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=count,
                    min_new_tokens=count, pad_token_id=0,
                )  # fmt: skip
            return out[0, len(ids) :].tolist()

    return Reference()


@pytest.fixture(scope="module")
def prompts():
    """Longer than two blocks, and alike at the beginning."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT)
    begin = "".join(
        f'def {name}(n):\n    """Check if a number is even."""\n    return n % 2 == 0\n\n\n' for name in "fhk"
    )
    texts = [f'{begin}def g(n):\n    """Check if a number is {word}."""\n' for word in WORDS]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    assert min(map(len, prompts)) > 2 * BLOCK
    return prompts


def send(address: str, path: str, body: dict | None = None):
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{address}/{path}", data, {"Content-Type": "application/json"}), timeout=300) as reply:
        return reply.read().decode()


def asked(name: str) -> dict:
    """The fields of a request that ask for a strength: a model's name, or `iti: ` and the argument."""
    argument = name.removeprefix("iti: ")
    return {"model": name} if argument == name else {"model": "base", "vllm_xargs": {"iti": argument}}


def ask(address: str, name: str, ids) -> np.ndarray:
    body = asked(name) | {"prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": CONFIG.vocab_size}
    answer = json.loads(send(address, "v1/completions", body | {"return_tokens_as_token_ids": True}))
    found = np.full(CONFIG.vocab_size, np.nan)
    for token, value in answer["choices"][0]["logprobs"]["top_logprobs"][0].items():
        found[int(token.split(":")[1])] = value
    return found


def generate(address: str, name: str, ids, count: int) -> list[int]:
    body = asked(name) | {"prompt": ids, "max_tokens": count, "min_tokens": count, "temperature": 0}
    answer = json.loads(send(address, "v1/completions", body | {"return_token_ids": True}))
    return answer["choices"][0]["token_ids"]


def counter(address: str, name: str) -> float:
    lines = re.findall(rf"^vllm:{name}_total{{.*}} (\S+)$", send(address, "metrics"), re.MULTILINE)
    return sum(map(float, lines))


def version(address: str) -> str:
    return f"vLLM {json.loads(send(address, 'version'))['version']}"


def check_strengths(address, reference, prompts, strengths, what):
    """Each prompt with every name at once, in orders of their own, twice: the second time from the prefix cache."""
    names, largest = list(strengths), 0.0
    with ThreadPoolExecutor(len(names)) as pool:
        for turn, ids in enumerate([*prompts, *prompts]):
            turned = names[turn % len(names) :] + names[: turn % len(names)]
            answers = list(pool.map(lambda name, ids=ids: ask(address, name, ids), turned))
            for name, found in zip(turned, answers, strict=True):
                assert np.isfinite(found).all(), (turn, name)
                worst = np.abs(found - reference.logs(ids, strengths[name])).max()
                assert worst < 1e-4, (turn, name, worst)
                largest = max(largest, worst)
    assert counter(address, "prefix_cache_hits") > len(prompts) * BLOCK
    print(f"{version(address)}, {what}, {', '.join(names)}: {largest:.1e} from hooks")


def test_every_request_has_its_own_strength(server, reference, prompts, strengths):
    plain = reference.logs(prompts[0], {})
    for name in ("steered", "other", "late"):
        assert np.abs(reference.logs(prompts[0], {name: CONFIG.iti_alpha}) - plain).max() > 0.3, name
    check_strengths(server, reference, prompts, strengths, "one worker")


def check_tokens(address, reference, prompts, strengths, count: int):
    jobs = [(name, ids) for ids in prompts for name in strengths]
    with ThreadPoolExecutor(len(jobs)) as pool:
        answers = list(pool.map(lambda job: generate(address, *job, count), jobs))
    for (name, ids), tokens in zip(jobs, answers, strict=True):
        assert tokens == reference.tokens(ids, strengths[name], count), name


def test_the_tokens_are_those_of_hooks(server, reference, prompts, strengths):
    """All at once, so that requests of all strengths come and go beside each other; then one prompt at three strengths
    in turn, out of the cache."""
    check_tokens(server, reference, prompts[:3], strengths, 24)
    for name in ["steered", "base", *list(strengths)[2:4], "steered", "base"]:
        hits = counter(server, "prefix_cache_hits")
        assert generate(server, name, prompts[0], 24) == reference.tokens(prompts[0], strengths[name], 24)
        assert counter(server, "prefix_cache_hits") > hits


def test_what_a_steered_answer_left_in_the_cache_is_no_ones_prompt(server, reference, prompts, strengths):
    """Its tokens as a prompt are another request's: plain in scope "generated", and without strength."""
    for name in (name for name in strengths if name != "base"):
        turn = [*prompts[1], *generate(server, name, prompts[1], 3 * BLOCK)]
        for again in ("base", name):
            found = ask(server, again, turn)
            assert np.abs(found - reference.logs(turn, strengths[again])).max() < 1e-4, (name, again)


def test_an_answer_says_what_steered_it(server, exported, prompts):
    record = json.loads((exported / "late" / EXPORT).read_text())
    about = {"strength": 0.25, "repo": "repo of late", "commit": None, "scope": "generated", "gate": None}
    about["directions_sha256"] = {record["behaviours"][0]["file"]: record["behaviours"][0]["sha256"]}
    body = {"model": "late@0.25", "prompt": prompts[0], "max_tokens": 3}
    assert json.loads(send(server, "v1/completions", body))["iti"] == {"late": about}
    assert json.loads(send(server, "v1/completions", body | {"model": "base"}))["iti"] == {}
    events = send(server, "v1/completions", body | {"stream": True}).split("\n\n")
    assert json.loads(events[0].removeprefix("data: "))["iti"] == {"late": about}
    models = json.loads(send(server, "v1/models"))["data"]
    assert [model["id"] for model in models] == ["base", "steered", "other", "late"]


@pytest.mark.parametrize(
    "name,says",
    [("steered@9", "is 9.0"), ("steered@nan", "finite"), ("steered@", "finite"), ("steered@inf", "finite"),
     ("steered@1e400", "finite"), ("steered@0.5 ", "finite"), ("third@0.5", "does not exist"), ("x", "does not exist"),
     ("steered@\u0660.\u0665", "finite"), ("steered@0.1+other@9", "is 9.0"), ("steered@0.1+third@0.1", "third"),
     ("steered@0.1+steered@0.1", "twice")]
)  # fmt: skip
def test_a_name_that_is_no_strength_is_an_error_that_says_why(name, says, server, prompts):
    with pytest.raises(HTTPError) as error:
        ask(server, name, prompts[0])
    assert error.value.code == 404 and says in json.load(error.value)["error"]["message"]


@pytest.mark.parametrize(
    "path,body,says",
    [("v1/completions", {"vllm_xargs": {"iti": "steered=9"}}, "is 9.0"),
     ("v1/completions", {"vllm_xargs": {"iti": 0.5}}, "steered, other, late"),
     ("v1/completions", {"vllm_xargs": {"iti_alpha": 0.5}}, "did you mean 'iti'"),
     ("v1/completions", {"cache_salt": "iti-0"}, "cache_salt"),
     ("invocations", {"vllm_xargs": {"iti": "steered=0.5"}}, "without the cache_salt"),
     ("invocations", {"vllm_xargs": {"iti": "steered=0.5", "iti_salted": "x"}}, "without the cache_salt")],
)  # fmt: skip
def test_an_argument_that_cannot_be_had_is_an_error_that_says_why(path, body, says, server, prompts):
    """Also where the middleware has no part: /invocations is another way to the same engine."""
    with pytest.raises(HTTPError) as error:
        send(server, path, {"prompt": prompts[0], "model": "base", "max_tokens": 1} | body)
    assert error.value.code == 400 and says in error.value.read().decode()


def test_the_canary_tells_them_apart(server, exported):
    canary = read_canary(exported / "steered" / FILE)
    for name, verdict in {"steered": "steered", "base": "plain", "steered@0": "plain"}.items():
        assert canary.verdict(ask_server(server, name)(canary)) == verdict


@pytest.fixture(scope="module")
def small_server(exported, server):
    """Prompts come in chunks, and there is no room for all requests: some are thrown out and begin again."""
    yield from serving(
        exported, "base", *PLUGIN, "--max-num-batched-tokens", "24", "--max-num-seqs", "12",
        "--num-gpu-blocks-override", "40", "--enforce-eager",
    )  # fmt: skip


def test_in_chunks_and_after_preemption(small_server, reference, prompts, strengths):
    check_tokens(small_server, reference, prompts[:2], strengths, 40)
    assert counter(small_server, "num_preemptions") > 0


@pytest.fixture(scope="module")
def server_of_two(exported, small_server):
    yield from serving(exported, "base", *PLUGIN, "--tensor-parallel-size", "2")


def test_tensor_parallel(server_of_two, reference, prompts, strengths):
    some = {name: strengths[name] for name in ("base", "steered", *list(strengths)[5:])}
    check_strengths(server_of_two, reference, prompts[:3], some, "two workers")


@pytest.fixture(scope="module")
def server_baked(exported, server_of_two):
    yield from serving(exported, "baked")


def test_the_baked_checkpoint(server_baked, reference, prompts):
    found = [
        ask(server_baked, "base", ids) - reference.logs(ids, {"steered": CONFIG.iti_alpha}) for ids in prompts[:3]
    ]
    assert np.abs(found).max() < 1e-4
    print(f"{version(server_baked)}, baked: {np.abs(found).max():.1e} from hooks")


@pytest.mark.parametrize("left_out,says", [("--logits-processors", "runs without its strengths")])
def test_a_server_that_could_not_steer_does_not_start(left_out, says, exported):
    at = PLUGIN.index(left_out)
    with pytest.raises(AssertionError, match=says):
        next(serving(exported, "base", *PLUGIN[:at], *PLUGIN[at + 2 :]))


def test_the_benchmark_runs():
    need_smollm2()
    command = [sys.executable, ROOT / "benchmarks" / "serve.py", "--python", Path(VLLM).parent / "python"]
    command += ["--requests", "8", "--tokens", "8", "--rounds", "1", "--orders", "1"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "| plugin, eight strengths |" in ended.stdout and "none is steered: 8; other" in ended.stdout
