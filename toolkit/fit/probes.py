"""Logistic probes for every head at once, and how well they separate the classes."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch.nn.functional import softplus


BLOCK = 16
"""How many heads are solved together on a CPU: enough to amortise the calls, few enough to stay in its cache."""

BLOCK_VALUES = 2**27
"""How many numbers are moved to an accelerator and solved together there: half a gigabyte in float32."""

MEMORY = 10
"""Steps that L-BFGS remembers."""


@dataclass(frozen=True)
class Probes:
    """Logistic regressions, one a head: `coef` [heads, head_dim], `intercept` [heads], float64 on CPU."""

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
    tolerance: float = 1e-5,
    iterations: int = 200,
    device: torch.device | str | None = None,
) -> Probes:
    """Fit a logistic regression for every head, many heads in one batch, in the dtype of `x`.

    Minimises, for each head, `|w|^2 / 2 + c * sum_i s_i log(1 + exp(-y_i (w x_i + b)))`: the objective of
    scikit-learn's `LogisticRegression(C=c)`, with class weights s if `balanced`. It runs L-BFGS in the metric of the
    Hessian at the start: there the problem is round, so about ten gradients are enough.

    Args:
        x: activations [rows, heads, head_dim], float32 or float64.
        y: labels [rows], 0 or 1.
        c: inverse strength of the L2 penalty; the intercept is not penalised.
        balanced: weigh the classes inversely to their frequency.
        tolerance: stop once every head's gradient, in that metric, is this much shorter than at the start.
        iterations: the largest number of gradients.
        device: where to solve; that of `x` by default. If `x` is large, only some heads at a time are moved there.
    """
    rows, heads, dim = x.shape
    x = x if x.dtype == torch.float64 else x.float()
    device = x.device if device is None else torch.device(device)
    y = y.to(device, x.dtype)
    weight = torch.ones_like(y)
    if balanced:
        weight = torch.where(y == 1, rows / (2 * y.sum()), rows / (2 * (1 - y).sum()))
    block = BLOCK if device.type == "cpu" else max(1, BLOCK_VALUES // (rows * dim))
    coefs, intercepts = [], []
    for at in range(0, heads, block):
        part = x[:, at : at + block].to(device).transpose(0, 1).contiguous()  # [heads, rows, dim]
        mean = part.mean(1, keepdim=True)
        part = part - mean  # so that the intercept and the coefficients hardly interact
        basis = None
        if dim > rows:  # the solution lies in the span of the rows: solve there
            basis, upper = torch.linalg.qr(part.mT)
            part = upper.mT.contiguous()
        w, b = _solve(part, y, weight, c, tolerance, iterations)
        if basis is not None:
            w = (basis @ w[..., None])[..., 0]
        coefs.append(w.double().cpu())
        intercepts.append((b - (w * mean[:, 0]).sum(-1)).double().cpu())
    return Probes(torch.cat(coefs), torch.cat(intercepts))


def _solve(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, c: float, tolerance: float, iterations: int):
    """Coefficients [heads, dim] and intercepts [heads] for centred activations `x` [heads, rows, dim]."""
    heads, rows, dim = x.shape
    # The metric is the Hessian at w = 0, from a sample of rows if there are many.
    sample = slice(None, None, max(1, rows // (8 * dim)))
    part, part_weight = x[:, sample], weight[sample]
    scaled = part * (part_weight * (0.25 * c * rows / part.shape[1])).sqrt()[:, None]
    hessian = scaled.mT @ scaled
    hessian.diagonal(dim1=-2, dim2=-1).add_(1)
    factor = torch.linalg.cholesky(hessian)
    curvature_b = 0.25 * c * weight.sum()

    def precondition(g: torch.Tensor) -> torch.Tensor:
        """The inverse metric times `g` [heads, dim + 1]."""
        return torch.cat([torch.cholesky_solve(g[:, :-1, None], factor)[..., 0], g[:, -1:] / curvature_b], 1)

    def at(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Objective [heads] and gradient [heads, dim + 1]."""
        w, b = theta[:, :-1], theta[:, -1:]
        z = torch.bmm(x, w[..., None])[..., 0] + b
        value = 0.5 * (w * w).sum(-1) + c * ((softplus(z) - y * z) * weight).sum(-1)
        r = c * weight * (torch.sigmoid(z) - y)
        return value, torch.cat([w + torch.bmm(r[:, None], x)[:, 0], r.sum(-1, keepdim=True)], 1)

    theta = x.new_zeros(heads, dim + 1)
    value, gradient = at(theta)
    first = (gradient * precondition(gradient)).sum(-1)
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for _ in range(iterations):
        step = -_two_loop(gradient, history, precondition)
        slope = (gradient * step).sum(-1)
        scale = x.new_ones(heads)
        for _ in range(20):  # halve the step for heads that it does not help; rounding alone may raise the value
            new, new_gradient = at(theta + scale[:, None] * step)
            worse = new > value + 1e-4 * scale * slope + 1e-6 * value.abs()
            if not bool(worse.any()):
                break
            scale = torch.where(worse, scale / 2, scale)
        moved = scale[:, None] * step
        change = new_gradient - gradient
        theta, value, gradient = theta + moved, new, new_gradient
        product = (moved * change).sum(-1)
        usable = product > 1e-12 * (change * change).sum(-1)  # heads at rest take a pair of zeros
        pair = (moved * usable[:, None], change * usable[:, None], torch.where(usable, 1 / product, 0.0))
        history = [*history, pair][-MEMORY:]
        if bool(((gradient * precondition(gradient)).sum(-1) <= tolerance**2 * first).all()):
            break
    return theta[:, :-1], theta[:, -1]


def _two_loop(gradient: torch.Tensor, history, precondition) -> torch.Tensor:
    """The inverse Hessian, as L-BFGS knows it, times the gradient (Nocedal and Wright, algorithm 7.4), for every
    head."""
    q, kept = gradient, []
    for s, t, rho in reversed(history):
        a = rho * (s * q).sum(-1)
        q = q - a[:, None] * t
        kept.append(a)
    q = precondition(q)
    for (s, t, rho), a in zip(history, reversed(kept), strict=True):
        q = q + (a - rho * (t * q).sum(-1))[:, None] * s
    return q


def auc(scores: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor) -> np.ndarray:
    """Area under the ROC curve of each column of `scores` [rows, columns] for labels `y` [rows]; ties count one
    half."""
    scores, positive = np.asarray(scores), np.asarray(y) == 1
    ranks = rankdata(scores, axis=0)
    n1, n0 = positive.sum(), (~positive).sum()
    return (ranks[positive].sum(0) - n1 * (n1 + 1) / 2) / (n1 * n0)


def accuracy(scores: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor) -> np.ndarray:
    """Share of rows on the right side of log-odds 0, for each column of `scores` [rows, columns]."""
    return ((np.asarray(scores) > 0) == (np.asarray(y) == 1)[:, None]).mean(0)
