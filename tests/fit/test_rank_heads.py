"""Ranking by folds, and labels permuted within groups."""

import numpy as np
import torch

from iti_llama.toolkit.data.splits import fold_ids
from iti_llama.toolkit.fit.rank_heads import permuted_within_groups, rank_heads
from iti_llama.toolkit.fit.settings import FitSettings


def test_a_head_that_tells_the_labels_comes_first_whatever_the_score():
    rng = np.random.default_rng(0)
    y, groups = np.arange(80) % 2, np.array([f"g{i // 2}" for i in range(80)])
    x = torch.from_numpy(rng.normal(size=(80, 3, 4))).float()
    x[:, 1, 2] += 4 * torch.from_numpy(y)
    for score in ("auc", "accuracy"):
        ranking, *_ = rank_heads(x, y, fold_ids(y, groups, 4, 0), FitSettings(rank_by=score))
        assert ranking[0] == 1


def test_permutation_keeps_what_each_group_holds():
    y, groups = np.array([0, 1, 0, 1, 1, 1]), np.array(list("aabbcc"))
    drawn = [permuted_within_groups(y, groups, np.random.default_rng(seed)) for seed in range(8)]
    assert all(one[:2].sum() == 1 and one[4:].sum() == 2 for one in drawn)
    assert len({tuple(one) for one in drawn}) > 1


def test_groups_of_one_label_swap_it_also_beside_a_group_of_both():
    """One prompt with both labels among many must not leave the others as they are: the null would be the data."""
    y = np.array([0, 1, *([0, 0, 1, 1] * 25)])
    groups = np.array([0, 0, *np.arange(50).repeat(2) + 1])
    for seed in range(8):
        drawn = permuted_within_groups(y, groups, np.random.default_rng(seed))
        assert drawn[:2].sum() == 1 and drawn.sum() == y.sum()
        assert all(len(set(drawn[groups == group])) == 1 for group in range(1, 51))
        assert 10 <= (drawn[2:] != y[2:]).sum() // 2 <= 40
