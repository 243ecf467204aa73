"""What fitting found, for machines (`iti_report.json`), for eyes (figures) and for the model card (a table)."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib
import numpy as np
import torch
import transformers
from matplotlib.figure import Figure

from .capture import Activations, Policy
from .examples import Example, checksum, write_text
from .fit import Fit
from .intervals import Estimate, estimate
from .version import __version__


def verdict(fit: Fit) -> str:
    """In plain words: do the data support these directions?"""
    heads, auc = len(fit.ranking), fit.out_of_fold_auc[fit.ranking[0]]
    if fit.supported is None:
        return f"No permutation null of 19 draws or more was computed: whether an AUC of {auc:.3f} is chance is not known."
    limit = np.quantile(fit.null, 0.95)
    if not fit.supported:
        return (
            f"The data do not support these directions: the best of {heads} heads separates the labels with an AUC of "
            f"{auc:.3f}, and with permuted labels the best reaches {limit:.3f} in one draw of twenty (p = {fit.p_value(0):.2f}). "
            "Steering with them is steering with noise."
        )
    text = (
        f"The best of {heads} heads separates the labels with an AUC of {auc:.3f}, beyond chance: with permuted labels the "
        f"best reaches {limit:.3f} in one draw of twenty (p = {fit.p_value(0):.3f})."
    )
    if auc <= fit.text_auc:
        text += (
            f" But the text alone gives the label away as well (AUC {fit.text_auc:.3f} by word counts and length): that the "
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
                "test_auc": float(fit.test_auc[index]),
                "test_accuracy": float(fit.test_accuracy[index]),
                "sigma": float(fit.sigma[index]),
            }
            for index in chosen
        ],
        "all_heads_auc": fit.out_of_fold_auc.reshape(layers, heads).tolist(),
        "top_head_test_accuracy": asdict(top_test_accuracy(fit, examples)),
        "null": {
            "what": "largest out-of-fold AUC over all heads, labels permuted within groups",
            "draws": fit.null.tolist(),
            "quantile_95": float(np.quantile(fit.null, 0.95)) if len(fit.null) else None,
            "p_top_head": fit.p_value(0) if len(fit.null) else None,
            "p_last_head": fit.p_value(fit.top_k - 1) if len(fit.null) else None,
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
        "versions": {
            "iti-llama": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        **(extra or {}),
    }


def markdown(found: dict) -> str:
    """The table for a model card, from a report."""
    data, best, null = found["data"], found["heads"][0], found["null"]
    accuracy = Estimate(**found["top_head_test_accuracy"])
    layer = found["layers"]["best"]

    def rows(part: dict) -> str:
        return f"{part['rows']} ({part['label 1']} of label 1) in {part['groups']} groups"

    chance = "not computed"
    if null["draws"]:
        chance = f"{null['quantile_95']:.3f} ({len(null['draws'])} permutations; p = {null['p_top_head']:.3f})"
    table = {
        "training samples": rows(data["fitting"]),
        "test samples, no group shared with training": rows(data["test"]),
        "activations": f"input of o_proj, {found['policy']}",
        "heads": f"{found['top_k']} of {len(found['all_heads_auc']) * len(found['all_heads_auc'][0])}",
        "top head": f"layer {best['layer']}, head {best['head']}",
        "its AUC, out of fold": f"{best['auc']:.3f}",
        "best AUC of all heads under permuted labels, 95th percentile": chance,
        "p of the last head kept": "not computed" if null["p_last_head"] is None else f"{null['p_last_head']:.3f}",
        "overlap of the top heads between folds (Jaccard)": f"{found['stability']['value']:.2f}",
        "validation accuracy of the top head, out of fold": f"{100 * best['accuracy']:.1f}%",
        "test accuracy of the top head": f"{accuracy.percent()}, n = {accuracy.n}",
        "best single layer (residual stream)": f"{layer}: AUC {found['layers']['auc'][layer]:.3f}, "
        f"test accuracy {100 * found['layers']['test_accuracy'][layer]:.1f}%",
        "AUC of the text alone (TF-IDF, length)": f"{found['text_baseline_auc']:.3f}",
    }
    lines = ["| fit | |", "|---|---|", *(f"| {name} | {value} |" for name, value in table.items())]
    return "\n".join(lines) + f"\n\n{found['verdict']}"


def write_report(found: dict, path: Path) -> Path:
    return write_text(path, json.dumps(found, indent=1) + "\n")


def figures(fit: Fit, examples: Sequence[Example], activations: Activations, folder: Path) -> list[Path]:
    """Write head_auc.png, null.png, projections.png and layers.png. The same fit gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    layers, heads = activations.heads.shape[1:3]
    chosen = fit.ranking[: fit.top_k]
    drawn = {
        "head_auc": _head_auc(fit.out_of_fold_auc.reshape(layers, heads), chosen),
        "projections": _projections(fit, examples, activations, heads),
        "layers": _layers(fit),
    }
    if len(fit.null):
        drawn["null"] = _null(fit)
    paths = []
    for name, figure in drawn.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110, bbox_inches="tight", metadata={"Software": None})
    return paths


