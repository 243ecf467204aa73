"""The results of a fit for machines: `iti_report.json`."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import transformers

from ..data.labelled_set import Example, checksum
from ..foundation.files import write_text
from ..foundation.intervals import Estimate, estimate
from ..foundation.package import __version__
from .fitted_heads import Fit
from .positions import Policy
from .record_activations import Activations


def verdict(fit: Fit) -> str:
    """Whether the data support these directions, in plain words."""
    heads, auc = len(fit.ranking), fit.best_auc
    if fit.supported is None:
        return (
            f"No permutation null of 19 draws or more was computed: whether an AUC of {auc:.3f} is chance is not "
            "known."
        )
    limit = np.quantile(fit.null, 0.95)
    if not fit.supported:
        return (
            f"The data do not support these directions: the best of {heads} heads separates the labels with an AUC of "
            f"{auc:.3f}, and with permuted labels the best reaches {limit:.3f} in one draw of twenty (p = "
            f"{fit.p_value(auc):.2f}). "
            "Steering with them is steering with noise."
        )
    text = (
        f"The best of {heads} heads separates the labels with an AUC of {auc:.3f}, beyond chance: with permuted "
        "labels the "
        f"best reaches {limit:.3f} in one draw of twenty (p = {fit.p_value(auc):.3f})."
    )
    if auc <= fit.text_auc:
        text += (
            f" But the text alone gives the label away as well (AUC {fit.text_auc:.3f} by word counts and length): "
            "that the "
            "heads know more than the words is not shown."
        )
    return text


def top_test_accuracy(fit: Fit, examples: Sequence[Example]) -> Estimate:
    """Accuracy of the best-ranked head's probe on the test rows, with its interval."""
    y = np.array([examples[i].label for i in fit.test])
    right = (fit.test_scores[:, fit.ranking[0]] > 0) == (y == 1)
    return estimate(right, [examples[i].group for i in fit.test])


def report(
    fit: Fit,
    examples: Sequence[Example],
    policy: Policy,
    activations: Activations,
    base: str,
    extra: dict | None = None,
) -> dict:
    """Every number of a fit, as JSON types. `extra` is added at the top level."""
    layers, heads, head_dim = activations.heads.shape[1:]
    labels = np.array([example.label for example in examples])
    groups = np.array([example.group for example in examples])
    best_layer = int(fit.layer_auc.argmax())
    chosen = fit.ranking[: fit.top_k]

    def rows(part: np.ndarray) -> dict:
        return {
            "rows": len(part),
            "groups": len(np.unique(groups[part])),
            "label 1": int(labels[part].sum()),
            "label 0": int((1 - labels[part]).sum()),
        }

    return {
        "verdict": verdict(fit),
        "supported": fit.supported,
        "base_model": base,
        "geometry": {"num_hidden_layers": layers, "num_attention_heads": heads, "head_dim": head_dim},
        "policy": str(policy),
        "settings": asdict(fit.settings),
        "data": {"sha256": checksum(examples), "fitting": rows(fit.fitting), "test": rows(fit.test)},
        "top_k": fit.top_k,
        "top_k_auc": {str(k): value for k, value in fit.top_k_auc.items()},
        "heads": [
            {
                "layer": int(index) // heads,
                "head": int(index) % heads,
                "auc": float(fit.out_of_fold_auc[index]),
                "accuracy": float(fit.out_of_fold_accuracy[index]),
                "separation": float(fit.separation[index]),
                "agreement": None if fit.agreement is None else float(fit.agreement[index]),
                "test_auc": float(fit.test_auc[index]),
                "test_accuracy": float(fit.test_accuracy[index]),
                "sigma": float(fit.sigma[index]),
                **_effect(fit, index),
            }
            for index in chosen
        ],
        "all_heads_auc": fit.out_of_fold_auc.reshape(layers, heads).tolist(),
        "top_head_test_accuracy": asdict(top_test_accuracy(fit, examples)),
        "null": {
            "what": "largest out-of-fold AUC over all heads, labels permuted within groups",
            "draws": fit.null.tolist(),
            "quantile_95": float(np.quantile(fit.null, 0.95)) if len(fit.null) else None,
            "p_top_head": fit.p_value(fit.best_auc) if len(fit.null) else None,
            "p_last_head": fit.p_value(fit.out_of_fold_auc[chosen[-1]]) if len(fit.null) else None,
        },
        "stability": {"what": "mean Jaccard overlap of the top K between folds", "value": fit.stability},
        "layers": {
            "what": "probes on the residual stream after each layer",
            "auc": fit.layer_auc.tolist(),
            "accuracy": fit.layer_accuracy.tolist(),
            "test_accuracy": fit.layer_test_accuracy.tolist(),
            "best": best_layer,
        },
        "text_baseline_auc": fit.text_auc,
        "sigma": "standard deviation (ddof 0) of the projections of all fitting rows",
        "versions": versions(),
        **(extra or {}),
    }


def versions() -> dict[str, str]:
    """The versions that a report names."""
    return {
        "iti-llama": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _effect(fit: Fit, index: int) -> dict:
    """What one head does, if the heads were ranked by that: see `causal`."""
    if fit.effects is None:
        return {}
    at = int(np.flatnonzero(fit.effects.checked == index)[0])
    return {
        "effect_first_order": float(fit.effects.first_order[index]),
        "effect": float(fit.effects.exact[at]),
        "effect_gain_nats": float(fit.effects.gain[at]),
        "effect_divergence_nats": float(fit.effects.divergence[at]),
    }


def write_report(found: dict, path: Path) -> Path:
    return write_text(path, json.dumps(found, indent=1) + "\n")
