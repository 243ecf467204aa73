"""Choose a strength on requests that nothing was fitted on.

The model answers them at one strength after the other, the mildest first, until its answers keep `ENOUGH` of the
instruction's effect, or a guard is far behind: at most `guard` fewer answers than plain ones may be broken or miss
their own request, and the perplexity of texts that say nothing of the instruction has a guard of its own. A straight
line from the strength before says where `ENOUGH` is kept. That strength is tried as well. Of the two, the rule takes
the one inside the guards whose answers keep nearest to `ENOUGH`.

If neither is inside, two more are tried, between the last strength inside the guards and the first beyond. The rule
then takes the strength inside the guards that keeps most, if that is more than nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from ..foundation.intervals import Estimate, estimate
from ..measure.answering import answering
from ..measure.degenerate import degenerate
from ..measure.divergence import Text, measure_divergence
from ..measure.kept import AnswerClassifier, kept_share
from ..measure.settings import CHANCE
from .own_answers import OwnAnswers


ALPHAS = (0.85, 1.0, 1.2, 1.4)
"""The strengths that are tried: shares of the shift that was distilled."""

ENOUGH = 1.0
"""The share of the effect to keep: more costs more, and nobody asked for it."""


@dataclass(frozen=True)
class Tried:
    """A strength: what the answers keep, the shares that are intact and that answer their own request, and what it
    costs on the requests, as texts. `kept` and the shares are None where nothing was answered because the perplexity
    is beyond the guard."""

    alpha: float
    perplexity: float
    kl: float
    kept: Estimate | None
    intact: Estimate | None
    answering: Estimate | None

    def to_dict(self) -> dict:
        """As JSON types, like the points of a sweep."""
        return {
            "alpha": self.alpha,
            "perplexity": round(self.perplexity, 3),
            "kl": float(f"{self.kl:.2g}"),
            "kept": self.kept and asdict(self.kept),
            "answering": self.answering and asdict(self.answering),
            "at": {"correct": asdict(self.intact)} if self.intact else None,
        }


@dataclass(frozen=True)
class Steering:
    """The choice. why: in words, why nothing was chosen; then `best` is the mildest point that was tried. plain: the
    point at strength 0."""

    best: Tried
    why: str
    tried: Sequence[Tried]
    plain: Tried


@dataclass(frozen=True)
class Validation:
    """The requests to choose on: what was asked, the prompts without the instruction, the answers without it and with
    it, and the groups."""

    asked: Sequence[str]
    bare: Sequence[str]
    plain: Sequence[str]
    told: Sequence[str]
    groups: Sequence[str]


def choose_steering(
    answers: OwnAnswers,
    alphas: Sequence[float] | None,
    validation: Validation,
    classifier: AnswerClassifier,
    guard: float,
    perplexity_guard: float,
    progress: Callable[[str, int], None] = lambda step, rows: None,
) -> Steering:
    """The choice by this module's rule, for the directions of the model that `answers` asks. alphas: the strengths to
    try and to choose from; None for `ALPHAS` and those between."""
    model, tokenizer = answers.model, answers.tokenizer
    plain_odds, told_odds = classifier.log_odds(validation.plain), classifier.log_odds(validation.told)
    neutral = [Text("", prompt, group) for prompt, group in zip(validation.bare, validation.groups, strict=True)]

    def measure(alpha: float, perplexity: float, kl: float, texts: Sequence[str]) -> Tried:
        groups, own_request = validation.groups, answering(model, tokenizer, validation.asked, texts)
        return Tried(
            alpha,
            perplexity,
            kl,
            kept_share(classifier.log_odds(texts), plain_odds, told_odds, groups),
            estimate([not degenerate(text) for text in texts], groups),
            estimate(own_request, groups),
        )

    def try_at(alphas: Sequence[float]) -> list[Tried]:
        if not alphas:
            return []
        points: list[Tried] = []
        for alpha, moved in zip(alphas, measure_divergence(model, tokenizer, neutral, alphas), strict=True):
            if any(keeps_all(point) or not is_inside(point, 2 * guard) for point in points):
                progress("not needed", len(validation.bare))
                continue
            ratio = math.exp(moved.nll_change.mean)
            if ratio <= perplexity_guard:
                texts = answers.to(f"alpha {alpha:g}", validation.bare, alpha)
                points.append(measure(alpha, ratio, moved.kl.mean, texts))
            else:
                progress("left out", len(validation.bare))
                points.append(Tried(alpha, ratio, moved.kl.mean, None, None, None))
        return points

    def is_inside(point: Tried, guard: float = guard) -> bool:
        if point.kept is None or point.intact.mean < plain.intact.mean - guard - 1e-9:
            return False
        return plain.answering.low <= CHANCE or point.answering.mean >= plain.answering.mean - guard - 1e-9

    def useful() -> list[Tried]:
        return [point for point in tried if is_inside(point) and point.kept.low > 0]

    plain = measure(0.0, 1.0, 0.0, validation.plain)
    tried, aim = try_at(sorted(alphas or ALPHAS, key=abs)), None
    if alphas is None and any(map(keeps_all, tried)):
        aim = alpha_that_keeps([point for point in (plain, *tried) if point.kept is not None][-2:])
        tried += try_at([aim] if all(point.alpha != aim for point in tried) else [])
    tried.sort(key=lambda point: abs(point.alpha))
    whole = [point for point in useful() if point.alpha == aim or keeps_all(point)]
    if alphas is None and not whole:
        tried += try_at(alphas_between([point.alpha for point in tried], list(map(is_inside, tried))))
        tried.sort(key=lambda point: abs(point.alpha))
    if whole:
        return Steering(min(whole, key=lambda point: abs(point.kept.mean - ENOUGH)), "", tried, plain)
    if useful():
        return Steering(max(useful(), key=lambda point: point.kept.mean), "", tried, plain)
    why = (
        f"no strength of {', '.join(f'{point.alpha:g}' for point in tried)} clearly goes towards the instruction "
        f"with as many answers intact and to the point as the guards ask (at most {100 * guard:g} points lost, "
        f"perplexity at most {perplexity_guard:g} times plain's)"
    )
    return Steering(min(tried, key=lambda point: point.kl), why, tried, plain)


def keeps_all(point: Tried) -> bool:
    """Whether the answers keep `ENOUGH`, inside the guards or not."""
    return point.kept is not None and point.kept.mean >= ENOUGH


def alpha_that_keeps(points: Sequence[Tried]) -> float:
    """Where the straight line through two points, of which the second is the first that keeps `ENOUGH`, reaches it, in
    steps of 0.05."""
    (low, high), (less, more) = [point.alpha for point in points], [point.kept.mean for point in points]
    return round(20 * (low + (high - low) * (ENOUGH - less) / (more - less))) / 20


def alphas_between(alphas: Sequence[float], inside: Sequence[bool]) -> list[float]:
    """Two strengths between the last one before the first that is not `inside` the guards (0 if that is the first) and
    that one, a third and two thirds of the way, in steps of 0.05. None if all are inside, or they lie too close."""
    if all(inside):
        return []
    first = list(inside).index(False)
    low, high = ([0.0, *alphas])[first], alphas[first]
    between = {round(20 * (low + (high - low) * share)) / 20 for share in (1 / 3, 2 / 3)}
    return sorted(between - {low, high})