def _head_auc(auc: np.ndarray, chosen: np.ndarray) -> Figure:
    layers, heads = auc.shape
    figure = Figure(figsize=(max(4, heads * 0.28 + 1.5), max(2.2, layers * 0.22 + 1)))
    axes = figure.subplots()
    image = axes.imshow(auc, aspect="auto", vmin=0.5, vmax=1, cmap="viridis", origin="lower")
    axes.plot(chosen % heads, chosen // heads, "s", markerfacecolor="none", markeredgecolor="red", markersize=6)
    axes.set(xlabel="head", ylabel="layer", title="out-of-fold AUC (red: chosen)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes)
    return figure


def _null(fit: Fit) -> Figure:
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    axes.hist(fit.null, bins=20, color="0.7", label="permuted labels")
    axes.axvline(fit.out_of_fold_auc[fit.ranking[0]], color="red", label="top head")
    axes.axvline(fit.out_of_fold_auc[fit.ranking[fit.top_k - 1]], color="red", linestyle=":", label="last head kept")
    axes.set(xlabel="largest out-of-fold AUC over heads", ylabel="draws", title="against chance")
    axes.legend()
    return figure


def _projections(fit: Fit, examples: Sequence[Example], activations: Activations, heads: int) -> Figure:
    """Test rows projected on the best heads' directions, in sigmas."""
    shown = fit.ranking[: min(4, fit.top_k)]
    figure = Figure(figsize=(3 * len(shown), 2.8))
    x = activations.heads.flatten(1, 2)[fit.test].double()
    y = np.array([examples[i].label for i in fit.test])
    for axes, index in zip(np.ravel(figure.subplots(1, len(shown), sharey=True)), shown, strict=True):
        values = (x[:, index] @ fit.directions[index] / fit.sigma[index].clamp_min(1e-12)).numpy()
        bins = np.linspace(values.min(), values.max() + 1e-9, 25)
        for label, colour in ((0, "tab:blue"), (1, "tab:orange")):
            axes.hist(values[y == label], bins=bins, alpha=0.6, color=colour, label=f"label {label}")
        axes.set(title=f"layer {index // heads}, head {index % heads}", xlabel="projection, in sigmas")
    figure.axes[0].legend()
    return figure


def _layers(fit: Fit) -> Figure:
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    axes.plot(fit.layer_accuracy, "o-", label="out of fold")
    axes.plot(fit.layer_test_accuracy, "s--", label="test")
    axes.axhline(0.5, color="0.7")
    axes.set(xlabel="layer", ylabel="accuracy", title="probes on the residual stream", ylim=(0.3, 1.03))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.legend()
    return figure
