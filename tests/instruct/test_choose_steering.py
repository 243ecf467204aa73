"""Which strengths are tried: shares of the largest one inside the perplexity guard."""

import math

import pytest

from iti_llama.toolkit.foundation.intervals import Estimate
from iti_llama.toolkit.instruct.choose_steering import strengths_inside
from iti_llama.toolkit.measure.divergence import Divergence


def cost(alpha: float, ratio: float) -> Divergence:
    change = math.log(ratio)
    return Divergence(alpha, Estimate(0, 0, 0, 1, 1), 0.0, 1.0, ratio, Estimate(change, change, change, 1, 1), 1)


@pytest.mark.parametrize(
    "ratios,largest",
    [
        ((1.0, 1.05, 1.2), 0.6 + 0.3 * math.log(1.1 / 1.05) / math.log(1.2 / 1.05)),
        ((0.9, 0.8, 0.7), 0.9),  # never reached
        ((2.0, 3.0, 4.0), 0.3 * math.log(1.1) / math.log(2.0)),  # before the first
        ((1.5, 0.9, 0.9), 0.3 * math.log(1.1) / math.log(1.5)),  # what is inside again lies beyond damage
    ],
)
def test_strengths_end_where_the_guard_is(ratios, largest):
    costs = [cost(alpha, ratio) for alpha, ratio in zip((0.3, 0.6, 0.9), ratios, strict=True)]
    alphas = strengths_inside(costs, 1.1)
    assert alphas == pytest.approx([0.4 * largest, 0.6 * largest, 0.8 * largest, largest], abs=0.0101)
    assert alphas[-1] <= largest + 1e-9 and alphas == sorted(alphas)
