"""The card's table has four rows and four columns; the random draws are one row."""

import json
import re

import numpy as np
import pytest
from reference import tiny_tokenizer
from scipy.stats import ttest_1samp

from iti_llama.toolkit.measure.bundled_tasks import corpus_set
from iti_llama.toolkit.measure.conditions import Condition, standard_conditions
from iti_llama.toolkit.measure.evaluate import Answers, ConditionResult, divergence_of, evaluate, measure
from iti_llama.toolkit.measure.grade import Grade
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
    own = f"{model.iti_alpha:g}"
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| plain (alpha 0)", f"| steered (alpha {own})", f"| random directions (alpha {own})",
        f"| minus alpha (alpha -{own})",
    ]  # fmt: skip
    assert all(line.count("|") == 6 for line in lines)
    assert lines[4].endswith("| 8 |") and lines[3].endswith("| 4 |")
    assert rows[1].correct.percent() in lines[3]
    assert len(evaluation_table(rows, "idiomatic").splitlines()) == 2 + len(conditions)
    assert f"{divergence['steered'].kl.mean:.3f}" in divergence_table({"plain code": divergence})


@pytest.fixture(scope="module")
def of_pairs(taught, held_out_pairs):
    tasks = held_out_pairs("test")
    conditions = standard_conditions(taught, 2.0, asked=False)
    rows, answers = evaluate(taught, tiny_tokenizer(), tasks, conditions, None)
    divergence = divergence_of(taught, tiny_tokenizer(), tasks.texts["label 0 texts"], conditions)
    return tasks, rows, answers, divergence


def test_of_pairs_the_summary_has_the_mean_change_of_each_pairs_log_odds(of_pairs):
    tasks, rows, answers, divergence = of_pairs
    odds = {name: np.array(list(map(float, own.completions))) for name, own in answers.items()}
    plain, steered, random, minus = summarise(rows, answers, tasks, divergence)
    assert plain.odds_change.mean == 0 and plain.kl is None
    assert steered.odds_change.mean == pytest.approx((odds["steered"] - odds["plain"]).mean())
    assert minus.odds_change.mean == pytest.approx((odds["minus alpha"] - odds["plain"]).mean())
    pooled = np.concatenate([odds[f"random {i}"] - odds["plain"] for i in (1, 2, 3)])
    assert random.odds_change.mean == pytest.approx(pooled.mean()) and random.odds_change.n == len(pooled) == 24
    assert random.odds_change.groups == 8 and random.target.n == 24
    assert random.kl == pytest.approx(np.mean([divergence[f"random {i}"].kl.mean for i in (1, 2, 3)]))
    # the interval: about Student's, since there are few pairs
    interval = ttest_1samp(odds["steered"] - odds["plain"], 0).confidence_interval()
    assert [steered.odds_change.low, steered.odds_change.high] == pytest.approx(
        list(interval), abs=0.15 * (interval.high - interval.low)
    )
    assert [row.sound for row in (plain, steered, random, minus)] == [None] * 4


def test_tables_of_pairs_have_log_odds_and_nothing_that_is_sound(of_pairs):
    tasks, rows, answers, divergence = of_pairs
    table = evaluation_table(rows, tasks.target, divergence, tasks.sound).splitlines()
    assert "| scored |" in table[0] and "| log-odds |" in table[0]
    assert rows[1].measures["log-odds"].plain() in table[3]
    card = summary_table(summarise(rows, answers, tasks, divergence), tasks.target, tasks.sound).splitlines()
    assert card[0].startswith("| | prefers label 1 | change of its log-odds, nats |")


def test_a_target_with_a_bar_does_not_make_columns_of_the_full_table(of_pairs):
    tasks, _, _, _ = of_pairs
    grades = [Grade(True, "", True)] * len(tasks)
    answers = Answers("plain", 1, ["a"] * len(tasks), grades)
    row: ConditionResult = measure(Condition("plain"), answers, answers, tasks)
    lines = evaluation_table([row], "matches a|b", sound="intact").splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
