"""Means with a 95% interval, where rows of one group (one problem) are not independent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student


DRAWS, FEW = 2000, 10


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` rows of `groups` groups, and its 95% interval."""

    mean: float
    low: float
    high: float
    n: int
    groups: int

    def percent(self) -> str:
        """As in "97.0% [94.1, 99.0]"."""
        return f"{100 * self.mean:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def plain(self) -> str:
        """As in "+3.1 [+2.0, +4.2]"."""
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"

    def points(self) -> str:
        """A difference in percentage points, with its sign."""
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def estimate(values: Sequence[float], groups: Sequence[str], seed: int = 0) -> Estimate:
    """The mean of `values` and its percentile interval, bootstrapped by group.

    Where every row has the same value, the bootstrap sees no spread. For rates (all 0 or all 1) the interval is then
    Wilson's, with the number of groups as sample size; `paired` takes it on both sides. Fewer than `FEW` groups show
    less spread than there is: the interval is widened by Student's t. One group shows none: the interval holds 0, and
    goes far beyond every value.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0 or len(values) != len(groups):
        raise ValueError(f"{len(values)} values of {len(groups)} groups; expected as many, and at least one")
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    mean, k = float(values.mean()), len(counts)
    if np.ptp(values) == 0 and abs(mean) in (0.0, 1.0):
        wilson = binomtest(round(abs(mean)) * k, k).proportion_ci(method="wilson")
        low, high = (wilson.low, wilson.high) if mean >= 0 else (-wilson.high, -wilson.low)
        return Estimate(mean, low, high, len(values), k)
    drawn = np.random.default_rng(seed).integers(0, k, (DRAWS, k))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    if k == 1:
        wide = student.ppf(0.975, 1) * np.abs(values).max()
        low, high = mean - wide, mean + wide
    elif k < FEW:
        wider = student.ppf(0.975, k - 1) / 1.96 * (k / (k - 1)) ** 0.5
        low, high = mean + wider * (low - mean), mean + wider * (high - mean)
    if np.abs(values).max() <= 1 and np.allclose(6 * values, np.round(6 * values)):  # shares, or their differences
        low, high = max(low, -1.0 if values.min() < 0 else 0.0), min(high, 1.0)
    return Estimate(mean, float(low), float(high), len(values), k)


def paired(values: Sequence[float], baseline: Sequence[float], groups: Sequence[str], seed: int = 0) -> Estimate:
    """The mean of `values - baseline`, row by row, and its interval."""
    difference = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    result = estimate(difference, groups, seed)
    if np.ptp(difference) == 0 and result.mean == 0:
        return Estimate(0.0, -result.high, result.high, result.n, result.groups)
    return result
