"""No group is ever on both sides of a split."""

import numpy as np
import pytest

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.data.splits import fold_ids, halves, split_groups


EXAMPLES = [Example("p", "c", i % 2, f"g{i // 2}") for i in range(60)]


def test_test_rows_are_whole_groups_and_the_share_that_was_asked_for():
    fitting, test = split_groups(EXAMPLES, 0.2, seed=3)
    assert sorted([*fitting, *test]) == list(range(60)) and len(test) == 12
    assert not {EXAMPLES[i].group for i in fitting} & {EXAMPLES[i].group for i in test}
    again, other = split_groups(EXAMPLES, 0.2, seed=3)[1], split_groups(EXAMPLES, 0.2, seed=4)[1]
    assert np.array_equal(test, again) and not np.array_equal(test, other)


def test_folds_hold_whole_groups_and_both_labels():
    y, groups = (np.array([getattr(e, name) for e in EXAMPLES]) for name in ("label", "group"))
    folds = fold_ids(y, groups, 5, seed=0)
    for fold in range(5):
        assert not set(groups[folds == fold]) & set(groups[folds != fold])
        assert set(y[folds == fold]) == {0, 1}
    with pytest.raises(ValueError, match="30 groups to fit on, but 31 folds"):
        fold_ids(y, groups, 31, seed=0)


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_halves_hold_every_group_once_and_neither_is_empty(n):
    groups = [f"g{i % n}" for i in range(3 * n)]
    one, other = halves(groups, seed=1)
    assert one | other == set(groups) and not one & other
    assert len(one) == n // 2 and len(other) == n - n // 2
    assert halves(list(reversed(groups)), seed=1) == (one, other)


def test_halves_depend_on_the_seed():
    groups = [f"g{i}" for i in range(40)]
    assert halves(groups, seed=0) != halves(groups, seed=1)


def test_one_group_cannot_be_halved():
    with pytest.raises(ValueError, match="one held-out group \\('g'\\); expected two or more"):
        halves(["g", "g"], seed=0)
