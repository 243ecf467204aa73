"""One way of steering, measured against plain Llama in the same process: run by side_by_side.py, in the environment
of the peer.

    python benchmarks/peers.py NAME FOLDER --rounds 5

FOLDER, which side_by_side.py makes, holds `plain` (a Llama), `offsets.npz` ({layer: what is added at the input of
o_proj, at alpha 1}; `vectors.npz` the same after it) and `reference.npz` (prompts, and the tokens that forward hooks
on plain Llama give). Each way is used as its own documentation says. Prints JSON.
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


VIEWS = ("view", "expand", "slice", "transpose", "unsqueeze", "select", "t", "detach", "alias", "_unsafe_view")


def loaded(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder / "plain").eval()


def offsets(folder: Path, name: str = "offsets") -> dict[int, torch.Tensor]:
    with np.load(folder / f"{name}.npz") as held:
        return {int(layer): torch.from_numpy(held[layer]) for layer in held.files}


def hf_generate(model, ids: torch.Tensor, new: int) -> torch.Tensor:
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)


# Each returns generate(ids, new) -> tokens [rows, prompt + new], steered at alpha 1, everywhere. ---------------------


def plain_again(folder: Path):
    model = loaded(folder)
    return lambda ids, new: hf_generate(model, ids, new)


def iti_llama(folder: Path):
    from iti_llama import ITILlamaForCausalLM

    model = ITILlamaForCausalLM.from_pretrained(folder / "steered").eval()
    return lambda ids, new: hf_generate(model, ids, new)


def baked(folder: Path):
    model = LlamaForCausalLM.from_pretrained(folder / "baked").eval()
    return lambda ids, new: hf_generate(model, ids, new)


def peft(folder: Path):
    from peft import PeftModel

    model = PeftModel.from_pretrained(loaded(folder), folder / "peft").eval()
    return lambda ids, new: hf_generate(model, ids, new)


def hooks(folder: Path):
    model = loaded(folder)
    for layer, offset in offsets(folder).items():
        o_proj = model.model.layers[layer].self_attn.o_proj
        o_proj.register_forward_pre_hook(lambda module, inputs, offset=offset: (inputs[0] + offset,))
    return lambda ids, new: hf_generate(model, ids, new)


def pyvene(folder: Path):
    import pyvene as pv

    def add(offset):
        return lambda base, source: base + offset

    parts = [
        {"component": f"model.layers[{layer}].self_attn.o_proj.input", "intervention": add(offset)}
        for layer, offset in offsets(folder).items()
    ]
    model = pv.IntervenableModel(parts, model=loaded(folder))

    def generate(ids, new):
        settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        base = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return model.generate(base, unit_locations=None, intervene_on_prompt=True, **settings)[1]

    return generate


def steering_vectors(folder: Path):
    from steering_vectors import SteeringVector

    model = loaded(folder)
    vector = SteeringVector(layer_activations=offsets(folder, "vectors"), layer_type="self_attn")

    def generate(ids, new):
        with vector.apply(model, multiplier=1.0):
            return hf_generate(model, ids, new)

    return generate


def repeng(folder: Path):
    from repeng import ControlModel

    given = offsets(folder, "vectors")
    model = ControlModel(loaded(folder), list(given))
    model.set_raw_control(given)
    return lambda ids, new: hf_generate(model, ids, new)


WAYS = {
    "plain again": plain_again, "iti-llama": iti_llama, "baked": baked, "peft": peft, "hooks": hooks, "pyvene": pyvene,
    "steering-vectors": steering_vectors, "repeng": repeng,
}  # fmt: skip


class Count(TorchDispatchMode):
    """Dispatched operations that do work."""

    def __enter__(self):
        self.operations = 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += function.__name__.split(".")[0] not in VIEWS
        return function(*args, **(kwargs or {}))


def counted(generate, ids) -> float:
    """Operations of a decode step: those of 9 new tokens less those of 1, over 8."""
    totals = []
    for new in (1, 9):
        with Count() as count:
            generate(ids, new)
        totals.append(count.operations)
    return (totals[1] - totals[0]) / 8


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
    args = parser.parse_args()
    torch.set_num_threads(2)
    with np.load(args.folder / "reference.npz") as held:
        prompts, wanted = torch.from_numpy(held["prompts"]), torch.from_numpy(held["tokens"])
    begin = time.perf_counter()
    generate = WAYS[args.name](args.folder)
    load = time.perf_counter() - begin
    plain = loaded(args.folder)
    found = {"name": args.name, "transformers": transformers.__version__, "torch": torch.__version__, "load": load}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["version"] = importlib.metadata.version(args.name)
    new = wanted.shape[1] - prompts.shape[1]
    tokens = generate(prompts, new)
    found["same tokens"] = torch.equal(torch.as_tensor(tokens), wanted)
    one = prompts[:1]
    base = counted(lambda ids, n: hf_generate(plain, ids, n), one)
    found["operations"] = counted(generate, one) - base
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
