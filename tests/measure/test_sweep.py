"""Measuring: against independent computations, resumable, and honest about nothing."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from reference import tiny_tokenizer

from iti_llama.toolkit.foundation.intervals import estimate
from iti_llama.toolkit.measure.bundled_tasks import corpus_set
from iti_llama.toolkit.measure.divergence import Text, measure_divergence
from iti_llama.toolkit.measure.settings import Grid
from iti_llama.toolkit.measure.sweep import (
    Point,
    Rates,
    alpha_of_kl,
    beats_control,
    choose_point,
    control,
    even_grid,
    sweep,
)


def test_the_alpha_of_a_kl_budget_is_at_the_budget(tiny, tokenizer):
    texts = [Text("def f(x):\n", "return x\n", "a"), Text("def gg(y):\n", "y += 1\nreturn y\n", "b")]
    alpha, kl = alpha_of_kl(tiny, tokenizer, texts, 0.05)
    assert 0.9 * 0.05 < kl <= 0.05
    (above,) = measure_divergence(tiny, tokenizer, texts, [1.05 * alpha])
    assert above.kl.mean > 0.05
    for budget in (0, 1e-30, 1e9):
        with pytest.raises(ValueError, match="KL budget is"):
            alpha_of_kl(tiny, tokenizer, texts, budget)


@pytest.mark.parametrize("kl_guard", [None, 0.02])
def test_an_even_grid_goes_from_nought_to_the_first_damage(kl_guard, taught, held_out_pairs):
    tasks, before = held_out_pairs("validation"), (taught.iti_top_k, taught.iti_scope)
    grid = even_grid(taught, tiny_tokenizer(), tasks, [2, 6], Grid(kl_guard=kl_guard))
    assert (taught.iti_top_k, taught.iti_scope) == before
    assert len(grid) == 8 and np.diff([0, *grid]) == pytest.approx(grid[0], rel=0.02)
    inside = []
    for taught.iti_top_k in (2, 6):
        texts, prompts = (
            measure_divergence(taught, tiny_tokenizer(), tasks.texts[name], [grid[5], 1.03 * grid[7]])
            for name in ("label 0 texts", "prompts")
        )
        kept = [math.exp(d.nll_change.mean) <= 1.1 for d in prompts]
        inside.append(
            [own and (kl_guard is None or d.kl.mean <= kl_guard) for own, d in zip(kept, texts, strict=True)]
        )
    taught.iti_top_k = before[0]
    assert [any(own) for own in zip(*inside, strict=True)] == [True, False]


def rates(correct, target):
    n = 100
    both = max(0, correct + target - 1)
    return Rates(*(estimate([i < round(n * share) for i in range(n)], range(n)) for share in (correct, target, both)))


def point(alpha, correct, target, against=1.0, against_correct=1.0, kl=0.0, perplexity=1.0):
    own, asked = rates(correct, target), rates(against_correct, against)
    return Point(8, alpha, "all", own, rates(1, 0), asked, kl, kl, perplexity)


def test_the_rule_takes_the_most_correct_answers_in_the_target_then_the_least_divergence():
    line = [point(0, 1, 0), point(1, 1, 0.5), point(2, 1, 1, kl=0.2), point(3, 1, 1, kl=0.1), point(4, 0.98, 1)]
    assert choose_point(line, Grid()).alpha == 3
    assert choose_point([*line, point(5, 1, 1, kl=0.1001)], Grid()).alpha == 3
    assert choose_point([*line, point(2.5, 1, 1, kl=0.1001)], Grid()).alpha == 2.5
    assert choose_point([point(0, 1, 0), point(1, 1, 0.9), point(2, 0.94, 1)], Grid()).alpha == 1
    assert choose_point([point(0, 1, 0), point(1, 1, 0.8), point(2, 0.94, 0.94)], Grid()).alpha == 1
    assert choose_point([point(0, 1, 0), point(1, 1, 0.8), point(2, 0.94, 0.94)], Grid(guard=0.1)).alpha == 2
    assert choose_point([point(0, 1, 0), point(1, 0.9, 1)], Grid()) is None
    assert choose_point([point(0, 1, 0.5), point(1, 1, 0.2)], Grid()) is None
    assert choose_point([point(0, 1, 0), point(1, 1, 0.8, kl=0.3)], Grid(kl_guard=0.1)) is None
    assert (
        choose_point([point(0, 1, 0), point(1, 1, 0.8, perplexity=1.1), point(2, 1, 1, perplexity=1.11)], Grid()).alpha
        == 1
    )
    assert (
        choose_point(
            [point(0, 1, 0), point(1, 1, 0.8), point(2, 1, 1, perplexity=1.11)], Grid(perplexity_guard=1.2)
        ).alpha
        == 2
    )


def test_what_minus_alpha_does_decides_nothing():
    milder = [point(0, 1, 0), point(1, 1, 0.9, kl=0.1), point(2, 1, 0.9, against=0.2, kl=0.2)]
    assert choose_point(milder, Grid()).alpha == 1
    assert choose_point([milder[0], point(2, 1, 0.9, against_correct=0.1)], Grid()).alpha == 2


def test_a_point_that_random_directions_reach_is_not_chosen():
    good = point(1, 1, 0.9)
    assert beats_control(good, [1], [[rates(1, 0.1), rates(1, 0.0)]])
    assert not beats_control(good, [1], [[rates(1, 0.1), rates(1, 0.0)], [rates(1, 0.9), rates(1, 0.0)]])


def test_the_control_is_measured_at_both_signs(bundled, sandbox):
    model, tokenizer = bundled
    found = control(model, tokenizer, corpus_set("validation", 4, 0), 5, "generated", [0.5, 1.0], sandbox, draws=2)
    assert [len(draw) for draw in found] == [4, 4]
    assert (model.iti_top_k, model.iti_scope) == (None, "all")


def odd_rates(odds):
    ones = estimate([1] * len(odds), range(len(odds)))
    return Rates(ones, ones, ones, estimate(odds, range(len(odds))), tuple(odds))


def odd_point(alpha, odds, kl=0.0, against=None):
    return Point(8, alpha, "all", odd_rates(odds), odd_rates(odds), against and odd_rates(against), kl, kl, 1.0)


def test_of_pairs_the_largest_log_odds_inside_the_kl_guard_are_chosen():
    line = [odd_point(0, [-1, -1]), odd_point(1, [0, 0], 0.1), odd_point(2, [3, 3], 0.2), odd_point(3, [5, 5], 0.4)]
    assert choose_point(line, Grid(kl_guard=0.25)).alpha == 2
    assert choose_point(line, Grid()).alpha == 3
    assert choose_point(line, Grid(kl_guard=0.05)) is None
    assert choose_point([line[0], odd_point(1, [-2, -1])], Grid()) is None
    alike = [odd_point(0, [0, 0]), odd_point(1, [1, 1], 0.2), odd_point(2, [1, 1], 0.1, against=[4, 4])]
    assert choose_point(alike, Grid()).alpha == 2


def test_of_pairs_the_control_is_beaten_pair_by_pair():
    """Pairs that differ much from each other, and a gain of 0.5 on every one: intervals overlap, differences do
    not."""
    rng = np.random.default_rng(0)
    level, groups = rng.normal(0, 5, 40), [f"g{i}" for i in range(40)]
    steered, random = odd_point(1, level + 0.5), odd_rates(level + rng.normal(0, 0.1, 40))
    assert steered.at.odds.low < random.odds.high
    assert beats_control(steered, [1], [[random, random]], groups)
    other = odd_rates(level + 0.6)
    assert not beats_control(steered, [1], [[random, random], [other, other]], groups)


def test_a_sweep_of_pairs_has_log_odds_at_every_point_of_both_signs(taught, held_out_pairs, sandbox):
    tasks, before = held_out_pairs("validation", "# x"), (taught.iti_top_k, taught.iti_scope)
    points = sweep(taught, tiny_tokenizer(), tasks, [2, 6], [1.0, 2.0], ["all", "generated"], sandbox)
    assert [(p.top_k, p.alpha, p.scope) for p in points] == [
        (2, 0, "all"), (2, 1, "all"), (2, 2, "all"), (6, 1, "all"), (6, 2, "all"),
        (2, 1, "generated"), (2, 2, "generated"), (6, 1, "generated"), (6, 2, "generated"),
    ]  # fmt: skip
    assert (taught.iti_top_k, taught.iti_scope) == before
    for rates in (rates for p in points for rates in (p.at, p.minus, p.against)):
        assert rates.odds.mean == pytest.approx(np.mean(rates.odds_by_task)) and rates.odds.n == len(tasks)
        assert rates.target.mean == np.mean(np.array(rates.odds_by_task) > 0) and rates.correct.mean == 1
    assert points[0].at.odds_by_task == points[0].minus.odds_by_task != points[0].against.odds_by_task
    assert points[0].kl == 0 and all(p.kl > 0 and p.kl_minus > 0 for p in points[1:])
    found = json.loads(json.dumps([p.to_dict() for p in points]))
    assert found[3]["at"]["odds"]["mean"] == points[3].at.odds.mean and "odds_by_task" not in found[3]["at"]
    bare = sweep(taught, tiny_tokenizer(), replace(tasks, asked=None), [6], [1.0], ["all"], sandbox)
    assert all(p.against is None and p.to_dict()["against"] is None for p in bare)
    assert bare[1].at.odds_by_task == pytest.approx(points[3].at.odds_by_task, abs=2e-4)
    others = measure_divergence(taught, tiny_tokenizer(), tasks.texts["prompts"], [0.0, 1.0, 2.0])
    assert [p.perplexity for p in points[3:5]] == pytest.approx([math.exp(d.nll_change.mean) for d in others[1:]])
    assert points[0].perplexity == 1 != points[4].perplexity
