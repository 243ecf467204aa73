"""Measuring: against independent computations, resumable, and honest about nothing."""

import pytest
from reference import some_directions, tiny_config

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.measure.bundled_tasks import corpus_set
from iti_llama.toolkit.measure.conditions import Condition, standard_conditions, under
from iti_llama.toolkit.measure.evaluate import evaluate
from iti_llama.toolkit.measure.tables import evaluation_table


def test_the_conditions_hold_a_control_and_leave_the_model_as_it_was(bundled, sandbox):
    model, tokenizer = bundled
    conditions = standard_conditions(model, draws=1)
    assert [c.name for c in conditions] == [
        "plain", "steered", "minus alpha", "random 1", "asked in words", "asked in words, minus alpha",
    ]  # fmt: skip
    before = model.iti_directions
    rows, answers = evaluate(model, tokenizer, corpus_set("test", 6, seed=1), conditions, sandbox)
    assert model.iti_directions is before
    table = evaluation_table(rows, "idiomatic")
    assert all(name in answers and f"| {name} |" in table for name in (c.name for c in conditions))
    assert rows[0].correct_change.mean == 0
    row = next(row for row in rows if row.condition == "steered")
    assert len(row.lost) - len(row.gained) == round(6 * (rows[0].correct.mean - row.correct.mean))


@pytest.mark.parametrize("layers,fails", [(7, ValueError), (4, RuntimeError)])
def test_a_condition_that_fails_leaves_the_model_as_it_was(adapter_dir, layers, fails):
    model = ITILlamaForCausalLM.from_pretrained(adapter_dir, iti_top_k=2)
    before, directions = model.iti_directions, some_directions(tiny_config(num_hidden_layers=layers), k=1)
    with pytest.raises(fails), under(model, Condition("x", 1.0, directions)):
        raise RuntimeError
    assert (model.iti_top_k, model.iti_directions) == (2, before)
