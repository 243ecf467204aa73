"""Passes over answers that are given, after their prompts, with every head shifted by a number of its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel


@dataclass(frozen=True)
class BareRow:
    """A bare prompt and a completion, as tokens; `start` is the index of the completion's first token."""

    ids: list[int]
    start: int
    label: int


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block no weight has a gradient, so that a backward pass takes those of the shifts alone."""
    kept = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in kept:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wanted in kept:
            parameter.requires_grad_(wanted)


@contextmanager
def shifted(model: PreTrainedModel, offsets: torch.Tensor, alphas: Callable[[int, torch.Tensor], torch.Tensor], mask):
    """Inside the block, each head's output gets `alpha * offset` at the positions of `mask` [batch, seq]. `offsets`:
    float32 [layers, heads, head_dim]; `alphas(layer, x)`: [batch, heads], on the device of x."""

    def hook(layer: int):
        def shift(module, arguments):
            x = arguments[0]
            strength = alphas(layer, x)
            if strength is None:
                return None
            added = (strength[..., None] * offsets[layer].to(x.device)).flatten(1)
            return (x + (mask.to(x.device)[..., None] * added[:, None]).to(x.dtype), *arguments[1:])

        return shift

    layers = model.base_model.layers
    handles = [layer.self_attn.o_proj.register_forward_pre_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Batch:
    """Rows, padded on the right. predicts: [tokens, 2], the (row, position) that predict the tokens `targets` of the
    completions."""

    ids: torch.Tensor
    mask: torch.Tensor
    shifted: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor


def collate(rows: Sequence[BareRow], pad: int, scope: str) -> Batch:
    length = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows])
    columns = torch.arange(length)
    ends_and_starts = zip(*((len(row.ids), row.start) for row in rows), strict=True)
    ends, starts = (torch.tensor([[value] for value in values]) for values in ends_and_starts)
    mask = (columns < ends).long()
    first = torch.zeros_like(starts) if scope == "all" else starts - 1
    predicts = ((columns >= starts - 1) & (columns < ends - 1)).nonzero()
    return Batch(ids, mask, (columns >= first).float(), predicts, ids[predicts[:, 0], predicts[:, 1] + 1])


def input_device(model: PreTrainedModel) -> torch.device:
    """Where the model takes its inputs; accelerate leaves embeddings that are offloaded on "meta"."""
    device = model.get_input_embeddings().weight.device
    return model.device if device.type == "meta" else device


def hidden_states(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The last hidden states at the positions that predict a completion's token, [tokens, hidden_size]."""
    device = input_device(model)
    hidden = model.base_model(
        input_ids=batch.ids.to(device), attention_mask=batch.mask.to(device), use_cache=False
    ).last_hidden_state
    at = batch.predicts.to(hidden.device)
    return hidden[at[:, 0], at[:, 1]]
