"""Measuring: against independent computations, resumable, and honest about nothing."""

import json

import pytest

from iti_llama.toolkit.bundled.tasks import corpus_set
from iti_llama.toolkit.foundation.intervals import estimate
from iti_llama.toolkit.measure.divergence import Text, measure_divergence
from iti_llama.toolkit.measure.sweep import Point, Rates, alpha_of_kl, apply, beats_control, choose, control


def test_the_alpha_of_a_kl_budget_is_at_the_budget(tiny, tokenizer):
    texts = [Text("def f(x):\n", "return x\n", "a"), Text("def gg(y):\n", "y += 1\nreturn y\n", "b")]
    alpha, kl = alpha_of_kl(tiny, tokenizer, texts, 0.05)
    assert 0.9 * 0.05 < kl <= 0.05
    (above,) = measure_divergence(tiny, tokenizer, texts, [1.05 * alpha])
    assert above.kl.mean > 0.05
    for budget in (0, 1e-30, 1e9):
        with pytest.raises(ValueError, match="KL budget is"):
            alpha_of_kl(tiny, tokenizer, texts, budget)


def rates(correct, target):
    n = 100
    both = max(0, correct + target - 1)
    return Rates(*(estimate([i < round(n * share) for i in range(n)], range(n)) for share in (correct, target, both)))


def point(alpha, correct, target, against=1.0, against_correct=1.0, kl=0.0):
    return Point(8, alpha, "all", rates(correct, target), rates(1, 0), rates(against_correct, against), kl, kl)


def test_the_rule_takes_the_middle_of_a_plateau_inside_the_guard():
    line = [point(0, 1, 0), point(1, 1, 0.5), point(2, 1, 1), point(3, 1, 1), point(4, 1, 1), point(5, 0.9, 1)]
    assert choose(line).alpha == 3
    assert choose(line, guard=0.2).alpha in (3, 4)
    assert choose([point(0, 1, 0), point(1, 0.9, 1)]) is None
    assert choose([point(0, 1, 0.5), point(1, 1, 0.2)]) is None
    assert choose([point(0, 1, 0), point(1, 1, 0.8, kl=0.3)], kl_guard=0.1) is None
    both_ways = [point(0, 1, 0), point(1, 1, 0.9), point(2, 1, 0.9, against=0.2)]
    assert choose(both_ways).alpha == 2


def test_a_point_that_random_directions_reach_is_not_chosen():
    good = point(1, 1, 0.9)
    assert beats_control(good, [1], [[rates(1, 0.1), rates(1, 0.0)]])
    assert not beats_control(good, [1], [[rates(1, 0.1), rates(1, 0.0)], [rates(1, 0.9), rates(1, 0.0)]])


def test_the_control_is_measured_at_both_signs(bundled, sandbox):
    model, tokenizer = bundled
    found = control(model, tokenizer, corpus_set("validation", 4, 0), 5, "generated", [0.5, 1.0], sandbox, draws=2)
    assert [len(draw) for draw in found] == [4, 4]
    assert (model.iti_top_k, model.iti_scope) == (None, "all")


def test_a_choice_is_written_into_the_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"iti_alpha": 1.0, "iti_scope": "all", "other": 5}))
    chosen = Point(4, 0.8, "generated", *[rates(1, 1)] * 3, 0.0, 0.0)
    apply(tmp_path, chosen, heads=8)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields == {"iti_alpha": 0.8, "iti_scope": "generated", "iti_top_k": 4, "other": 5}
    apply(tmp_path, chosen, heads=4)
    assert json.loads((tmp_path / "config.json").read_text())["iti_top_k"] is None
