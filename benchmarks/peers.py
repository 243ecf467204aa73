"""Measure one way of steering against plain Llama in the same process. side_by_side.py runs this in the environment of
the peer.

    python benchmarks/peers.py NAME FOLDER --rounds 5
    python benchmarks/peers.py NAME FOLDER --decoding
    python benchmarks/peers.py NAME FOLDER --fit

side_by_side.py makes FOLDER. It holds what peer_ways.py reads, `reference.npz` (prompts, and the tokens that forward
hooks on plain Llama give, for each way of decoding) and `texts.json` (labelled texts). Prints JSON.
"""

import argparse
import ast
import contextlib
import importlib.metadata
import inspect
import json
import math
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from peer_ways import FITS, WAYS, by_heads, called, hf_generate, loaded, of_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoTokenizer


SYNCS = ("_local_scalar_dense", "item", "equal", "nonzero")
VIEWS = ("view", "expand", "slice", "transpose", "unsqueeze", "select", "t", "detach", "alias", "_unsafe_view")


class Count(TorchDispatchMode):
    """Dispatched operations that do work, and reads of a value by the host."""

    def __enter__(self):
        self.operations = self.syncs = 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        self.operations += name not in VIEWS
        self.syncs += name in SYNCS
        return function(*args, **(kwargs or {}))


def counted(generate, ids) -> np.ndarray:
    """Operations and syncs of a decode step: those of 9 new tokens minus those of 1, divided by 8."""
    totals = []
    for new in (1, 9):
        with Count() as count:
            generate(ids, new)
        totals.append(np.array([count.operations, count.syncs]))
    return (totals[1] - totals[0]) / 8


ROWS = (0.0, 1.0, 0.5, 1.5)
"""Strengths of the four prompts, when each row has a different one."""


def ways(ids: torch.Tensor, assistant) -> dict[str, tuple[torch.Tensor, dict]]:
    """{way of decoding: (prompts, arguments of `generate`)}."""
    mask = (torch.arange(ids.shape[1]) >= torch.tensor([0, 6, 12, 18])[: len(ids), None]).long().to(ids.device)
    return {
        "greedy": (ids, {}),
        "padded on the left": (ids * mask, {"attention_mask": mask}),
        "a strength for each row": (ids, {"rows": torch.tensor(ROWS, device=ids.device)}),
        "static cache": (ids, {"cache_implementation": "static"}),
        "without a cache": (ids, {"use_cache": False}),
        "beams": (ids, {"num_beams": 3, "num_return_sequences": 2}),
        "sampling": (ids, {"do_sample": True, "temperature": 0.8, "top_k": 0}),
        # transformers 4 refuses a least length beside an assistant
        "speculation": (ids[:1], {"assistant_model": assistant, "min_new_tokens": None}),
    }


def decodings(generate, plain, prompts: torch.Tensor, new: int, held) -> dict[str, dict[str, str]]:
    """{scope: {way of decoding: "right", "wrong", "not offered", or the error}}."""
    found = {}
    for scope in ("all", "generated"):
        for way, (ids, more) in ways(prompts, plain).items():
            torch.manual_seed(7)
            try:
                tokens = generate(ids, new, **more, **({} if scope == "all" else {"scope": scope}))
                right = torch.equal(torch.as_tensor(tokens).cpu(), torch.from_numpy(held[f"{scope}: {way}"]))
                told = "right" if right else "wrong"
            except Exception as error:  # a peer's error, which is quoted
                told = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100] if str(error) else ''}"
                if any(f"'{name}'" in told for name in ("rows", "scope")):
                    told = "not offered"
            found.setdefault(scope, {})[way] = told
    return found


def lines_of(function: Callable) -> int:
    """Lines of code of a way and its helpers, without signature and docstring."""
    tree = ast.parse(inspect.getsource(function)).body[0]
    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    own = sum(len(ast.unparse(node).splitlines()) for node in body)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return own + sum(lines_of(helper) for helper in (of_model, by_heads) if helper.__name__ in used)


