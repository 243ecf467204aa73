"""Log-probabilities of given completions, plain or steered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.bound_memory import batches_of, token_logs, tokens_a_batch
from ..foundation.strengths import strengths, ungated
from ..foundation.tokenize import completion_ids, prompt_ids


@dataclass(frozen=True)
class Given:
    """A completion to be scored after a prompt, at a strength."""

    prompt: str
    completion: str
    alpha: float = 0.0


@dataclass(frozen=True)
class Scored:
    """log_probability: the sum over the completion's tokens. likeliest: whether greedy decoding would take each of
    them."""

    log_probability: float
    likeliest: bool


def tokens_of(
    model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Given], where: str = ""
) -> list[tuple[list[int], list[int]]]:
    """The tokens of each prompt and completion. Raises `ValueError`, which begins with `where` and counts them, if
    some are longer than the model reads."""
    tokens = [(prompt_ids(tokenizer, row.prompt), completion_ids(tokenizer, row.completion)) for row in rows]
    longest = model.config.max_position_embeddings
    over = sum(len(prompt) + len(completion) > longest for prompt, completion in tokens)
    if over:
        raise ValueError(f"{where}{over} of {len(rows)} texts are longer than the model's {longest} tokens")
    return tokens


def log_probabilities(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Given],
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[float]:
    """The sum of the log-probabilities of each completion's tokens. The shift acts where it does in generation: under
    scope "generated" from the prompt's last token on.

    Raises:
        ValueError: if a text is longer than the model reads; the message counts them.
    """
    tokens = tokens_of(model, tokenizer, rows)
    starts = [len(prompt) - 1 for prompt, _ in tokens] if model.iti_scope == "generated" else None
    scored = score_tokens(model, tokens, [row.alpha for row in rows], starts, batch_size, progress)
    return [one.log_probability for one in scored]


@torch.no_grad()
def score_tokens(
    model: ITILlamaForCausalLM,
    tokens: Sequence[tuple[Sequence[int], Sequence[int]]],
    alphas: Sequence[float],
    starts: Sequence[int] | None = None,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda rows: None,
    strengths_of: Callable[[Sequence[float]], torch.Tensor | dict[str, torch.Tensor]] | None = None,
) -> list[Scored]:
    """Score each completion after its prompt, both as token ids, at its alpha. starts: the first shifted position of
    each row, whatever the model's scope; None shifts all. strengths_of: makes `iti_alpha` of a call from its rows'
    alphas; by default that of the default directions."""
    device, scores = model.get_input_embeddings().weight.device, [Scored(0.0, True)] * len(tokens)
    lengths = [sum(map(len, row)) for row in tokens]
    for batch in batches_of(lengths, batch_size, tokens_a_batch(model)):
        length = lengths[batch[0]]
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        mask, scored = torch.zeros_like(ids), torch.zeros(len(batch), length, dtype=torch.bool)
        for row, index in enumerate(batch):
            prompt, completion = tokens[index]
            ids[row, : lengths[index]] = torch.tensor([*prompt, *completion])
            mask[row, : lengths[index]] = 1
            scored[row, len(prompt) : lengths[index]] = True
        call = {"input_ids": ids[:, :-1].to(device), "attention_mask": mask[:, :-1].to(device), "use_cache": False}
        call["iti_alpha"] = (strengths_of or partial(strengths, model))([alphas[index] for index in batch])
        call |= ungated(model)
        if starts is not None:
            call["iti_start"] = torch.tensor([starts[index] for index in batch], device=device)
        hidden = model.model(**call).last_hidden_state
        row, column = scored[:, 1:].nonzero(as_tuple=True)
        values, likeliest = token_logs(
            model, hidden[row.to(hidden.device), column.to(hidden.device)], ids[row, column + 1]
        )
        totals = torch.zeros(len(batch)).index_add(0, row, values.cpu())
        unlikely = torch.zeros(len(batch)).index_add(0, row, (~likeliest).float().cpu())
        for index, value, missed in zip(batch, totals.tolist(), unlikely.tolist(), strict=True):
            scores[index] = Scored(value, not missed)
        progress(len(batch))
    return scores
