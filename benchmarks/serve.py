"""Compare vLLM with the plugin to plain vLLM: tokens a second of requests that run at once, and whether the tokens are
right. Two plain engines and one with the plugin run together and are asked in turn, so that a ratio compares
neighbours in time. This is done three times, and each engine starts first once, since the order can change the speed.

    make bench PART=serve                                             # SmolLM2 in bfloat16, 16 requests, CPU
    .venv/bin/python benchmarks/serve.py --base FOLDER --repo REPO --rounds 9 --requests 32

--repo is a steered repo of that base. Without it the directions are random, a head in each of a few layers, which
costs the same. "plain again" is the second plain engine: a ratio inside its range means nothing. Processor time is
that of the engine's processes; other work on the machine disturbs it less than the clock.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


ENGINES = ("plain", "plugin", "plain again")
QUESTIONS = (
    "Why is the sky blue?", "How do I boil an egg?", "What is a prime number?", "Who wrote Hamlet?",
    "How far away is the moon?", "What does a compiler do?", "Why do cats purr?", "How is bread made?",
    "What is the capital of Peru?", "How do magnets work?", "What is a haiku?", "Why is the sea salty?",
    "How do I learn to swim?", "What is inflation?", "Why do leaves fall?", "How does a clock work?",
)  # fmt: skip


def engine(base: str, dtype: str, plugin: bool):
    from vllm import LLM

    options = {"max_model_len": 1024, "max_num_seqs": 64, "disable_log_stats": True}
    if plugin:
        options["hf_overrides"] = {"architectures": ["ITILlamaForCausalLM"]}
        options["logits_processors"] = ["iti_llama.toolkit.export.vllm_strengths:Strengths"]
    return LLM(base, dtype=dtype, **options)


def random_repo(base: str, folder: Path) -> Path:
    import torch

    from iti_llama import ITIDirections, ITILlamaForCausalLM

    model, generator = ITILlamaForCausalLM.from_base(base, None), torch.Generator().manual_seed(0)
    layers = range(0, model.config.num_hidden_layers, max(1, model.config.num_hidden_layers // 16))
    directions = torch.randn(len(layers), model.config.head_dim, generator=generator)
    geometry = {key: getattr(model.config, key) for key in ("num_hidden_layers", "num_attention_heads", "head_dim")}
    model.set_iti_directions(ITIDirections(
        heads=torch.tensor([[layer, layer % model.config.num_attention_heads] for layer in layers]),
        directions=directions / directions.norm(dim=-1, keepdim=True),
        sigma=torch.full((len(layers),), 0.1),
        **geometry,
    ))  # fmt: skip
    model.save_pretrained(folder)
    return folder


def requests(base: str, count: int, tokens: int, strengths: list[float]):
    """The prompts, and the sampling of each, which takes the strengths in turn."""
    from transformers import AutoTokenizer
    from vllm import SamplingParams

    from iti_llama.toolkit.export.vllm_plugin import adapters_of_server, arguments_of

    tokenizer, prompts, sampling = AutoTokenizer.from_pretrained(base, trust_remote_code=False), [], []
    for number in range(count):
        question = QUESTIONS[number % len(QUESTIONS)]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        arguments, salt = arguments_of({"steered": strengths[number % len(strengths)]}, adapters_of_server())
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        prompts.append({"prompt_token_ids": ids} | ({"cache_salt": salt} if salt else {}))
        sampling.append(
            SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, extra_args=arguments or None)
        )
    return prompts, sampling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="a plain checkpoint; by default SmolLM2-135M-Instruct")
    parser.add_argument("--repo", help="a steered repo of that base; by default random directions")
    parser.add_argument("--python", help="the Python of vLLM's environment", default=".venv-vllm/bin/python")
    parser.add_argument("--adapter", help="an export of --to vllm, to compare in this process")
    parser.add_argument("--start", type=int, default=0, help="the engine that starts first, in this process")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--orders", type=int, default=len(ENGINES), help="orders in which the engines start")
    parser.add_argument("--rounds", type=int, default=5, help="for each of these orders")
    arguments = parser.parse_args()
    if arguments.adapter:
        print("\n" + json.dumps(compare(arguments)))
        return

    import iti_llama
    from iti_llama.toolkit.export.export import export

    base = arguments.base or str(iti_llama.smollm2())
    with tempfile.TemporaryDirectory() as holder:
        adapter = Path(holder, "steered")
        export(arguments.repo or random_repo(base, Path(holder, "repo")), "vllm", adapter, with_canary=False)
        environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
        environment |= os.environ | {"ITI_ADAPTERS": f"steered={adapter}"}
        command = [arguments.python, __file__, *sys.argv[1:], "--base", base, "--adapter", str(adapter), "--start"]
        runs = []
        for start in range(arguments.orders):
            ended = subprocess.run(
                [*command, str(start)], env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            runs.append(json.loads(ended.stdout.splitlines()[-1]))
    report(arguments, runs)


def cpu_seconds(processes: list) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def compare(arguments: argparse.Namespace) -> dict:
    """For each kind of requests its tokens a second and its speed relative to plain, by the clock and by processor
    time, of each round; and in how many requests the answers are, or are not, plain's."""
    import psutil
    import vllm

    from iti_llama.toolkit.export.vllm_plugin import adapters_of_server

    base, high = arguments.base, adapters_of_server()["steered"].allowed.high
    engines, workers = {}, {}
    for name in (*ENGINES[arguments.start :], *ENGINES[: arguments.start]):
        before = set(psutil.Process().children(recursive=True))
        engines[name] = engine(base, arguments.dtype, name == "plugin")
        workers[name] = [process for process in psutil.Process().children(recursive=True) if process not in before]
    kinds = {
        "plain": ("plain", [0.0]),
        "plain again": ("plain again", [0.0]),
        "plugin, none steered": ("plugin", [0.0]),
        "plugin, one strength": ("plugin", [high]),
        "plugin, eight strengths": ("plugin", [high * step / 8 for step in range(1, 9)]),
    }
    asked = {
        kind: requests(base, arguments.requests, arguments.tokens, strengths) for kind, (_, strengths) in kinds.items()
    }

    def run(kind: str) -> tuple[tuple[float, float], list]:
        """Seconds on the clock, seconds of the engine's processes, and the answers."""
        (prompts, sampling), (name, _) = asked[kind], kinds[kind]
        start, spent = time.perf_counter(), cpu_seconds(workers[name])
        answers = engines[name].generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - start, cpu_seconds(workers[name]) - spent
        return seconds, [answer.outputs[0].token_ids for answer in answers]

    answers = {kind: run(kind)[1] for kind in kinds}  # and warms up
    speeds, ratios = {kind: [] for kind in kinds}, {kind: [] for kind in kinds}
    for number in range(arguments.rounds):
        order = list(kinds) if number % 2 == 0 else list(kinds)[::-1]
        seconds = {kind: run(kind)[0] for kind in order}
        for kind in kinds:
            speeds[kind].append(arguments.requests * arguments.tokens / seconds[kind][0])
            ratios[kind].append([plain / own for plain, own in zip(seconds["plain"], seconds[kind], strict=True)])
    same = sum(a == b for a, b in zip(answers["plain"], answers["plugin, none steered"], strict=True))
    other = sum(a != b for a, b in zip(answers["plain"], answers["plugin, one strength"], strict=True))
    return {"vllm": vllm.__version__, "speeds": speeds, "ratios": ratios, "same": same, "other": other}


def report(arguments: argparse.Namespace, runs: list[dict]) -> None:
    print(f"\nvLLM {runs[0]['vllm']}, {platform.machine()}, {arguments.dtype}, {arguments.requests} requests at once, "
          f"{arguments.tokens} tokens, {len(runs)} orders of starting, {arguments.rounds} rounds each\n")  # fmt: skip
    print("| | tokens a second, median | as fast as plain, median (range) | by processor time |\n|---|---|---|---|")
    for kind in runs[0]["speeds"]:
        speeds = [speed for run in runs for speed in run["speeds"][kind]]
        ratios = zip(*(pair for run in runs for pair in run["ratios"][kind]), strict=True)
        cells = [f"{statistics.median(of):.3f} ({min(of):.3f} to {max(of):.3f})" for of in ratios]
        print(f"| {kind} | {statistics.median(speeds):.0f} | {cells[0]} | {cells[1]} |")
    same, other = (", ".join(str(run[name]) for run in runs) for name in ("same", "other"))
    print(f"\nOf {arguments.requests} answers of the plugin, plain's token by token if none is steered: {same}; "
          f"other than plain's at one strength: {other}.")  # fmt: skip


if __name__ == "__main__":
    main()
