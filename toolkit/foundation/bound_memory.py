"""Work on a model in pieces whose memory is bounded, whatever the texts, the batch size and the vocabulary.

The number of tokens in a batch is limited. Logits are made only for the positions that are scored, a few at a time:
with a vocabulary of 128k the logits of one batch of ordinary texts would take more memory than the model.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from transformers import PreTrainedModel


PIECE_BYTES = 1 << 26
"""Bytes of the largest tensor of logits, in float32. A few tensors of that size exist at a time."""

BATCH_BYTES = 1 << 30
"""Bytes that the activations of one batch may take on a CPU, by estimate. On an accelerator the limit is an eighth of
its memory, if that is more."""


Kept = Literal["nothing", "cache", "graph"]
"""What every layer keeps until a pass is over: keys and values for generation, or all that a backward pass needs."""


def bytes_a_token(model: PreTrainedModel, kept: Kept = "nothing") -> int:
    """About how many bytes the activations of a token take in a pass."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layer = 8 * config.hidden_size + 3 * config.intermediate_size
    of_every_layer = {"nothing": 0, "cache": 2 * config.num_key_value_heads * head_dim, "graph": layer}[kept]
    return (layer + config.num_hidden_layers * of_every_layer) * model.get_input_embeddings().weight.dtype.itemsize


def tokens_a_batch(model: PreTrainedModel, kept: Kept = "nothing") -> int:
    """How many tokens, padding included, a batch may hold."""
    embeddings, allowed = model.get_input_embeddings().weight, BATCH_BYTES
    if embeddings.device.type == "cuda":
        allowed = max(allowed, torch.cuda.get_device_properties(embeddings.device).total_memory // 8)
    return max(1, allowed // bytes_a_token(model, kept))


def batches_of(lengths: Sequence[int], batch_size: int, most_tokens: int) -> list[list[int]]:
    """Indices of the rows of each batch, longest rows first, so that a lack of memory shows at the start.
    A batch has at most `batch_size` rows and `most_tokens` tokens with its padding, or a single row."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fits = batches and len(batches[-1]) < batch_size
        if fits and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= most_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def next_token_logs(model: PreTrainedModel, hidden: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Log-probabilities of the next token after each position of `hidden` [..., positions, hidden_size], the last
    hidden states: (which positions, float32 [..., these, vocabulary]), piece by piece."""
    at_once = max(1, PIECE_BYTES // (4 * model.config.vocab_size * max(1, hidden.shape[:-2].numel())))
    head = model.get_output_embeddings()
    for at in range(0, hidden.shape[-2], at_once):
        here = slice(at, at + at_once)
        yield here, head(hidden[..., here, :]).float().log_softmax(-1)


def token_logs(
    model: PreTrainedModel, hidden: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probability of each token of `targets` [n], predicted from `hidden` [n, hidden_size], float32 [n], and
    whether it is the likeliest one, bool [n]."""
    values = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    likeliest = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
    for here, logs in next_token_logs(model, hidden):
        wanted = targets[here].to(logs.device)
        values[here] = logs.gather(-1, wanted[:, None])[:, 0].to(values.device)
        likeliest[here] = (logs.argmax(-1) == wanted).to(values.device)
        del logs  # before the next piece is made
    return values, likeliest
