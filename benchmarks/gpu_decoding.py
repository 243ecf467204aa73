"""Eight ways of decoding at both scopes, token for token, against forward hooks on plain Llama.

    python benchmarks/gpu_decoding.py --device cuda

Prints JSON, {scope: {way: "right", "wrong" or the error}}. The model has random weights in float32, whose matrices are
scaled up so that its logits depend on everything.
"""

import argparse
import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from decode import SHAPES, build
from peer_ways import hf_generate, of_model
from peers import decodings, ways


NEW = 24
torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def hooks(plain, directions, alpha, scope: str):
    """`x[l, h] += alpha * sigma * theta` at the input of o_proj: everywhere, or at the last position of each pass,
    which under a cache is the prompt's last token and every generated one."""
    handles = []
    for layer, offset in directions.offsets().items():
        o_proj = plain.model.layers[layer].self_attn.o_proj

        def shift(module, arguments, offset=offset):
            x, offset = arguments[0].clone(), offset.to(arguments[0])
            rows = torch.as_tensor(alpha, device=x.device, dtype=x.dtype).reshape(-1, 1, 1)
            where = slice(None) if scope == "all" else slice(-1, None)
            x[:, where] += rows * offset
            return (x,)

        handles.append(o_proj.register_forward_pre_hook(shift))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def references(plain, directions, prompts: torch.Tensor, new: int) -> dict[str, np.ndarray]:
    """{"scope: way of decoding": the tokens of plain Llama under hooks}, for the ways that peers.py lists."""
    tokens = {}
    for scope in ("all", "generated"):
        for way, (ids, more) in ways(prompts, plain).items():
            if way in ("static cache", "without a cache", "speculation"):  # they give the tokens of greedy decoding
                tokens[f"{scope}: {way}"] = tokens[f"{scope}: greedy"][: len(ids)]
                continue
            with hooks(plain, directions, more.pop("rows", 1.0), scope):
                torch.manual_seed(7)
                tokens[f"{scope}: {way}"] = hf_generate(plain, ids, new, **more).cpu().numpy()
    left_alone = hf_generate(plain, prompts, new).cpu().numpy()
    assert not np.array_equal(tokens["all: greedy"], left_alone), "the steering changes nothing: no test"
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    plain, steered, directions = build(SHAPES["tiny"], 6, device, torch.float32)
    with torch.no_grad():
        for weight in plain.parameters():  # the steered model shares them
            if weight.ndim == 2:
                weight.mul_(6)
    directions = replace(directions, sigma=2 * directions.sigma)
    steered.set_iti_directions(directions)
    ids = torch.randint(5, 120, (4, 32), generator=torch.Generator().manual_seed(1)).to(device)
    print(json.dumps(decodings(of_model(steered).generate, plain, ids, NEW, references(plain, directions, ids, NEW))))


if __name__ == "__main__":
    main()
