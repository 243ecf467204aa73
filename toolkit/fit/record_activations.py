"""Record the activations of every head, at the input of the output projection, for labelled texts.

One forward pass per batch over right-padded rows of similar length; only what the position policy keeps leaves the
device. A row's activations do not depend on the batch it is in: padding is on the right and attention is causal.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.labelled_set import Example, checksum, words_of
from ..foundation.hashing import fingerprint
from .activation_cache import cached_batches, hash_of_ids, processes
from .positions import Policy, Row, tokenize


@dataclass(frozen=True)
class Activations:
    """What is kept of each text, float32 on CPU.

    heads: [rows, layers, heads, head_dim], at the input of each layer's output projection.
    residual: [rows, layers, hidden_size], the residual stream after each layer.
    """

    heads: torch.Tensor
    residual: torch.Tensor


@contextmanager
def recording(
    model: PreTrainedModel, keep: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Inside the block, a forward pass fills two lists, one entry a layer, with `keep(x)` of the input of o_proj
    [batch, seq, heads * head_dim] and of the layer's output [batch, seq, hidden_size]."""
    layers = model.base_model.layers
    heads, residual = ([torch.empty(0)] * len(layers) for _ in range(2))

    def before_o_proj(index: int):
        def record(module, arguments):
            heads[index] = keep(arguments[0])

        return record

    def after_layer(index: int):
        def record(module, arguments, output):
            residual[index] = keep(output[0] if isinstance(output, tuple) else output)

        return record

    handles = []
    for index, layer in enumerate(layers):
        handles.append(layer.self_attn.o_proj.register_forward_pre_hook(before_o_proj(index)))
        handles.append(layer.register_forward_hook(after_layer(index)))
    try:
        yield heads, residual
    finally:
        for handle in handles:
            handle.remove()


def by_length(rows: Sequence[Row], batch_size: int) -> list[list[int]]:
    """Indices of the rows of each batch, longest rows first: a batch that does not fit in memory fails at the
    start."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


@torch.no_grad()
def record_batch(model: PreTrainedModel, rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """What is kept of one batch of rows: {"heads": [batch, layers, heads * head_dim], "residual": [batch, layers,
    hidden]}."""
    length = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (length - len(row.ids)) for row in rows])
    weights = mask.float() * (torch.arange(length) >= torch.tensor([[row.first] for row in rows]))
    weights = weights / weights.sum(-1, keepdim=True)

    def keep(activations: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bs,bsd->bd", weights.to(activations.device), activations.float()).cpu()

    device = model.get_input_embeddings().weight.device
    device = model.device if device.type == "meta" else device
    with recording(model, keep) as (heads, residual):
        model.base_model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
    return {"heads": torch.stack(heads, 1), "residual": torch.stack(residual, 1)}


def capture(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    policy: Policy,
    batch_size: int = 32,
    cache: str | os.PathLike | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Activations:
    """Activations of every head and layer for every example, in their order.

    Under `accelerate launch` the batches are shared among the processes, which need a `cache` on a disk that all of
    them see; each returns all activations. With a `cache` folder, finished batches survive a kill, and a second call
    for the same model, data, policy and batch size reads what the first one wrote.

    Raises:
        ValueError: if a text is longer than the model reads; the message counts them. Nothing is cut in silence.
    """
    config, state = model.config, processes()
    rows = [tokenize(example, policy, tokenizer) for example in examples]
    longest = config.max_position_embeddings
    over = [index for index, row in enumerate(rows) if len(row.ids) > longest]
    if over:
        raise ValueError(
            f"{len(over)} of {len(rows)} texts are longer than the model's {longest} tokens, the first is row "
            f"{over[0] + 1} ({len(rows[over[0]].ids)} tokens): shorten them, or leave them out with --drop-long"
        )
    if cache is None and state.num_processes > 1:
        raise ValueError(f"{state.num_processes} processes share the work through files: pass a cache folder")
    batches = by_length(rows, batch_size)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def compute(batch: list[int]) -> dict[str, torch.Tensor]:
        return record_batch(model, [rows[index] for index in batch], pad)

    if cache is None:
        parts = []
        for batch in batches:
            parts.append(compute(batch))
            progress(len(batch))
    else:
        # The tokens of what was written: those of what a template makes of it change with the date.
        bare = [tokenize(replace(example, prompt=words_of(example)), policy, tokenizer) for example in examples]
        made_of = [policy, batch_size, hash_of_ids(bare), tokenizer.chat_template, batches]
        key = " ".join(map(str, (fingerprint(model), checksum(examples), *made_of)))
        parts = cached_batches(
            Path(cache), hashlib.sha256(key.encode()).hexdigest()[:24], batches, compute, progress, state
        )
    order = torch.tensor([index for batch in batches for index in batch])
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("heads", "residual")}
    back = torch.argsort(order)
    heads = joined["heads"][back].unflatten(-1, (config.num_attention_heads, -1))
    return Activations(heads, joined["residual"][back])
