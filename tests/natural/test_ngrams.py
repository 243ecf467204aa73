"""The n-gram baseline, against counts by hand."""

import numpy as np
import pytest

from iti_llama.examples.natural.ngrams import NGrams


def by_hand(text, at, order, vocabulary):
    """Witten-Bell, straight from its formula."""
    found = 1 / vocabulary
    for n in range(1, order + 1):
        context = tuple(at[len(at) - n : -1])
        follow = [text[i + n - 1] for i in range(len(text) - n + 1) if tuple(text[i : i + n - 1]) == context]
        if follow:
            found = (follow.count(at[-1]) + len(set(follow)) * found) / (len(follow) + len(set(follow)))
    return found


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_are_witten_bells(order):
    rng = np.random.default_rng(order)
    text, other = rng.integers(0, 5, 200), rng.integers(0, 6, 30)
    found = NGrams(text, 6, order).probabilities(other)
    assert len(found) == 30 - order + 1
    for i, value in enumerate(found):
        assert value == pytest.approx(by_hand(list(text), list(other[i : i + order]), order, 6))


def test_the_probabilities_of_all_tokens_sum_to_one():
    text = np.random.default_rng(0).integers(0, 7, 300)
    model = NGrams(text, 8, 3)
    for context in ([1, 2], [7, 7], [0, 7]):
        total = sum(model.probabilities(np.array([*context, token]))[0] for token in range(8))
        assert total == pytest.approx(1)


def test_an_order_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="order is 6"):
        NGrams(np.zeros(9, dtype=int), 4096, 6)
