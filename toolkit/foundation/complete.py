"""Complete prompts in batches, plain or steered, one strength for each row."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from .bound_memory import batches_of, tokens_a_batch
from .strengths import strengths
from .tokenize import prompt_ids


@torch.no_grad()
def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    alphas: Sequence[float] | None = None,
    max_new_tokens: int = 160,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda rows: None,
    **generate_kwargs,
) -> list[str]:
    """The completion of each prompt, greedy unless `generate_kwargs` say otherwise.

    A row is completed as it would be alone: the rows of a batch may all add the same number of tokens, which is
    `max_new_tokens` or what the model's positions leave. Prompts of similar length share a batch, padded on the left;
    a batch holds at most `batch_size` rows, fewer where they are long. `alphas` steers each prompt at its own
    strength; None leaves the model as it is.

    Raises:
        ValueError: if a prompt fills the model's positions, or has no tokens; the message counts them. Nothing is cut
            in silence.
    """
    completions = [""] * len(prompts)
    device = model.get_input_embeddings().weight.device
    longest = model.config.max_position_embeddings
    tokens_of = {prompt: prompt_ids(tokenizer, prompt) for prompt in set(prompts)}
    lengths = [len(tokens_of[prompt]) for prompt in prompts]
    over, empty = sum(length >= longest for length in lengths), lengths.count(0)
    if over:
        raise ValueError(f"{over} of {len(prompts)} prompts are longer than the model's {longest} tokens")
    if empty:
        raise ValueError(f"{empty} of {len(prompts)} prompts are empty, and the tokenizer starts no text by itself")
    rows_of_room: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        rows_of_room.setdefault(min(max_new_tokens, longest - length), []).append(index)
    kwargs = {"do_sample": False} | generate_kwargs
    ends = end_ids(model, kwargs.get("eos_token_id"))
    kwargs.setdefault("pad_token_id", ends[0] if ends else 0)  # never read: a valid id, whatever the tokenizer has
    most_tokens = tokens_a_batch(model, kept="cache")
    for room, rows in rows_of_room.items():
        for places in batches_of([lengths[index] + room for index in rows], batch_size, most_tokens):
            batch = [rows[place] for place in places]
            ids, mask = pad_left([tokens_of[prompts[index]] for index in batch], kwargs["pad_token_id"])
            if alphas is not None:
                kwargs["iti_alpha"] = strengths(model, [alphas[index] for index in batch])
            output = model.generate(ids.to(device), attention_mask=mask.to(device), max_new_tokens=room, **kwargs)
            for index, tokens in zip(batch, output[:, ids.shape[1] :].tolist(), strict=True):
                end = next((at + 1 for at, token in enumerate(tokens) if token in ends), len(tokens))
                completions[index] = tokenizer.decode(tokens[:end], skip_special_tokens=True)
            progress(len(batch))
    return completions


@contextmanager
def greedy(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block `generate` is greedy, whatever the model's generation config says of beams and penalties, which
    other engines do not read. Its tokens that end an answer stay."""
    kept = model.generation_config
    tokens = {name: getattr(kept, name) for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
    model.generation_config = GenerationConfig(**tokens)
    try:
        yield
    finally:
        model.generation_config = kept


def end_ids(model: PreTrainedModel, eos_token_id: int | Sequence[int] | None = None) -> list[int]:
    """The tokens of the model's vocabulary that end what it generates: those given, else its generation config's."""
    found = model.generation_config.eos_token_id if eos_token_id is None else eos_token_id
    found = found if isinstance(found, (list, tuple)) else [found]
    return [token for token in found if token is not None and 0 <= token < model.config.vocab_size]


def pad_left(rows: Sequence[Sequence[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, [rows, longest] each; `fill` stands where the mask is 0."""
    length = max(map(len, rows))
    ids = torch.tensor([[fill] * (length - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def function_body(completion: str) -> str:
    """A completion up to the end of the function that the prompt began: the first line that is not indented."""
    lines = completion.split("\n")
    for number, line in enumerate(lines[1:], 1):
        if line.strip() and not line.startswith((" ", "\t")):
            return "\n".join(lines[:number]).rstrip() + "\n"
    return completion.rstrip() + "\n"