@torch.no_grad()
def graph_breaks(forward: Callable | None, ids: torch.Tensor) -> float:
    """Graph breaks of one compiled pass; NaN for a way that has no pass to compile."""
    if forward is None:
        return math.nan
    torch._dynamo.reset()
    breaks = torch._dynamo.explain(forward)(ids).graph_break_count
    torch._dynamo.reset()
    return breaks


def seconds(work: Callable, *arguments) -> float:
    begin = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begin


def timed(strengthen: Callable | None) -> float:
    """Seconds to change the strength, the median of nine changes; NaN for a way that has to be made again."""
    if strengthen is None:
        return math.nan
    return statistics.median(seconds(strengthen, alpha) for alpha in np.linspace(0.2, 1.0, 9).tolist())


def memory() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fitted(name: str, folder: Path, rounds: int) -> dict:
    """Time to fit 12 heads on the labelled texts, also as a ratio to one plain pass over them in batches of 32."""
    texts, labels = json.loads((folder / "texts.json").read_text())
    model, tokenizer = loaded(folder), AutoTokenizer.from_pretrained(folder / "plain", padding_side="right")

    def plain_pass():
        for at in range(0, len(texts), 32):
            model.model(**tokenizer(texts[at : at + 32], return_tensors="pt", padding=True), use_cache=False)

    pairs = [(FITS[name](folder, texts, labels, 12), seconds(plain_pass)) for _ in range(rounds + 1)][1:]
    return {"seconds": spread([own for own, _ in pairs]), "ratio": spread([own / plain for own, plain in pairs])}


def spread(ratios: list[float]) -> dict:
    return {"median": statistics.median(ratios), "from": min(ratios), "to": max(ratios), "rounds": len(ratios)}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=WAYS | FITS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--decoding", action="store_true", help="which ways of decoding give the right tokens")
    parser.add_argument("--fit", action="store_true", help="how long fitting directions takes")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.fit:
        print(json.dumps({"name": args.name} | fitted(args.name, args.folder, args.rounds)))
        return
    with np.load(args.folder / "reference.npz") as file:
        held = {name: file[name] for name in file.files}
    prompts, wanted = torch.from_numpy(held["prompts"]), torch.from_numpy(held["all: greedy"])
    way = WAYS[args.name](args.folder)
    generate = way.generate
    generate(prompts, 2)
    found = {"name": args.name, "memory": memory(), "transformers": transformers.__version__}
    plain = loaded(args.folder)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["version"] = importlib.metadata.version(args.name)
    new = wanted.shape[1] - prompts.shape[1]
    if args.decoding:
        print(json.dumps(found | {"decodings": decodings(generate, plain, prompts, new, held)}))
        return
    tokens = generate(prompts, new)
    found["same tokens"] = torch.equal(torch.as_tensor(tokens), wanted)
    one = prompts[:1]
    base = counted(lambda ids, n: hf_generate(plain, ids, n), one)
    found["operations"], found["syncs"] = (counted(generate, one) - base).tolist()
    found["graph breaks"] = graph_breaks(way.forward, one) - graph_breaks(called(plain)["forward"], one)
    found["seconds to change alpha"] = timed(way.strengthen)
    making = [(seconds(WAYS[args.name], args.folder), seconds(loaded, args.folder)) for _ in range(args.rounds)]
    found["load"] = spread([own / base for own, base in making])
    found["lines"] = lines_of(WAYS[args.name])
    for batch in args.batch:
        ids = prompts.repeat(-(-batch // len(prompts)), 1)[:batch]
        ratios = {"prefill": [], "decode": []}
        for round_ in range(args.rounds + 1):
            first, whole = {}, {}
            for name, run in (("plain", lambda ids, n: hf_generate(plain, ids, n)), ("steered", generate)):
                first[name], whole[name] = seconds(run, ids, 1), seconds(run, ids, args.new)
            if round_:  # the first warms up
                ratios["prefill"].append(first["steered"] / first["plain"])
                steps = {name: whole[name] - first[name] for name in first}
                ratios["decode"].append(steps["steered"] / steps["plain"])
        for phase, own in ratios.items():
            found[f"{phase}, batch {batch}"] = spread(own)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
