"""From activations to directions: rank the heads, take their directions and sigmas, and say what chance would give.

Heads are ranked by probes on grouped, stratified folds of the fitting rows; the test rows are touched once, at the
end. The published method (Li et al. 2023, section 3) with the faults of its code left out: sigma (ddof 0) comes from the
fitting rows alone, no group falls on both sides of a split, ties have an order, and the best head is compared with the
best head under permuted labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from .examples import Example
from .probes import accuracy, auc, fit_probes


METHODS = ("mean-difference", "probe-weights", "random")


@dataclass(frozen=True)
class FitSettings:
    """How directions are fitted.

    method: "mean-difference" (mean activation of label 1 minus that of label 0), "probe-weights" or "random" (control).
    test_share: share of the groups held out for the test scores. folds: of the cross-validation on the others.
    permutations: draws of the null, of which the largest AUC over heads is kept; 0 leaves the null out.
    """

    method: str = "mean-difference"
    top_k: int = 48
    folds: int = 5
    test_share: float = 0.2
    c: float = 1.0
    balanced: bool = False
    permutations: int = 100
    seed: int = 0

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; expected one of {', '.join(METHODS)}")


@dataclass(frozen=True)
class Fit:
    """What fitting found. Heads are numbered layer * heads + head; arrays are float64.

    ranking: [heads], best first. out_of_fold_auc, out_of_fold_accuracy, separation: [heads], of the cross-validation;
    test_auc, test_accuracy: [heads], of probes fitted on every fitting row. directions [heads, head_dim] (unit),
    sigma [heads]. null: [permutations], the largest out-of-fold AUC over heads with permuted labels.
    stability: mean Jaccard overlap of the top K between pairs of folds.
    """

    settings: FitSettings
    ranking: np.ndarray
    out_of_fold_auc: np.ndarray
    out_of_fold_accuracy: np.ndarray
    separation: np.ndarray
    test_auc: np.ndarray
    test_accuracy: np.ndarray
    directions: torch.Tensor
    sigma: torch.Tensor
    null: np.ndarray
    stability: float
    fitting_rows: int
    test_rows: int

    def p_value(self, rank: int) -> float:
        """Share of the null that reaches the AUC of the head at `rank` (0 is the best), counting the data themselves."""
        return float((1 + (self.null >= self.out_of_fold_auc[self.ranking[rank]]).sum()) / (1 + len(self.null)))


def split_groups(examples: list[Example], settings: FitSettings) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the fitting rows and of the test rows; no group is in both."""
    groups = sorted({example.group for example in examples})
    rng = np.random.default_rng(settings.seed)
    held_out = set(rng.permutation(groups)[: max(1, round(len(groups) * settings.test_share))].tolist())
    is_test = np.array([example.group in held_out for example in examples])
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _fold_ids(y: np.ndarray, groups: np.ndarray, settings: FitSettings) -> np.ndarray:
    """The fold of each row, groups kept whole and labels balanced."""
    if len(np.unique(groups)) < settings.folds:
        raise ValueError(f"{len(np.unique(groups))} groups to fit on, but {settings.folds} folds; expected a group for each")
    splitter = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed)
    folds = np.empty(len(y), dtype=int)
    for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(y)), y, groups)):
        folds[rows] = fold
    return folds


def _out_of_fold(x: torch.Tensor, y: np.ndarray, folds: np.ndarray, settings: FitSettings) -> np.ndarray:
    """Log-odds [rows, heads] of each row by probes that saw none of its fold."""
    scores = np.empty(x.shape[:2])
    for fold in range(settings.folds):
        held_out = folds == fold
        probes = fit_probes(x[~held_out], torch.from_numpy(y[~held_out]), settings.c, settings.balanced)
        scores[held_out] = probes.decision(x[held_out]).numpy()
    return scores


