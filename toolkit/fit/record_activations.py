"""Record the activations of every head, at the input of the output projection, for labelled texts.

A batch of right-padded rows of similar length takes one forward pass; only what the position policy keeps leaves the
device. A row's activations do not depend on its batch: padding is on the right and attention is causal.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from iti_llama.generation_iti_llama import record_heads

from ..data.labelled_set import Example, checksum, words_of
from ..foundation.bound_memory import batches_of, tokens_a_batch
from ..foundation.hashing import fingerprint
from .activation_cache import cached_batches, hash_of_ids, processes
from .positions import Policy, Row, tokenize
from .shifted_passes import input_device


@dataclass(frozen=True)
class Activations:
    """The activations kept for each text, float32 on CPU.

    heads: [rows, layers, heads, head_dim], at the input of each layer's output projection.
    residual: [rows, layers, hidden_size], the residual stream after each layer.
    """

    heads: torch.Tensor
    residual: torch.Tensor


@torch.no_grad()
def record_batch(model: PreTrainedModel, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """The activations kept for one batch of rows: {"heads": [batch, layers, heads * head_dim], "residual": [batch,
    layers, hidden]}."""
    length = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (length - len(row.ids)) for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (length - len(row.ids)) for row in rows])
    weights = mask.float() * (torch.arange(length) >= torch.tensor([[row.first] for row in rows]))
    weights = weights / weights.sum(-1, keepdim=True)

    def keep(activations: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bs,bsd->bd", weights.to(activations.device), activations.float()).cpu()

    device = input_device(model)
    residual = []

    def after_layer(module, arguments, output) -> None:
        residual.append(keep(output[0] if isinstance(output, tuple) else output))

    handles = [layer.register_forward_hook(after_layer) for layer in model.base_model.layers]
    try:
        heads = record_heads(model.base_model, keep, input_ids=ids.to(device), attention_mask=mask.to(device))
    finally:
        for handle in handles:
            handle.remove()
    return {"heads": torch.stack([heads[layer] for layer in sorted(heads)], 1), "residual": torch.stack(residual, 1)}


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

    Under `accelerate launch` the processes share the batches; they need a `cache` on a disk that all of them see, and
    each returns all activations. With a `cache` folder, finished batches survive a kill, and a second call for the
    same model, data, policy and batch size reads what the first one wrote.

    Raises:
        ValueError: if a text is longer than the model reads (the message counts them; nothing is cut in silence), has
            no token to read, or has activations that are not finite.
    """
    config, state = model.config, processes()
    rows = [tokenize(example, policy, tokenizer) for example in examples]
    longest = config.max_position_embeddings
    over = [index for index, row in enumerate(rows) if len(row.ids) > longest]
    if over:
        raise ValueError(
            f"{len(over)} of {len(rows)} texts are longer than the model's {longest} tokens, the first is row "
            f"{over[0] + 1} ({len(rows[over[0]].ids)} tokens): shorten them, or leave them out (`iti-llama fit "
            "--drop-long`)"
        )
    empty = next((index for index, row in enumerate(rows) if not row.ids), None)
    if empty is not None:
        raise ValueError(
            f"row {empty + 1} has no token to read: policy is '{policy}', its prompt is {examples[empty].prompt!r}, "
            "and the tokenizer starts no text by itself; expected a prompt, or another policy"
        )
    if cache is None and state.num_processes > 1:
        raise ValueError(f"{state.num_processes} processes share the work through files: pass a cache folder")
    batches = batches_of([len(row.ids) for row in rows], batch_size, tokens_a_batch(model))

    def compute(batch: list[int]) -> dict[str, torch.Tensor]:
        return record_batch(model, [rows[index] for index in batch])

    if cache is None:
        parts = []
        for batch in batches:
            parts.append(compute(batch))
            progress(len(batch))
    else:
        # The key uses the tokens of the written text: a template may add the date to the prompt.
        bare = [tokenize(replace(example, prompt=words_of(example)), policy, tokenizer) for example in examples]
        made_of = [policy, batch_size, hash_of_ids(bare), tokenizer.chat_template, batches]
        key = " ".join(map(str, (fingerprint(model), checksum(examples), *made_of)))
        parts = cached_batches(
            Path(cache), hashlib.sha256(key.encode()).hexdigest()[:24], batches, compute, progress, state
        )
    order = torch.tensor([index for batch in batches for index in batch])
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("heads", "residual")}
    back = torch.argsort(order)
    kept = Activations(joined["heads"][back].unflatten(-1, (config.num_attention_heads, -1)), joined["residual"][back])
    finite = kept.heads.flatten(1).isfinite().all(1) & kept.residual.flatten(1).isfinite().all(1)
    if not finite.all():
        raise ValueError(
            f"the activations of {int((~finite).sum())} of {len(rows)} texts are NaN or infinite, the first is row "
            f"{int(finite.int().argmin()) + 1}: load the model in bfloat16 or float32 (dtype is {model.dtype})"
        )
    return kept
