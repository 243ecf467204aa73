"""Directions of another machine are compared by number."""

from dataclasses import replace

import pytest
from reference import some_directions

from iti_llama.examples.bundled_model.compare_directions import difference


def test_a_last_bit_is_a_small_number_and_another_head_is_an_error(base):
    one = some_directions(base.config)
    moved = replace(one, sigma=one.sigma * (1 + 2e-7))
    assert difference(one, one) == 0 < difference(one, moved) < 1e-6
    assert difference(one, replace(one, sigma=one.sigma + 0.5)) > 0.1
    with pytest.raises(ValueError, match="the heads differ"):
        difference(one, replace(one, heads=one.heads.flip(0)))
    with pytest.raises(ValueError, match="the provenance differs"):
        difference(one, replace(one, provenance={"seed": "1"}))