def _fold_auc(scores: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """AUC [folds, heads], within each fold: probes of different folds have different zeros."""
    return np.stack([auc(scores[folds == fold], y[folds == fold]) for fold in np.unique(folds)])


def _separation(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance between the classes' mean scores in pooled standard deviations, [heads]. Orders heads whose AUC is tied."""
    one, zero = scores[y == 1], scores[y == 0]
    return (one.mean(0) - zero.mean(0)) / np.sqrt((one.var(0) + zero.var(0)) / 2 + 1e-12)


def _permuted_within_groups(y: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    permuted = y.copy()
    for group in np.unique(groups):
        rows = groups == group
        permuted[rows] = rng.permutation(y[rows])
    return permuted


def directions_of(x: torch.Tensor, y: np.ndarray, settings: FitSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit directions [heads, head_dim] towards label 1, and the standard deviation [heads] (ddof 0) of the projections
    of all rows `x` [rows, heads, head_dim] on them (section 3.2)."""
    x, labels = x.double(), torch.from_numpy(y)
    if settings.method == "mean-difference":
        directions = x[labels == 1].mean(0) - x[labels == 0].mean(0)
    elif settings.method == "probe-weights":
        directions = fit_probes(x, labels, settings.c, settings.balanced).coef
    else:
        generator = torch.Generator().manual_seed(settings.seed)
        directions = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return directions, torch.einsum("nhd,hd->nh", x, directions).std(0, correction=0)


def fit(
    activations: torch.Tensor,
    examples: list[Example],
    settings: FitSettings,
    progress: Callable[[str], None] = lambda step: None,
) -> Fit:
    """Fit on `activations` [rows, layers, heads, head_dim] of `examples`.

    Raises:
        ValueError: if there are fewer groups than folds, or a class is missing on one side of the split.
    """
    x = activations.flatten(1, 2)
    y = np.array([example.label for example in examples])
    groups = np.array([example.group for example in examples])
    fitting, test = split_groups(examples, settings)
    for name, rows in (("fitting", fitting), ("test", test)):
        if len(np.unique(y[rows])) < 2:
            raise ValueError(f"the {name} rows ({len(rows)} of {len(y)}) are of one class; expected both: add groups")
    folds = _fold_ids(y[fitting], groups[fitting], settings)
    progress("cross-validation")
    scores = _out_of_fold(x[fitting], y[fitting], folds, settings)
    fold_auc = _fold_auc(scores, y[fitting], folds)
    mean_auc, separation = fold_auc.mean(0), _separation(scores, y[fitting])
    ranking = np.lexsort((-separation, -mean_auc.round(6)))

    top_k = min(settings.top_k, len(ranking))
    tops = [set(np.lexsort((-separation, -one.round(6)))[:top_k].tolist()) for one in fold_auc]
    pairs = [(a, b) for i, a in enumerate(tops) for b in tops[:i]]
    stability = float(np.mean([len(a & b) / len(a | b) for a, b in pairs])) if pairs else 1.0

    rng, null = np.random.default_rng(settings.seed), []
    for draw in range(settings.permutations):
        progress(f"permutation {draw + 1} of {settings.permutations}")
        permuted = _permuted_within_groups(y[fitting], groups[fitting], rng)
        permuted_scores = _out_of_fold(x[fitting], permuted, folds, settings)
        null.append(_fold_auc(permuted_scores, permuted, folds).mean(0).max())

    progress("test rows")
    probes = fit_probes(x[fitting], torch.from_numpy(y[fitting]), settings.c, settings.balanced)
    test_scores = probes.decision(x[test]).numpy()
    directions, sigma = directions_of(x[fitting], y[fitting], settings)
    return Fit(
        settings=settings,
        ranking=ranking,
        out_of_fold_auc=mean_auc,
        out_of_fold_accuracy=accuracy(scores, y[fitting]),
        separation=separation,
        test_auc=auc(test_scores, y[test]),
        test_accuracy=accuracy(test_scores, y[test]),
        directions=directions,
        sigma=sigma,
        null=np.array(null),
        stability=stability,
        fitting_rows=len(fitting),
        test_rows=len(test),
    )
