"""When to steer: a gate, fitted on a labelled set of prompts to act on (label 1) and prompts to leave alone (label 0).

What to do and when to do it are two questions, each with its own labels. The gate reads the plain model's heads at the
prompt's last token, as `ITIGate` describes: an L2-regularised logistic regression on the heads whose probes separate
the prompts best, ranked out of fold. Its threshold is the value that a given share of the prompts to leave alone would
pass, out of fold. The test groups are read once, at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from iti_llama.iti_directions import ITIGate

from ..data.labelled_set import Example, checksum
from ..data.splits import fold_ids, split_groups
from ..data.text_baseline import text_baseline
from ..foundation.intervals import estimate
from .positions import Policy
from .probes import auc, fit_probes
from .rank_heads import rank_heads
from .record_activations import capture
from .settings import FALSE_FIRES, FitSettings


HEADS = 8
"""How many heads a gate reads."""

C = 0.01
"""Inverse L2 strength of the joint regression, on features of unit variance; there are a few hundred features."""


def fit_gate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    false_fires: float = FALSE_FIRES,
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[ITIGate, dict]:
    """A gate, and the results of its fit, as JSON types. `false_fires`: the share of prompts of label 0 that may pass.
    Completions are not read.

    Raises:
        ValueError: if `false_fires` is not between 0 and 1, or a class is missing on one side of the split.
    """
    if not 0 < false_fires < 1:
        raise ValueError(f"the share of false fires is {false_fires:g}; expected one between 0 and 1")
    settings = FitSettings(seed=seed)
    heads = model.config.num_attention_heads
    x = capture(model, tokenizer, examples, Policy("fraction", 0.0), batch_size, progress=progress).heads.flatten(1, 2)
    y, groups = (np.array([getattr(example, name) for example in examples]) for name in ("label", "group"))
    fitting, test = split_groups(examples, settings.test_share, seed)
    for name, rows in (("fitting", fitting), ("test", test)):
        if len(np.unique(y[rows])) < 2:
            raise ValueError(f"the gate's {name} prompts ({len(rows)} of {len(y)}) are of one label; expected both")
    folds = fold_ids(y[fitting], groups[fitting], settings.folds, seed)

    def best_heads(rows: np.ndarray, folds: np.ndarray) -> torch.Tensor:
        ranking, *_ = rank_heads(x[rows], y[rows], folds, settings)
        return torch.from_numpy(np.sort(ranking[:HEADS]))

    held_out = np.empty(len(fitting))
    for fold in np.unique(folds):  # heads that were chosen on what the threshold is set on would seem too good
        inside, outside = fitting[folds != fold], fitting[folds == fold]
        own = best_heads(inside, fold_ids(y[inside], groups[inside], settings.folds - 1, seed))
        weights, bias = _joint(x[inside][:, own].flatten(1), y[inside])
        held_out[folds == fold] = (x[outside][:, own].flatten(1).double() @ weights + bias).numpy()
    chosen = best_heads(fitting, folds)
    read = x[:, chosen].flatten(1)
    threshold = float(np.quantile(held_out[y[fitting] == 0], 1 - false_fires, method="higher"))
    threshold = float(np.nextafter(np.float32(threshold), np.float32(np.inf)))  # so that this prompt does not pass
    weights, bias = _joint(read[fitting], y[fitting])
    gate = ITIGate(
        torch.stack([chosen // heads, chosen % heads], 1),
        weights.reshape(len(chosen), -1).float(),
        torch.tensor([bias], dtype=torch.float32),
        torch.tensor([threshold, threshold]),
    )
    scores = (read[test].double() @ weights + bias).numpy()
    fires, names = scores >= float(gate.threshold[0]), groups[test]
    texts = [example.prompt for example in examples]
    words = text_baseline([texts[i] for i in (*fitting, *test)], y[np.concatenate([fitting, test])],
                          np.array([0] * len(fitting) + [1] * len(test)))[len(fitting) :]  # fmt: skip
    rates = {label: asdict(estimate(fires[y[test] == label], names[y[test] == label])) for label in (1, 0)}
    return gate, {
        "data_sha256": checksum(examples),
        "heads": gate.heads.tolist(),
        "fitting": len(fitting),
        "test": len(test),
        "false_fires_allowed": false_fires,
        "auc_out_of_fold": float(auc(held_out[:, None], y[fitting])[0]),
        "auc_test": float(auc(scores[:, None], y[test])[0]),
        "auc_test_of_words": float(auc(words[:, None], y[test])[0]),
        "fires_on_label_1": rates[1],
        "fires_on_label_0": rates[0],
    }


def _joint(x: torch.Tensor, y: np.ndarray) -> tuple[torch.Tensor, float]:
    """Weights [features] and bias, float64, for raw features, of a logistic regression on standardised ones."""
    mean, spread = x.double().mean(0), x.double().std(0, correction=0).clamp_min(1e-6)
    probes = fit_probes(((x.double() - mean) / spread)[:, None], torch.from_numpy(y), C)
    weights = probes.coef[0] / spread
    return weights, float(probes.intercept[0] - weights @ mean)
