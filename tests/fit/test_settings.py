"""Settings of a fit: what is allowed up to its edges, and what a refusal says."""

import itertools
import math
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from iti_llama.toolkit.fit.settings import METHODS, RANKINGS, FitSettings


def test_every_method_goes_with_every_ranking():
    made = {FitSettings(method=method, rank_by=score) for method, score in itertools.product(METHODS, RANKINGS)}
    assert len(made) == len(METHODS) * len(RANKINGS)


@pytest.mark.parametrize(
    "fields", [{"top_k": 1}, {"top_k": None}, {"folds": 2}, {"test_share": 1e-3}, {"test_share": 0.999}]
)
def test_the_edges_are_allowed(fields):
    assert asdict(FitSettings(**fields)) == asdict(FitSettings()) | fields


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"method": "Random"}, "method is 'Random'; expected one of mean-difference, probe-weights, random"),
        ({"rank_by": None}, "rank_by is None; expected one of auc, accuracy"),
        ({"top_k": -3}, "top_k is -3; expected 1 or more"),
        ({"folds": 0}, "folds is 0; expected 2 or more"),
        ({"test_share": 0}, "test_share is 0; expected a share between 0 and 1"),
        ({"test_share": -0.25}, "test_share is -0.25; expected a share between 0 and 1"),
        ({"test_share": math.nan}, "test_share is nan; expected a share between 0 and 1"),
    ],
)
def test_a_refusal_says_the_value_found_and_the_value_wanted(fields, message):
    with pytest.raises(ValueError) as error:
        FitSettings(**fields)
    assert str(error.value) == message


def test_settings_do_not_change_and_a_changed_copy_is_checked_too():
    settings = FitSettings(top_k=5)
    with pytest.raises(FrozenInstanceError):
        settings.top_k = 6
    assert FitSettings(**asdict(settings)) == settings
    with pytest.raises(ValueError, match="folds is 1"):
        replace(settings, folds=1)
