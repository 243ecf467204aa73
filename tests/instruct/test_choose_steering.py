"""Which strength is chosen, and which are tried between those that the guards let through and those that they do
not. The answers are given, so that each guard can be seen alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from iti_llama.toolkit.instruct import choose_steering as module
from iti_llama.toolkit.instruct.choose_steering import Validation, alphas_between, choose_steering


REQUESTS = [f"request {i}" for i in range(40)]

GOOD, LOOP, BESIDE = "short, and to the point", "short, " + "and on " * 20, "short, of something else"


def chosen(monkeypatch, steered, perplexity=1.0, plain_answers=1.0, given=True):
    """The choice where the answers at each strength are `steered[alpha]`. One with a "short" is as told.
    given: these strengths alone are tried."""
    moved = SimpleNamespace(nll_change=SimpleNamespace(mean=np.log(perplexity)), kl=SimpleNamespace(mean=0.1))
    monkeypatch.setattr(module, "measure_divergence", lambda model, tokenizer, texts, alphas: [moved] * len(alphas))
    answers_own = lambda model, tokenizer, asked, texts: [  # noqa: E731
        plain_answers * (text != BESIDE) for asked, text in zip(asked, texts, strict=True)
    ]
    monkeypatch.setattr(module, "answering", answers_own)
    asked = []

    def to(name, prompts, alpha):
        asked.append(alpha)
        return steered[alpha]

    answers = SimpleNamespace(model=None, tokenizer=None, to=to)
    classifier = SimpleNamespace(log_odds=lambda texts: np.array([float(text.count("short")) for text in texts]))
    validation = Validation(REQUESTS, REQUESTS, ["long and thorough"] * 40, ["short"] * 40, REQUESTS)
    return choose_steering(answers, sorted(steered) if given else None, validation, classifier, 0.05, 1.1), asked


def test_the_mildest_strength_that_keeps_all_is_taken_and_no_stronger_one_is_tried(monkeypatch):
    half = [GOOD] * 20 + ["long"] * 20
    steering, asked = chosen(monkeypatch, {0.5: half, 1.0: [GOOD] * 40, 1.2: [GOOD] * 40})
    assert steering.best.alpha == 1.0 and not steering.why and asked == [0.5, 1.0]
    assert steering.best.kept.mean == 1 and steering.tried[0].kept.mean == 0.5


def keeps(share: float) -> list[str]:
    """Answers that keep this share of what being told does; each "short" is as far as one told answer goes."""
    count = round(40 * share)
    return ["short, " + GOOD] * max(0, count - 40) + [GOOD] * min(count, 80 - count) + ["long"] * max(0, 40 - count)


@pytest.mark.parametrize(
    "tried,asked,best",
    [
        ({0.85: keeps(0.5), 1.0: keeps(0.75), 1.2: keeps(1.25), 1.1: keeps(0.95)}, [0.85, 1.0, 1.2, 1.1], 1.1),
        ({0.85: keeps(1.7), 0.5: keeps(0.9)}, [0.85, 0.5], 0.5),  # the line begins at the plain model
        ({0.85: keeps(0.95), 1.0: keeps(1.4)}, [0.85, 1.0], 0.85),  # nearest to one that was tried already
        ({0.85: keeps(0.5), 1.0: keeps(1.4), 0.95: [*keeps(1.0)[3:], LOOP, LOOP, LOOP]}, [0.85, 1.0, 0.95], 1.0),
        ({0.85: keeps(1.6), 0.55: keeps(0.3)}, [0.85, 0.55], 0.85),  # the line can be wrong
        (  # the guards let neither through, so milder ones are tried
            {0.85: [*keeps(1.7)[3:], LOOP, LOOP, LOOP], 0.5: [LOOP] * 40, 0.15: keeps(0.2), 0.35: keeps(0.6)},
            [0.85, 0.5, 0.15, 0.35],
            0.35,
        ),
    ],
)
def test_the_strength_that_keeps_all_is_looked_for_on_a_straight_line(monkeypatch, tried, asked, best):
    steering, answered = chosen(monkeypatch, tried, given=False)
    assert answered == asked and steering.best.alpha == best and not steering.why


def test_nothing_is_tried_beyond_a_strength_that_loses_more_than_twice_what_may_be_lost(monkeypatch):
    lost = {count: [*keeps(0.5)[count:], *[LOOP] * count] for count in (4, 5)}
    steering, asked = chosen(
        monkeypatch, {0.85: lost[4], 1.0: lost[5], 0.3: keeps(0.2), 0.55: keeps(0.4)}, given=False
    )
    assert asked == [0.85, 1.0, 0.3, 0.55] and steering.best.alpha == 0.55


@pytest.mark.parametrize("bad", [LOOP, BESIDE])
@pytest.mark.parametrize("count,best", [(2, 1.0), (3, 0.5)])
def test_at_most_a_twentieth_of_the_answers_may_become_loops_or_miss_the_point(bad, count, best, monkeypatch):
    half = [GOOD] * 20 + ["long"] * 20
    steering, _ = chosen(monkeypatch, {0.5: half, 1.0: [GOOD] * (40 - count) + [bad] * count})
    assert steering.best.alpha == best


def test_a_share_to_the_point_that_is_chance_for_plain_answers_guards_nothing(monkeypatch):
    steering, _ = chosen(monkeypatch, {1.0: [BESIDE] * 40}, plain_answers=0.5)
    assert steering.best.alpha == 1.0 and not steering.why


def test_nothing_is_answered_beyond_the_guard_on_perplexity(monkeypatch):
    steering, asked = chosen(monkeypatch, {0.5: [GOOD] * 40}, perplexity=1.2)
    assert asked == [] and steering.best.kept is None and "0.5" in steering.why


@pytest.mark.parametrize(
    "alphas,inside,between",
    [
        ([0.6, 0.9, 1.3, 1.8], [True, True, True, False], [1.45, 1.65]),
        ([0.6, 0.9, 1.3, 1.8], [False, False, False, False], [0.2, 0.4]),
        ([0.6, 0.9, 1.3, 1.8], [True, False, True, False], [0.7, 0.8]),
        ([0.6, 0.9, 1.3, 1.8], [True, True, True, True], []),
        ([0.1, 0.15], [True, False], []),
    ],
)
def test_two_strengths_lie_between_the_last_inside_the_guards_and_the_first_beyond(alphas, inside, between):
    assert alphas_between(alphas, inside) == pytest.approx(between)
