"""Eight ways of decoding at both scopes, token for token, against forward hooks on plain Llama.

    python benchmarks/gpu_decoding.py --device cuda

Prints JSON, {scope: {way: whether the tokens are the same}}. A model of random weights in float32, whose matrices are
scaled up so that its logits depend on everything.
"""

import argparse
import json
from contextlib import contextmanager

import torch
from decode import SHAPES, build


ALPHA, NEW = 2.0, 24
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    plain, steered, directions = build(SHAPES["tiny"], 6, device, torch.float32)
    with torch.no_grad():
        for weight in plain.parameters():  # which the steered model shares
            if weight.ndim == 2:
                weight.mul_(6)
    steered.set_iti_directions(directions)
    steered.iti_alpha = ALPHA
    ids = torch.randint(5, 120, (3, 12), generator=torch.Generator().manual_seed(1)).to(device)
    mask = (torch.arange(12) >= torch.tensor([0, 4, 8])[:, None]).long().to(device)
    rows = torch.tensor([0.0, 1.0, ALPHA])

    def say(model, prompt=ids, **kwargs):
        settings = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        kwargs.setdefault("attention_mask", torch.ones_like(prompt))
        torch.manual_seed(7)
        return model.generate(prompt, **(settings | kwargs)).cpu()

    found = {}
    for scope in ("all", "generated"):
        steered.iti_scope = scope

        def reference(prompt=ids, alpha=ALPHA, scope=scope, **kwargs):
            with hooks(plain, directions, alpha, scope):
                return say(plain, prompt, **kwargs)

        greedy = reference()
        assert not torch.equal(greedy, say(plain)), "the steering changes nothing: no test"
        sampled = {"do_sample": True, "temperature": 0.8, "top_k": 0}
        beams = {"num_beams": 3, "num_return_sequences": 2}
        one, padded = ids[:1], {"attention_mask": mask}
        tried = {
            "greedy": (say(steered), greedy),
            "padded on the left": (say(steered, ids * mask, **padded), reference(ids * mask, **padded)),
            "a strength for each row": (say(steered, iti_alpha=rows), reference(alpha=rows)),
            "static cache": (say(steered, cache_implementation="static"), greedy),
            "without a cache": (say(steered, use_cache=False), greedy),
            "beams": (say(steered, **beams), reference(**beams)),
            "sampling": (say(steered, **sampled), reference(**sampled)),
            "speculation": (say(steered, one, assistant_model=plain), greedy[:1]),
        }
        found[scope] = {way: torch.equal(ours, theirs) for way, (ours, theirs) in tried.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
