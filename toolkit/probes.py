"""Logistic probes for every head at once, and how well they separate the classes."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata


@dataclass(frozen=True)
class Probes:
    """Logistic regressions, one a head: `coef` [heads, head_dim], `intercept` [heads]."""

    coef: torch.Tensor
    intercept: torch.Tensor

    def decision(self, x: torch.Tensor) -> torch.Tensor:
        """The log-odds of label 1, [rows, heads], for activations [rows, heads, head_dim]."""
        return torch.einsum("nhd,hd->nh", x.to(self.coef), self.coef) + self.intercept


def fit_probes(
    x: torch.Tensor,
    y: torch.Tensor,
    c: float = 1.0,
    balanced: bool = False,
    tolerance: float = 1e-6,
    iterations: int = 50,
) -> Probes:
    """Fit a logistic regression for every head by Newton's method, all heads in one batch.

    Minimises, for each head, `|w|^2 / 2 + c * sum_i s_i log(1 + exp(-y_i (w x_i + b)))`: the objective of scikit-learn's
    `LogisticRegression(C=c)`, with class weights s if `balanced`.

    Args:
        x: activations [rows, heads, head_dim].
        y: labels [rows], 0 or 1.
        c: inverse strength of the L2 penalty; the intercept is not penalised.
        balanced: weigh the classes inversely to their frequency.
        tolerance: stop once no component of any gradient, divided by c * rows, is larger.
        iterations: Newton steps at most.
    """
    rows, heads, dim = x.shape
    x = x.transpose(0, 1).double()  # [heads, rows, dim]
    x = torch.cat([x, x.new_ones(heads, rows, 1)], -1)
    y = y.to(x)
    weight = torch.ones_like(y)
    if balanced:
        weight = torch.where(y == 1, rows / (2 * y.sum()), rows / (2 * (1 - y).sum()))
    ridge = torch.ones(dim + 1).to(x)
    ridge[-1] = 0

    def objective(w: torch.Tensor) -> torch.Tensor:
        z = torch.einsum("hnd,hd->hn", x, w)
        losses = torch.nn.functional.softplus(z) - y * z
        return 0.5 * (ridge * w * w).sum(-1) + c * (weight * losses).sum(-1)

    w = x.new_zeros(heads, dim + 1)
    value = objective(w)
    for _ in range(iterations):
        p = torch.sigmoid(torch.einsum("hnd,hd->hn", x, w))
        gradient = ridge * w + c * torch.einsum("hnd,hn->hd", x, weight * (p - y))
        if gradient.abs().max() <= tolerance * c * rows:
            break
        curvature = c * weight * p * (1 - p)
        hessian = torch.einsum("hnd,hn,hne->hde", x, curvature, x) if dim < 8 else (x * curvature[..., None]).mT @ x
        hessian.diagonal(dim1=-2, dim2=-1).add_(ridge + 1e-10)
        step = torch.linalg.solve(hessian, gradient)
        scale = x.new_ones(heads)
        for _ in range(20):  # halve the step of the heads that it does not help
            new = objective(w - scale[:, None] * step)
            worse = new > value + 1e-12 * value.abs()
            if not worse.any():
                break
            scale = torch.where(worse, scale / 2, scale)
        w, value = w - scale[:, None] * step, new
    return Probes(w[:, :-1], w[:, -1])


def auc(scores: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor) -> np.ndarray:
    """Area under the ROC curve of each column of `scores` [rows, columns] for labels `y` [rows]; ties count one half."""
    scores, positive = np.asarray(scores), np.asarray(y) == 1
    ranks = rankdata(scores, axis=0)
    n1, n0 = positive.sum(), (~positive).sum()
    return (ranks[positive].sum(0) - n1 * (n1 + 1) / 2) / (n1 * n0)


def accuracy(scores: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor) -> np.ndarray:
    """Share of rows on the right side of log-odds 0, for each column of `scores` [rows, columns]."""
    return ((np.asarray(scores) > 0) == (np.asarray(y) == 1)[:, None]).mean(0)
