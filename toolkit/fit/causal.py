"""Heads ranked by what they do: the effect of each head's own shift on which completion the model prefers.

The objective is the mean log-probability of the completions of label 1, given their bare prompts, minus that of label
0, in nats a completion. Three steps, each on fitting rows alone:

1. All heads at once: the derivative of each row's log-probability by each head's alpha, from one backward pass
   (attribution patching, Nanda 2023: gradient at the head's output times sigma * theta). The objective's derivative is
   the difference of its means over the labels; its cost is the root of the mean square, the Fisher information of that
   alpha, which is what a small alpha adds to the divergence (KL is alpha^2 / 2 times it). A head's score is their
   quotient: nats of objective for each root of a nat of divergence.
2. The best 2K heads once more, by forward passes of the shifted model, at a strength of small divergence: this gives
   the exact change of objective and divergence. The smaller of the estimate and the exact quotient counts, because far
   from 0 a head that only breaks the text has a large quotient. A head that moves nothing scores 0.
3. The K best of these.

Others rank heads by cause too: Goal-conditioned mediation (arXiv 2602.16080), DEAL (arXiv 2506.08359).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.labelled_set import Example
from ..foundation.bound_memory import batches_of, next_token_logs, tokens_a_batch
from ..foundation.tokenize import completion_ids, prompt_ids
from .fitted_heads import Effects, Fit
from .shifted_passes import BareRow, Batch, collate, frozen, hidden_states, shifted


DIVERGENCE = 0.05
"""The estimated divergence, in nats a completion, at which a head is checked: small enough to be near the derivative,
large enough to be above rounding."""

MOST_SIGMAS = 8.0
"""The largest strength at which a head is checked, however little it does there."""


def bare_rows(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[BareRow]:
    """The completions after their bare prompts: `meta["bare"]` if an example has it (then its prompt gives the label
    away), else its prompt."""
    rows = []
    for example in examples:
        prompt = prompt_ids(tokenizer, example.meta.get("bare", example.prompt))
        rows.append(BareRow(prompt + completion_ids(tokenizer, example.completion), len(prompt), example.label))
    return rows


def _slopes_by_hidden(model: PreTrainedModel, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The derivative of the targets' summed log-probability by the hidden states [tokens, hidden_size] that predict
    them. It is taken piece by piece, so that the logits of all tokens are never in memory at once."""
    leaf = hidden.detach().requires_grad_()
    for here, logs in next_token_logs(model, leaf):
        logs.gather(1, targets[here].to(logs.device)[:, None]).sum().backward()
    return leaf.grad


def _of_rows(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Sums of `values` [tokens] over each row, [batch]."""
    return torch.zeros(len(batch.ids), device=values.device).index_add(
        0, batch.predicts[:, 0].to(values.device), values
    )


def derivatives(
    model: PreTrainedModel,
    rows: Sequence[BareRow],
    offsets: torch.Tensor,
    scope: str,
    pad: int,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda rows: None,
) -> np.ndarray:
    """The derivative of each row's log-probability, in nats, by the alpha of each head, at alpha 0: float64 [rows,
    layers * heads]. `offsets`: sigma * theta, float32 [layers, heads, head_dim]."""
    found = np.empty((len(rows), offsets.shape[0] * offsets.shape[1]))
    with frozen(model):
        for chosen in batches_of([len(row.ids) for row in rows], batch_size, tokens_a_batch(model, kept="graph")):
            batch, leaves = collate([rows[i] for i in chosen], pad, scope), {}

            def alphas(layer: int, x: torch.Tensor, leaves=leaves, batch=batch) -> torch.Tensor:
                leaves[layer] = torch.zeros(len(batch.ids), offsets.shape[1], device=x.device, requires_grad=True)
                return leaves[layer]

            with torch.enable_grad(), shifted(model, offsets, alphas, batch.shifted):
                hidden = hidden_states(model, batch)
                upstream = _slopes_by_hidden(model, hidden, batch.targets)
                slopes = torch.autograd.grad(hidden, [leaves[layer] for layer in range(len(offsets))], upstream)
            found[chosen] = torch.stack([slope.cpu() for slope in slopes], 1).flatten(1).double().numpy()
            progress(len(chosen))
    return found


def _signs(labels: np.ndarray) -> np.ndarray:
    """Factors [rows] that turn a mean over rows into the mean over label 1 minus the mean over label 0."""
    return np.where(labels == 1, len(labels) / (labels == 1).sum(), -len(labels) / (labels == 0).sum())


def quotient(gain: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Gain for each root of divergence; 0 where a head moves nothing."""
    return np.where(information > 1e-12, gain / np.sqrt(np.maximum(information, 1e-12)), 0.0)


