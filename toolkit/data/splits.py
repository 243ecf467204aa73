"""Splits of a labelled set by group: fitting and test rows, and folds of a cross-validation."""

from collections.abc import Sequence

import numpy as np

from .labelled_set import Example


def split_groups(examples: Sequence[Example], test_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the fitting rows and of the test rows; no group is in both. Rows with `meta["split"]` ("fit" or
    "test") go to that side.

    Raises:
        ValueError: if a group is on both sides of the split that the rows name.
    """
    named = [example.meta.get("split") for example in examples]
    if any(split is not None for split in named):
        unknown = next((row for row, split in enumerate(named) if split not in ("fit", "test")), None)
        if unknown is not None:
            raise ValueError(
                f"row {unknown + 1}: meta.split is {named[unknown]!r}; expected 'fit' or 'test' in every row"
            )
        sides = {
            split: {e.group for e, s in zip(examples, named, strict=True) if s == split} for split in ("fit", "test")
        }
        both = sorted(sides["fit"] & sides["test"])
        if both:
            raise ValueError(
                f"group {both[0]!r} is on both sides of meta.split ({len(both)} groups are); expected one side"
            )
        is_test = np.array([split == "test" for split in named])
    else:
        groups = sorted({example.group for example in examples})
        rng = np.random.default_rng(seed)
        held_out = set(rng.permutation(groups)[: max(1, round(len(groups) * test_share))].tolist())
        is_test = np.array([example.group in held_out for example in examples])
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def halves(groups: Sequence[str], seed: int) -> tuple[set[str], set[str]]:
    """The groups in two halves: one to choose a strength on, one to measure it on.

    Raises:
        ValueError: if there is only one group.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError(
            f"one held-out group ({names[0]!r}); expected two or more: half to choose on, half to measure on"
        )
    mixed = np.random.default_rng(seed).permutation(len(names))
    half = len(names) // 2
    return {names[i] for i in mixed[:half]}, {names[i] for i in mixed[half:]}


def fold_ids(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, groups kept whole and labels balanced."""
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(groups)) < folds:
        raise ValueError(
            f"{len(y)} rows of {len(np.unique(groups))} groups to fit on, but {folds} folds; expected one for "
            "each fold: add groups, or lower --folds of `iti-llama fit`"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    ids = np.empty(len(y), dtype=int)
    for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(y)), y, groups)):
        ids[rows] = fold
    for fold in range(folds):
        for name, part in (("in", y[ids == fold]), ("outside", y[ids != fold])):
            if len(np.unique(part)) < 2:
                raise ValueError(
                    f"fold {fold + 1} of {folds} has {len(part)} rows {name} it, of one class; expected both: add "
                    "groups, or lower --folds of `iti-llama fit`"
                )
    return ids
