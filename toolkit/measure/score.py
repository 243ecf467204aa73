"""Log-probabilities of given completions, plain or steered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import Cache, PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM
from iti_llama.modeling_iti_llama import CACHE

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
    """Score each completion after its prompt, both as token ids, at its alpha. A prompt that several completions share
    is read once for a batch of them. starts: the first shifted position of each row, whatever the model's scope; None
    shifts all. strengths_of: makes `iti_alpha` of a call from its rows' alphas; by default that of the default
    directions."""
    device, scores = model.get_input_embeddings().weight.device, [Scored(0.0, True)] * len(tokens)
    texts = [(prompt, completion) if prompt else (completion[:1], completion[1:]) for prompt, completion in tokens]
    keys = [(tuple(prompt), alphas[i], starts and starts[i]) for i, (prompt, _) in enumerate(texts)]
    longest: dict[tuple, int] = {}
    for key, row in zip(keys, texts, strict=True):
        longest[key] = max(longest.get(key, 0), sum(map(len, row)))
    lengths = [longest[key] for key in keys]  # so that the completions of a prompt share a batch

    def read(rows: list[int], parts: list[Sequence[int]], **kwargs) -> tuple[torch.Tensor, torch.Tensor, Cache]:
        """A pass over the parts of some rows, padded on the right: (last hidden states, mask, cache)."""
        ids, mask = pad_right(parts)
        before = kwargs.pop("before", mask[:, :0])
        kwargs["position_ids"] = before.sum(1, keepdim=True) + torch.arange(ids.shape[1])
        kwargs["iti_start"] = starts and torch.tensor([starts[i] for i in rows])
        call = {"input_ids": ids, "attention_mask": torch.cat([before, mask], 1)} | kwargs
        call = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in call.items()}
        call["iti_alpha"] = (strengths_of or partial(strengths, model))([alphas[i] for i in rows])
        output = model.model(**call, use_cache=True, **ungated(model))
        return output.last_hidden_state, mask, getattr(output, CACHE)

    for batch in batches_of(lengths, batch_size, tokens_a_batch(model, "cache")):
        prompts: dict[tuple, int] = {}
        reads = torch.tensor([prompts.setdefault(keys[i], len(prompts)) for i in batch])
        firsts = [batch[reads.tolist().index(place)] for place in prompts.values()]
        hidden, mask, cache = read(firsts, [texts[i][0] for i in firsts])
        states = [hidden[reads, mask.sum(1)[reads] - 1, None]]  # each prompt's last token predicts the first
        completions = [texts[i][1] for i in batch]
        if max(map(len, completions)) > 1:
            cache.batch_select_indices(reads)
            fed = [completion[:-1] for completion in completions]
            states.append(read(batch, fed, **{CACHE: cache}, before=mask[reads])[0])
        targets, scored = pad_right(completions)
        row, column = scored.nonzero(as_tuple=True)
        values, likeliest = token_logs(model, torch.cat(states, 1)[row, column], targets[row, column])
        totals = torch.zeros(len(batch)).index_add(0, row, values.cpu())
        unlikely = torch.zeros(len(batch)).index_add(0, row, (~likeliest).float().cpu())
        for index, value, missed in zip(batch, totals.tolist(), unlikely.tolist(), strict=True):
            scores[index] = Scored(value, not missed)
        progress(len(batch))
    return scores


def pad_right(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, [rows, longest] each, with 0 where the mask is 0."""
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], dtype=torch.long)
    return ids.view(len(rows), length), mask.view(len(rows), length)
