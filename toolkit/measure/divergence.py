"""Side effects of steering on held-out texts: divergence from the plain model, and perplexity."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.intervals import Estimate, estimate
from ..foundation.strengths import strengths, ungated
from ..foundation.tokenize import completion_ids, prompt_ids


@dataclass(frozen=True)
class Text:
    """A held-out text: what is given, and what is scored after it. After no prompt, that is all but the first token,
    which is BOS where the tokenizer or the text has one. Texts of one group are not independent."""

    prompt: str
    completion: str
    group: str


@dataclass(frozen=True)
class Divergence:
    """Over the completions' tokens. kl: KL(plain || steered) in nats, mean by text with its interval; kl_95: its 95th
    percentile over tokens; perplexity_*: exp of the mean negative log-likelihood; nll_change: its paired difference,
    in nats a token, mean by text."""

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
    prompt's last token on, whatever a gate says. All alphas of a text, alpha 0 among them, are rows of one forward
    pass. A text of one token after no prompt has nothing to score, and is left out.

    Raises:
        ValueError: if no text is left.
    """
    tried = [0.0, *alphas]
    k = len(tried)
    per_text = max(1, batch_size // k)
    kls: list[list[np.ndarray]] = [[] for _ in alphas]
    nlls: list[list[np.ndarray]] = [[] for _ in range(k)]
    device = model.get_input_embeddings().weight.device
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    tokens = [_ids_and_start(tokenizer, text) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index].prompt) + len(texts[index].completion))
    order = [index for index in order if len(tokens[index][0]) > tokens[index][1]]
    if not order:
        raise ValueError(f"none of {len(texts)} texts has a token to score; expected longer ones")
    progress(len(texts) - len(order))
    for at in range(0, len(order), per_text):
        rows, starts = zip(*(tokens[index] for index in order[at : at + per_text]), strict=True)
        length = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
        many = {"input_ids": ids.repeat_interleave(k, 0), "attention_mask": mask.repeat_interleave(k, 0)}
        if model.iti_scope == "generated":
            many["iti_start"] = torch.tensor(starts, device=device).repeat_interleave(k) - 1
        alpha = strengths(model, tried * len(rows))
        logs = model(**many, iti_alpha=alpha, use_cache=False, **ungated(model)).logits.float().log_softmax(-1)
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            own = logs[i * k : (i + 1) * k, start - 1 : len(row) - 1]  # [k, completion, vocabulary]
            target = torch.tensor(row[start:], device=device)
            nll = -own.gather(-1, target.expand(k, -1)[..., None])[..., 0]
            kl = (own[0].exp() * (own[0] - own[1:])).sum(-1)
            for j in range(k):
                nlls[j].append(nll[j].cpu().numpy())
            for j in range(k - 1):
                kls[j].append(kl[j].clamp_min(0).cpu().numpy())
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


def _ids_and_start(tokenizer: PreTrainedTokenizerBase, text: Text) -> tuple[list[int], int]:
    """The tokens of a text, and the first that is scored."""
    if not text.prompt:  # so that a BOS that the text has itself is no second one
        return prompt_ids(tokenizer, text.completion), 1
    prompt = prompt_ids(tokenizer, text.prompt)
    return prompt + completion_ids(tokenizer, text.completion), len(prompt)
