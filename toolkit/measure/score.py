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
    lengths, longest = [sum(map(len, text)) for text in texts], {}
    for key, length in zip(keys, lengths, strict=True):
        longest[key] = max(longest.get(key, 0), length)
    for i, key in enumerate(keys):  # completions share a batch where their prompt is long enough to be worth it
        lengths[i] = longest[key] if 2 * len(key[0]) >= longest[key] else lengths[i]

    def read(rows: list[int], parts: list[Sequence[int]], before: torch.Tensor, cache: Cache | None):
        """A pass over the parts of some rows, padded on the right, after what the cache holds of them, which has the
        mask `before`. Returns the output and the whole mask."""
        ids, mask = pad_right(parts)
        mask = torch.cat([before, mask], 1)
        positions = (mask.cumsum(1) - 1)[:, before.shape[1] :]  # padding repeats the last one, and adds no length
        output = model.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            **{CACHE: cache},
            use_cache=True,
            iti_alpha=(strengths_of or partial(strengths, model))([alphas[i] for i in rows]),
            iti_start=starts and torch.tensor([starts[i] for i in rows], device=device),
            **ungated(model),
        )
        return output, mask

    # Prompts and completions are padded apart, together to at most twice the longest row.
    for batch in batches_of(lengths, batch_size, tokens_a_batch(model, "cache") // 2):
        firsts = {keys[i]: i for i in batch}
        reads = torch.tensor([list(firsts).index(keys[i]) for i in batch])
        prompts, completions = [texts[i][0] for i in firsts.values()], [texts[i][1] for i in batch]
        output, mask = read(list(firsts.values()), prompts, torch.empty(len(prompts), 0, dtype=torch.long), None)
        states = [output.last_hidden_state[reads, mask.sum(1)[reads] - 1, None]]  # predict the first tokens
        if max(map(len, completions)) > 1:
            cache = getattr(output, CACHE)
            if len(prompts) < len(batch):
                cache.batch_select_indices(reads)
            output, _ = read(batch, [completion[:-1] for completion in completions], mask[reads], cache)
            states.append(output.last_hidden_state)
        targets, scored = pad_right(completions)
        row, column = scored.nonzero(as_tuple=True)
        values, likeliest = token_logs(model, torch.cat(states, 1)[row, column], targets[row, column])
        del output, states  # before the next batch is read
        totals = torch.zeros(len(batch)).index_add(0, row, values.cpu())
        unlikely = torch.zeros(len(batch)).index_add(0, row, (~likeliest).float().cpu())
        for index, value, missed in zip(batch, totals.tolist(), unlikely.tolist(), strict=True):
            scores[index] = Scored(value, not missed)
        progress(len(batch))
    return scores


def pad_right(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, [rows, longest] each, with 0 where the mask is 0."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)
    return ids, (torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])).long()
