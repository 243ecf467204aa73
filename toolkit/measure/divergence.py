"""Side effects of steering on held-out texts: divergence from the plain model, and perplexity."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.bound_memory import batches_of, next_token_logs, tokens_a_batch
from ..foundation.intervals import Estimate, estimate
from ..foundation.strengths import strengths, ungated
from ..foundation.tokenize import completion_ids, prompt_ids


@dataclass(frozen=True)
class Text:
    """A held-out text: the prompt, and the completion that is scored after it. Without a prompt, all but the first
    token is scored; that token is BOS if the tokenizer or the text has one. Texts of one group are not independent."""

    prompt: str
    completion: str
    group: str


@dataclass(frozen=True)
class Divergence:
    """Divergence over the completions' tokens. kl: KL(plain || steered) in nats, mean by text with its interval;
    kl_95: its 95th percentile over tokens; perplexity_*: exp of the mean negative log-likelihood; nll_change: its
    paired difference, in nats a token, mean by text."""

    alpha: float
    kl: Estimate
    kl_95: float
    perplexity_plain: float
    perplexity_steered: float
    nll_change: Estimate
    tokens: int

    def to_dict(self) -> dict:
        return asdict(self)


@torch.no_grad()
def measure_divergence(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    alphas: Sequence[float],
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda texts: None,
) -> list[Divergence]:
    """One `Divergence` for each alpha. The shift acts where it does in generation: under scope "generated" from the
    prompt's last token on, whatever a gate says. All alphas of a text, with alpha 0, are rows of one batch. A text of
    one token without a prompt has nothing to score, and is left out.

    Raises:
        ValueError: if no text is left.
    """
    tried = [0.0, *alphas]
    k = len(tried)
    per_text = max(1, batch_size // k)
    kls: list[list[np.ndarray]] = [[] for _ in alphas]
    nlls: list[list[np.ndarray]] = [[] for _ in range(k)]
    tokens = [_ids_and_start(tokenizer, text) for text in texts]
    scored = [index for index, (ids, start) in enumerate(tokens) if len(ids) > start]
    if not scored:
        raise ValueError(f"none of {len(texts)} texts has a token to score; expected longer ones")
    progress(len(texts) - len(scored))
    order = []
    most_tokens = tokens_a_batch(model)
    for places in batches_of([len(tokens[i][0]) for i in scored], per_text, most_tokens // k):
        batch = [scored[place] for place in places]
        rows, starts = zip(*(tokens[index] for index in batch), strict=True)
        hidden = _hidden_states(model, rows, starts, tried, max(1, most_tokens // len(rows[0])))
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            own = hidden[i * k : (i + 1) * k, start - 1 : len(row) - 1]  # [k, completion, hidden_size]
            target = torch.tensor(row[start:])
            nll, kl = torch.empty(k, len(target)), torch.empty(k - 1, len(target))
            for here, logs in next_token_logs(model, own):
                expected = target[here].to(logs.device).expand(k, -1)[..., None]
                nll[:, here] = -logs.gather(-1, expected)[..., 0].cpu()
                probabilities = logs[0].exp()
                for j in range(k - 1):  # in place, since each of these is as large as a piece may be
                    kl[j, here] = logs[j + 1].sub_(logs[0]).mul_(probabilities).sum(-1).neg().cpu()
                del logs, probabilities  # before the next piece is made
            for j in range(k):
                nlls[j].append(nll[j].numpy())
            for j in range(k - 1):
                kls[j].append(kl[j].clamp_min(0).numpy())
        order += batch
        progress(len(rows))
    groups = [texts[index].group for index in order]
    plain = np.concatenate(nlls[0])
    results = []
    for j, alpha in enumerate(alphas):
        steered = np.concatenate(nlls[j + 1])
        change = [b.mean() - a.mean() for a, b in zip(nlls[0], nlls[j + 1], strict=True)]
        results.append(
            Divergence(
                alpha=alpha,
                kl=estimate([kl.mean() for kl in kls[j]], groups),
                kl_95=float(np.quantile(np.concatenate(kls[j]), 0.95)),
                perplexity_plain=float(np.exp(plain.mean())),
                perplexity_steered=float(np.exp(steered.mean())),
                nll_change=estimate(change, groups),
                tokens=len(plain),
            )
        )
    return results


def _hidden_states(
    model: ITILlamaForCausalLM,
    rows: Sequence[list[int]],
    starts: Sequence[int],
    alphas: Sequence[float],
    at_once: int,
) -> torch.Tensor:
    """The last hidden states [rows * alphas, longest, hidden_size], with all alphas of a row one after the other. The
    rows are token ids, the longest row first. A forward pass has at most `at_once` of them."""
    device, length = model.get_input_embeddings().weight.device, len(rows[0])
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows for _ in alphas], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows for _ in alphas], device=device)
    first = torch.tensor([start - 1 for start in starts for _ in alphas], device=device)
    many, parts = [*alphas] * len(rows), []
    for at in range(0, len(many), at_once):
        part = slice(at, at + at_once)
        call = {"input_ids": ids[part], "attention_mask": mask[part], "iti_alpha": strengths(model, many[part])}
        if model.iti_scope == "generated":
            call["iti_start"] = first[part]
        parts.append(model.model(**call, use_cache=False, **ungated(model)).last_hidden_state)
    return torch.cat(parts)


def _ids_and_start(tokenizer: PreTrainedTokenizerBase, text: Text) -> tuple[list[int], int]:
    """The tokens of a text, and the index of the first that is scored."""
    if not text.prompt:  # if the text begins with BOS, it must not get a second one
        return prompt_ids(tokenizer, text.completion), 1
    prompt = prompt_ids(tokenizer, text.prompt)
    return prompt + completion_ids(tokenizer, text.completion), len(prompt)