def first_order(slopes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores [heads] by derivatives [rows, heads]: see step 1."""
    return quotient((_signs(labels)[:, None] * slopes).mean(0), (slopes**2).mean(0) / 2)


@torch.no_grad()
def measure_heads(
    model: PreTrainedModel,
    rows: Sequence[BareRow],
    offsets: torch.Tensor,
    heads: Sequence[int],
    alphas: Sequence[float],
    scope: str,
    pad: int,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[np.ndarray, np.ndarray]:
    """How much each head's shift at its alpha changes the objective, and the divergence that it causes (KL of the
    shifted model from the plain one, over the completion), in nats a completion: [heads] each."""
    per_layer = offsets.shape[1]
    gain, divergence = (np.empty((len(rows), len(heads))) for _ in range(2))
    for chosen in batches_of([len(row.ids) for row in rows], batch_size, tokens_a_batch(model)):
        batch = collate([rows[i] for i in chosen], pad, scope)
        plain = hidden_states(model, batch)
        for column, (head, alpha) in enumerate(zip(heads, alphas, strict=True)):
            strength = torch.zeros(1, per_layer)
            strength[0, head % per_layer] = alpha

            def of_layer(layer: int, x: torch.Tensor, head=head, strength=strength) -> torch.Tensor | None:
                return strength.to(x.device) if layer == head // per_layer else None

            with shifted(model, offsets, of_layer, batch.shifted):
                moved_states = hidden_states(model, batch)
            change, moved = torch.empty(2, len(batch.targets))
            for here, (before, after) in next_token_logs(model, torch.stack([plain, moved_states])):
                targets = batch.targets[here].to(before.device)[:, None]
                change[here] = (after - before).gather(1, targets)[:, 0].cpu()
                moved[here] = (before.exp() * (before - after)).sum(-1).cpu()
            gain[chosen, column] = _of_rows(change, batch)
            divergence[chosen, column] = _of_rows(moved, batch)
            progress(len(chosen))
    labels = np.array([row.label for row in rows])
    return (_signs(labels)[:, None] * gain).mean(0), divergence.mean(0)


def causal_effects(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    found: Fit,
    scope: str,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda rows: None,
) -> Effects:
    """Steps 1 and 2 for the fitting rows of a fit; see the module's text. The exact check reads so many rows, at least
    eight, that it costs about one pass over all rows. With few rows it takes fewer than 2K heads, never fewer than K.

    Raises:
        ValueError: if a text is longer than the model reads.
    """
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    rows = bare_rows([examples[i] for i in found.fitting], tokenizer)
    longest = model.config.max_position_embeddings
    over = [row for row in rows if len(row.ids) > longest]
    if over:
        raise ValueError(
            f"{len(over)} of {len(rows)} fitting texts are longer, with the whole completion, than the model's "
            f"{longest} tokens, and heads are ranked by whole completions: shorten them, or use --rank probe"
        )
    pad = 0  # never read
    offsets = (found.sigma[:, None] * found.directions).float().reshape(layers, heads, -1)
    labels = np.array([row.label for row in rows])
    slopes = derivatives(model, rows, offsets, scope, pad, batch_size, progress)
    scores = first_order(slopes, labels)
    order = _best_first(scores, found)
    checked = order[: max(found.top_k, min(2 * found.top_k, len(rows) // 8 - 1))]
    some = _some_pairs(rows, max(8, len(rows) // (len(checked) + 1)))
    alphas = np.minimum(np.sqrt(DIVERGENCE / np.maximum((slopes[:, checked] ** 2).mean(0) / 2, 1e-9)), MOST_SIGMAS)
    gain, divergence = measure_heads(model, some, offsets, checked.tolist(), alphas.tolist(), scope, pad, batch_size)
    exact = np.minimum(quotient(gain, np.where(divergence > 1e-9, divergence, 0)), scores[checked])
    return Effects(scores, checked, exact, gain, divergence, alphas)


def _some_pairs(rows: Sequence[BareRow], n: int) -> list[BareRow]:
    """About `n` of the rows, the same number for each label, spread evenly over the data."""
    parts = [[row for row in rows if row.label == label] for label in (0, 1)]
    each = min(max(1, n // 2), *map(len, parts))
    return [part[i * len(part) // each] for part in parts for i in range(each)]


def _best_first(scores: np.ndarray, found: Fit) -> np.ndarray:
    """Heads by their scores; where scores are equal, the larger separation comes first."""
    return np.lexsort((-found.separation, -scores.round(12)))


def by_cause(found: Fit, effects: Effects) -> Fit:
    """The fit with its heads ranked by cause; step 3. Heads that gain nothing are left out, so the result may have
    fewer heads than asked for.

    Raises:
        ValueError: if no head that was checked moves the model towards label 1.
    """
    exact = np.full(len(effects.first_order), -np.inf)
    exact[effects.checked] = effects.exact
    if not (exact > 0).any():
        raise ValueError(
            f"none of the {len(effects.checked)} heads checked moves the model towards label 1, so heads cannot be "
            "ranked by cause; expected --rank probe, or another --policy"
        )
    kept = [head for head in _best_first(exact, found) if exact[head] > 0][: found.top_k]
    rest = [head for head in found.ranking if head not in set(kept)]
    return replace(found, ranking=np.array([*kept, *rest]), top_k=len(kept), effects=effects)
