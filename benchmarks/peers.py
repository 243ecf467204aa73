"""One way of steering, measured against plain Llama in the same process: run by side_by_side.py, in the environment
of the peer.

    python benchmarks/peers.py NAME FOLDER --rounds 5
    python benchmarks/peers.py NAME FOLDER --decoding

FOLDER, which side_by_side.py makes, holds `plain` (a Llama), `offsets.npz` ({layer: what is added at the input of
o_proj, at alpha 1}; `vectors.npz` the same after it) and `reference.npz` (prompts, and the tokens that forward hooks
on plain Llama give, for each way of decoding). Each way of steering is used as its own documentation says. Prints
JSON.
"""

import argparse
import contextlib
import importlib.metadata
import inspect
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForCausalLM


SYNCS = ("_local_scalar_dense", "item", "equal", "nonzero")
VIEWS = ("view", "expand", "slice", "transpose", "unsqueeze", "select", "t", "detach", "alias", "_unsafe_view")


def loaded(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder / "plain").eval()


def offsets(folder: Path, name: str = "offsets") -> dict[int, torch.Tensor]:
    with np.load(folder / f"{name}.npz") as held:
        return {int(layer): torch.from_numpy(held[layer]) for layer in held.files}


def settings(ids: torch.Tensor, new: int, more: dict) -> dict:
    fixed = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return {"attention_mask": torch.ones_like(ids)} | fixed | more


def hf_generate(model, ids: torch.Tensor, new: int, **more) -> torch.Tensor:
    return model.generate(ids, **settings(ids, new, more))


# Each returns generate(ids, new, **more) -> tokens [rows, prompt + new], steered at alpha 1, everywhere. One that
# offers a strength for each row, or the scope "generated", takes `rows` or `scope`.


def plain_again(folder: Path):
    model = loaded(folder)
    return lambda ids, new, **more: hf_generate(model, ids, new, **more)


def of_model(model):
    """`generate` of a steered model of ours."""

    def generate(ids, new, rows=None, scope="all", **more):
        model.iti_scope = scope
        return hf_generate(model, ids, new, **more, **({} if rows is None else {"iti_alpha": rows}))

    return generate


def iti_llama(folder: Path):
    from iti_llama import ITILlamaForCausalLM

    return of_model(ITILlamaForCausalLM.from_pretrained(folder / "steered").eval())


def baked(folder: Path):
    model = LlamaForCausalLM.from_pretrained(folder / "baked").eval()
    return lambda ids, new, **more: hf_generate(model, ids, new, **more)


def peft(folder: Path):
    from peft import PeftModel

    model = PeftModel.from_pretrained(loaded(folder), folder / "peft").eval()
    return lambda ids, new, **more: hf_generate(model, ids, new, **more)


def hooks(folder: Path):
    model = loaded(folder)
    for layer, offset in offsets(folder).items():
        o_proj = model.model.layers[layer].self_attn.o_proj
        o_proj.register_forward_pre_hook(lambda module, inputs, offset=offset: (inputs[0] + offset,))
    return lambda ids, new, **more: hf_generate(model, ids, new, **more)


def pyvene(folder: Path):
    import pyvene as pv

    def add(offset):
        return lambda base, source: base + offset

    parts = [
        {"component": f"model.layers[{layer}].self_attn.o_proj.input", "intervention": add(offset)}
        for layer, offset in offsets(folder).items()
    ]
    model = pv.IntervenableModel(parts, model=loaded(folder))

    def generate(ids, new, **more):
        given = settings(ids, new, more)
        base = {"input_ids": ids, "attention_mask": given.pop("attention_mask")}
        return model.generate(base, unit_locations=None, intervene_on_prompt=True, **given)[1]

    return generate


def steering_vectors(folder: Path):
    from steering_vectors import SteeringVector

    model = loaded(folder)
    vector = SteeringVector(layer_activations=offsets(folder, "vectors"), layer_type="self_attn")

    def generate(ids, new, **more):
        with vector.apply(model, multiplier=1.0):
            return hf_generate(model, ids, new, **more)

    return generate


def repeng(folder: Path):
    from repeng import ControlModel

    given = offsets(folder, "vectors")
    model = ControlModel(loaded(folder), list(given))
    model.set_raw_control(given)
    return lambda ids, new, **more: hf_generate(model, ids, new, **more)


WAYS = {
    "plain again": plain_again, "iti-llama": iti_llama, "baked": baked, "peft": peft, "hooks": hooks, "pyvene": pyvene,
    "steering-vectors": steering_vectors, "repeng": repeng,
}  # fmt: skip


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
    """Operations and syncs of a decode step: those of 9 new tokens less those of 1, over 8."""
    totals = []
    for new in (1, 9):
        with Count() as count:
            generate(ids, new)
        totals.append(np.array([count.operations, count.syncs]))
    return (totals[1] - totals[0]) / 8


ROWS = (0.0, 1.0, 0.5, 1.5)
"""Strengths of the four prompts, where each row has its own."""


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
        "speculation": (ids[:1], {"assistant_model": assistant}),
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
            except Exception as error:  # a peer's own, to be quoted
                told = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100] if str(error) else ''}"
                if any(f"'{name}'" in told for name in ("rows", "scope")):
                    told = "not offered"
            found.setdefault(scope, {})[way] = told
    return found


def seconds(generate, ids, new: int) -> float:
    begin = time.perf_counter()
    generate(ids, new)
    return time.perf_counter() - begin


def spread(ratios: list[float]) -> dict:
    return {"median": statistics.median(ratios), "from": min(ratios), "to": max(ratios), "rounds": len(ratios)}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=WAYS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--decoding", action="store_true", help="which ways of decoding give the right tokens")
    args = parser.parse_args()
    torch.set_num_threads(2)
    with np.load(args.folder / "reference.npz") as file:
        held = {name: file[name] for name in file.files}
    prompts, wanted = torch.from_numpy(held["prompts"]), torch.from_numpy(held["all: greedy"])
    begin = time.perf_counter()
    generate = WAYS[args.name](args.folder)
    load = time.perf_counter() - begin
    plain = loaded(args.folder)
    found = {"name": args.name, "transformers": transformers.__version__, "torch": torch.__version__, "load": load}
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
    found["lines"] = len(inspect.getsource(WAYS[args.name]).strip().splitlines()) - 2
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
