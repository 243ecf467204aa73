"""Steered models made from plain ones, and their logits."""

import torch
from transformers import LlamaForCausalLM

from iti_llama import ITILlamaConfig, ITILlamaForCausalLM


def steered_copy(base: LlamaForCausalLM, directions, **fields) -> ITILlamaForCausalLM:
    """The weights of `base` in a steered model, without going through a file."""
    kept = {k: v for k, v in base.config.to_dict().items() if k not in ("model_type", "architectures")}
    model = ITILlamaForCausalLM(ITILlamaConfig(**(kept | fields))).to(base.dtype).eval()
    model.load_state_dict(base.state_dict())
    model.set_iti_directions(directions)
    return model


@torch.no_grad()
def logits(model, ids, **kwargs) -> torch.Tensor:
    return model(input_ids=ids, **kwargs).logits
