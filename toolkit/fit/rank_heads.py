"""Rank the heads by probes on folds of the fitting rows, and compute how well chance would do."""

import numpy as np
import torch

from .probes import Probes, accuracy, auc, fit_probes
from .settings import FitSettings


def solve_probes(x: torch.Tensor, y: np.ndarray, settings: FitSettings) -> Probes:
    """Probes of all heads, solved on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return fit_probes(x, torch.from_numpy(y), settings.c, settings.balanced, device=device)


def out_of_fold(x: torch.Tensor, y: np.ndarray, folds: np.ndarray, settings: FitSettings) -> np.ndarray:
    """Log-odds [rows, heads] of each row, from probes that saw nothing of its fold."""
    scores = np.empty(x.shape[:2])
    for fold in np.unique(folds):
        held_out = folds == fold
        probes = solve_probes(x[~held_out], y[~held_out], settings)
        scores[held_out] = probes.decision(x[held_out]).numpy()
    return scores


def fold_auc_of(scores: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """AUC [folds, heads], within each fold: probes of different folds have different zeros."""
    return np.stack([auc(scores[folds == fold], y[folds == fold]) for fold in np.unique(folds)])


def separation_of(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance between the classes' mean scores in pooled standard deviations, [heads]. It decides ties."""
    one, zero = scores[y == 1], scores[y == 0]
    return (one.mean(0) - zero.mean(0)) / np.sqrt((one.var(0) + zero.var(0)) / 2 + 1e-12)


def rank_heads(x: torch.Tensor, y: np.ndarray, folds: np.ndarray, settings: FitSettings):
    """The ranking [heads] and what it is based on: scores [rows, heads], fold AUC [folds, heads], separation
    [heads]."""
    scores = out_of_fold(x, y, folds, settings)
    fold_auc, separation = fold_auc_of(scores, y, folds), separation_of(scores, y)
    score = fold_auc.mean(0) if settings.rank_by == "auc" else accuracy(scores, y)
    return np.lexsort((-separation, -score.round(6))), scores, fold_auc, separation


def permuted_within_groups(y: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels permuted within each group that holds both; the groups that hold one label swap it with each other."""
    names, index = np.unique(groups, return_inverse=True)
    of_group = [y[index == at] for at in range(len(names))]
    whole = np.array([len(np.unique(labels)) == 1 for labels in of_group])
    label, permuted = np.array([labels[0] for labels in of_group]), y.copy()
    label[whole] = rng.permutation(label[whole])
    for at in range(len(names)):
        permuted[index == at] = label[at] if whole[at] else rng.permutation(of_group[at])
    return permuted


def permuted_with_both_classes(
    y: np.ndarray, groups: np.ndarray, folds: np.ndarray, rng: np.random.Generator, tries: int = 1000
) -> np.ndarray:
    """Like `permuted_within_groups`, drawn again until both labels are inside and outside each fold, as in the data.

    Raises:
        ValueError: if `tries` draws are not enough: there are too few groups.
    """
    for _ in range(tries):
        permuted = permuted_within_groups(y, groups, rng)
        sides = [permuted[side] for fold in np.unique(folds) for side in (folds == fold, folds != fold)]
        if all(len(np.unique(side)) == 2 for side in sides):
            return permuted
    raise ValueError(
        f"{len(np.unique(groups))} groups are too few for the permutation null with {len(np.unique(folds))} folds: "
        "add groups, pass --permutations 0, or lower --folds of `iti-llama fit`"
    )
