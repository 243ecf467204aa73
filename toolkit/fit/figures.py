"""The results of a fit as figures, in PNG files."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..data.labelled_set import Example
from .fitted_heads import Fit
from .record_activations import Activations


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
    for edge, width in (("white", 3.5), ("red", 1.5)):  # visible at the dark and at the bright end of the colours
        axes.plot(
            chosen % heads, chosen // heads, "s", markerfacecolor="none", markeredgecolor=edge, markeredgewidth=width,
            markersize=7,
        )  # fmt: skip
    axes.set(xlabel="head", ylabel="layer", title="heads (framed: chosen)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes, label="AUC, out of fold")
    return figure


def _null(fit: Fit) -> Figure:
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    axes.hist(fit.null, bins=20, color="0.7", label="permuted labels")
    axes.axvline(fit.best_auc, color="red", label="best head")
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
    figure.axes[0].set_ylabel("test rows")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


def _layers(fit: Fit) -> Figure:
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    axes.plot(fit.layer_accuracy, "o-", label="out of fold")
    axes.plot(fit.layer_test_accuracy, "s--", label="test")
    axes.axhline(0.5, color="0.7", label="chance")
    axes.set(xlabel="layer", ylabel="accuracy", title="probes on the residual stream", ylim=(0.3, 1.03))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.legend()
    return figure
