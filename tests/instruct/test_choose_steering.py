"""Which strengths are tried between those that the guards let through and those that they do not."""

import pytest

from iti_llama.toolkit.instruct.choose_steering import alphas_between


@pytest.mark.parametrize(
    "alphas,inside,between",
    [
        ([0.6, 0.9, 1.3, 1.8], [True, True, True, False], [1.45, 1.65]),
        ([0.6, 0.9, 1.3, 1.8], [False, False, False, False], [0.2, 0.4]),
        ([0.6, 0.9, 1.3, 1.8], [True, False, True, False], [0.7, 0.8]),
        ([0.6, 0.9, 1.3, 1.8], [True, True, True, True], []),
        ([0.1, 0.15], [True, False], []),
    ],
)
def test_two_strengths_lie_between_the_last_inside_the_guards_and_the_first_beyond(alphas, inside, between):
    assert alphas_between(alphas, inside) == pytest.approx(between)
