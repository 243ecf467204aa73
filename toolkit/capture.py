"""Record the activations of every head, at the input of the output projection, for labelled texts.

One forward pass per batch over right-padded rows of similar length; only what the position policy keeps leaves the
device. A row's activations do not depend on the batch it is in: padding is on the right and attention is causal.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .examples import Example


@dataclass(frozen=True)
class Policy:
    """Where in a text activations are taken.

    kind: "last" (last token), "completion-mean" (mean over the completion's tokens) or "fraction" (last token of the
    first `fraction` of the completion, cut back to the end of a line; 0 is the last token of the prompt).
    """

    kind: str = "last"
    fraction: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """"last", "completion-mean" or "fraction F" with F from 0 to 1."""
        if text in ("last", "completion-mean"):
            return cls(text)
        match = re.fullmatch(r"fraction[ =:]([0-9.]+)", text)
        if match and 0 <= float(match[1]) <= 1:
            return cls("fraction", float(match[1]))
        raise ValueError(f"policy is {text!r}; expected last, completion-mean, or fraction F with F from 0 to 1")

    def __str__(self) -> str:
        return f"fraction {self.fraction:g}" if self.kind == "fraction" else self.kind

    def cut(self, completion: str) -> str:
        """The part of a completion that is read."""
        if self.kind != "fraction" or self.fraction == 1:
            return completion
        end = completion.rfind("\n", 0, round(len(completion) * self.fraction) + 1)
        return completion[: end + 1]


@dataclass(frozen=True)
class Row:
    """A tokenized text and the span of tokens whose activations are averaged."""

    ids: list[int]
    first: int


def tokenize(example: Example, policy: Policy, tokenizer: PreTrainedTokenizerBase) -> Row:
    """Prompt and completion are tokenized apart, as in generation. Special tokens come from the tokenizer alone."""
    prompt = tokenizer(example.prompt)["input_ids"]
    completion = tokenizer(policy.cut(example.completion), add_special_tokens=False)["input_ids"]
    ids = prompt + completion
    return Row(ids, len(prompt) if policy.kind == "completion-mean" and completion else len(ids) - 1)


@contextmanager
def recording(model: PreTrainedModel, keep: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Inside the block, a forward pass fills the list with `keep(input of o_proj [batch, seq, heads * head_dim])` of each
    layer."""
    attentions = [layer.self_attn for layer in model.base_model.layers]
    kept: list[torch.Tensor] = [torch.empty(0)] * len(attentions)

    def hook(index: int):
        def record(module, arguments):
            kept[index] = keep(arguments[0])

        return record

    handles = [a.o_proj.register_forward_pre_hook(hook(index)) for index, a in enumerate(attentions)]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def capture(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    policy: Policy,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda rows: None,
) -> torch.Tensor:
    """Activations float32 [examples, layers, heads, head_dim] on CPU.

    Raises:
        ValueError: if a text is longer than the model reads; the message counts them. Nothing is cut in silence.
    """
    config = model.config
    rows = [tokenize(example, policy, tokenizer) for example in examples]
    longest = config.max_position_embeddings
    over = [index for index, row in enumerate(rows) if len(row.ids) > longest]
    if over:
        raise ValueError(
            f"{len(over)} of {len(rows)} texts are longer than the model's {longest} tokens, the first is row {over[0] + 1} "
            f"({len(rows[over[0]].ids)} tokens): shorten or leave them out"
        )
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    result = torch.empty(len(rows), config.num_hidden_layers, heads, head_dim)
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    for at in range(0, len(order), batch_size):
        batch = order[at : at + batch_size]
        length = len(rows[batch[0]].ids)
        ids = torch.tensor([rows[i].ids + [pad] * (length - len(rows[i].ids)) for i in batch])
        mask = torch.tensor([[1] * len(rows[i].ids) + [0] * (length - len(rows[i].ids)) for i in batch])
        weights = mask.float() * (torch.arange(length) >= torch.tensor([[rows[i].first] for i in batch]))
        weights = weights / weights.sum(-1, keepdim=True)

        def keep(activations: torch.Tensor, weights: torch.Tensor = weights) -> torch.Tensor:
            weights = weights.to(activations.device)
            return torch.einsum("bs,bsd->bd", weights, activations.float()).cpu()

        device = model.get_input_embeddings().weight.device
        with recording(model, keep) as kept:
            model.base_model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
        result[batch] = torch.stack(kept, 1).unflatten(-1, (heads, head_dim))
        progress(len(batch))
    return result
