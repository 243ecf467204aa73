"""The results of a fit for every head: how well it reads the label and, if that was measured, what it does."""

from dataclasses import dataclass

import numpy as np
import torch

from .settings import FitSettings


@dataclass(frozen=True)
class Effects:
    """What the heads do, see `causal`. first_order: [heads], the score by derivatives. checked: the heads that forward
    passes checked. exact: [checked], their score after that. gain, divergence: [checked], what the passes measured,
    per completion. alpha: [checked], the strength."""

    first_order: np.ndarray
    checked: np.ndarray
    exact: np.ndarray
    gain: np.ndarray
    divergence: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class Fit:
    """The results of a fit. Heads are numbered layer * heads + head; arrays are float64.

    ranking: [heads], best first. out_of_fold_auc, out_of_fold_accuracy, separation: [heads], of the cross-validation;
    test_auc, test_accuracy: [heads], of probes fitted on every fitting row. directions [heads, head_dim] (unit),
    sigma [heads]. null: [permutations], the largest out-of-fold AUC over heads with permuted labels;
    1, the maximum, for a draw whose AUC is NaN.
    stability: mean Jaccard overlap of the top K between pairs of folds. top_k_auc: {K: out-of-fold AUC} where K was
    chosen by cross-validation. layer_*: [layers], of probes on the residual stream after each layer.
    text_auc: out-of-fold AUC of the texts alone. agreement: [heads], see `agreement_of`; None where no fitting group
    has both labels. effects: what the heads do, if they were ranked by that; else None. fitting, test: row indices.
    test_scores: [test rows, heads].
    """

    settings: FitSettings
    top_k: int
    ranking: np.ndarray
    out_of_fold_auc: np.ndarray
    out_of_fold_accuracy: np.ndarray
    separation: np.ndarray
    test_auc: np.ndarray
    test_accuracy: np.ndarray
    test_scores: np.ndarray
    directions: torch.Tensor
    sigma: torch.Tensor
    null: np.ndarray
    stability: float
    top_k_auc: dict[int, float]
    layer_auc: np.ndarray
    layer_accuracy: np.ndarray
    layer_test_accuracy: np.ndarray
    text_auc: float
    agreement: np.ndarray | None
    fitting: np.ndarray
    test: np.ndarray
    effects: Effects | None = None

    @property
    def best_auc(self) -> float:
        """The largest out-of-fold AUC, whatever the heads are ranked by. A NaN counts as nothing."""
        return float(np.nan_to_num(self.out_of_fold_auc, nan=0.0).max())

    def p_value(self, auc: float) -> float:
        """Share of the null that reaches an AUC, counting the data themselves. A NaN in it is not below."""
        return float((1 + (~(self.null < auc)).sum()) / (1 + len(self.null)))

    @property
    def supported(self) -> bool | None:
        """Whether the best head beats the null of the maximum at 5%; None without a null, or if it is too small to
        tell."""
        return None if len(self.null) < 19 else self.p_value(self.best_auc) <= 0.05
