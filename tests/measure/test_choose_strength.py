"""A sweep from grid to choice, on the bundled model."""

import json

import pytest

from iti_llama.toolkit.bundled.tasks import corpus_set
from iti_llama.toolkit.measure.choose_strength import Grid, choose_strength


def test_a_grid_is_swept_chosen_from_and_written_with_few_digits(bundled, sandbox):
    model, tokenizer = bundled
    before = (model.iti_alpha, model.iti_top_k, model.iti_scope)
    tasks, fresh = corpus_set("validation", 8, seed=2), corpus_set("validation", 6, seed=9)
    choice = choose_strength(model, tokenizer, tasks, Grid([0.5, 1.0]), sandbox, confirm=fresh)
    assert [point.alpha for point in choice.points] == [0, 0.5, 1.0] and choice.best.alpha in (0.5, 1.0)
    assert choice.why == "" and [row.condition for row in choice.confirmed] == ["plain", "steered"]
    assert (model.iti_alpha, model.iti_top_k, model.iti_scope) == before
    found = json.loads(json.dumps(choice.to_dict()))
    assert found["chosen"]["alpha"] == choice.best.alpha
    for point in found["points"]:
        assert float(f"{point['kl']:.2g}") == point["kl"]


def test_a_strength_that_does_nothing_is_not_chosen(bundled, sandbox):
    model, tokenizer = bundled
    choice = choose_strength(model, tokenizer, corpus_set("validation", 4, seed=2), Grid([1e-4]), sandbox)
    assert choice.best is None and "nothing is applied" in choice.why and choice.to_dict()["chosen"] is None


def test_grids_that_cannot_be_swept_are_refused():
    with pytest.raises(ValueError, match="expected positive numbers"):
        Grid([0.0, 1.0])
    with pytest.raises(ValueError, match="one K and one scope"):
        Grid([1.0], scopes=("all", "generated"), kl_budget=0.1)
