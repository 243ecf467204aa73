"""The card's table has four rows and four columns; the random draws are one row."""

import json

from iti_llama.toolkit.bundled.tasks import corpus_set
from iti_llama.toolkit.measure.conditions import standard_conditions
from iti_llama.toolkit.measure.evaluate import divergence_of, evaluate
from iti_llama.toolkit.measure.summary import Summary, summary_table
from iti_llama.toolkit.measure.tables import divergence_table, evaluation_table, summarise


def test_tables_say_what_was_measured(bundled, sandbox):
    model, tokenizer = bundled
    tasks = corpus_set("validation", 4, seed=5)
    conditions = standard_conditions(model, draws=2)
    rows, answers = evaluate(model, tokenizer, tasks, conditions, sandbox)
    divergence = divergence_of(model, tokenizer, tasks.texts["plain code"], conditions)
    summary = summarise(rows, answers, tasks, divergence)
    assert [Summary.from_dict(json.loads(json.dumps(row.to_dict()))).target for row in summary] == [
        row.target for row in summary
    ]
    lines = summary_table(summary, "idiomatic", "correct").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| plain (alpha 0)", "| steered (alpha 1)", "| random directions (alpha 1)", "| minus alpha (alpha -1)",
    ]  # fmt: skip
    assert all(line.count("|") == 6 for line in lines)
    assert lines[4].endswith("| 8 |") and lines[3].endswith("| 4 |")
    assert rows[1].correct.percent() in lines[3]
    assert len(evaluation_table(rows, "idiomatic").splitlines()) == 2 + len(conditions)
    assert f"{divergence['steered'].kl.mean:.3f}" in divergence_table({"plain code": divergence})
