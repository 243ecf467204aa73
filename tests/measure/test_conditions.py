"""Measuring: against independent computations, resumable, and honest about nothing."""

from iti_llama.toolkit.bundled.tasks import corpus_set
from iti_llama.toolkit.measure.conditions import standard_conditions
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
