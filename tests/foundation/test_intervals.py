"""Intervals, against independent computations."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from iti_llama.toolkit.foundation.intervals import estimate, paired


def test_interval_covers_the_true_rate_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        rates = rng.beta(2, 2, 60).repeat(3)  # three rows of each group, alike
        values = rng.random(180) < rates
        result = estimate(values, np.arange(60).repeat(3), seed=trial)
        hits += result.low <= 0.5 <= result.high
    assert 0.88 <= hits / 200 <= 0.99


def test_groups_that_vary_together_widen_the_interval():
    values = np.repeat(np.arange(40) % 2, 10)
    alone = estimate(values, np.arange(400))
    grouped = estimate(values, np.arange(40).repeat(10))
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert (alone.groups, grouped.groups, grouped.n) == (400, 40, 400)


def test_a_rate_without_spread_has_wilsons_interval():
    from scipy.stats import binomtest

    expected = binomtest(100, 100).proportion_ci(0.95, method="wilson")
    result = estimate([1] * 100, range(100))
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_the_interval_of_shares_does_not_leave_them():
    few = estimate([1, 1, 1, 2 / 3, 1], range(5))
    assert few.high == 1 and few.low < few.mean
    assert estimate([1.01, 1, 1, 0.67, 1], range(5)).high > 1  # no shares


def test_paired_differences_cancel_what_is_common():
    before = np.arange(50) % 2
    same = paired(before, before, range(50))
    assert same.mean == 0 and same.low < 0 < same.high
    after = before.copy()
    after[:10] = 1
    change = paired(after, before, range(50))
    assert change.mean == pytest.approx(0.1) and 0 < change.low < change.high < 0.25


@pytest.mark.parametrize("groups", [2, 3, 5, 9])
def test_few_groups_are_not_taken_for_many(groups):
    rng, hits = np.random.default_rng(1), 0
    for trial in range(300):
        means = rng.normal(size=groups)
        result = estimate((means[:, None] + rng.normal(size=(groups, 4))).ravel(), np.arange(groups).repeat(4), trial)
        hits += result.low <= 0 <= result.high
    assert hits / 300 >= 0.9


def test_of_one_group_nothing_is_known():
    rate, change, odds = (
        estimate(values, ["g"] * 4) for values in ([1, 0, 1, 1], [1, -1, 0, 1], [2.5, 1.0, 0.3, 4.0])
    )
    assert (rate.mean, rate.low, rate.high) == (0.75, 0.0, 1.0)
    assert (change.low, change.high) == (-1.0, 1.0)
    assert odds.low < -10 < 0 < 10 < odds.high
    json.dumps(asdict(odds), allow_nan=False)  # as every program reads it


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        estimate([], [])
