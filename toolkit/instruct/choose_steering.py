"""Choose where to read, how many heads, which scope and which strength, on requests that nothing was fitted on.

Cheap things come first. Every place to read, number of heads and scope is compared by likeness at a small strength,
where nothing is generated. Then the best candidates of the two best places to read generate answers, at the strengths
that keep the perplexity of texts that say nothing of the instruction within its guard. The rule takes the points whose
answers are intact as often as the guard asks and that keep `ENOUGH` of the instruction's effect. Among these it picks
the one that diverges least from the plain model; if none keeps so much, the one that keeps most, if that is more than
nothing. If a guard ended the strengths before one kept so much, two more are tried between the last one inside the
guards and the first beyond.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from transformers import PreTrainedTokenizerBase

from iti_llama import ITIDirections, ITILlamaForCausalLM

from ..data.labelled_set import Example
from ..fit.fit_directions import fit, to_directions
from ..fit.positions import Policy
from ..fit.record_activations import capture
from ..fit.settings import FitSettings
from ..foundation.intervals import Estimate, estimate
from ..measure.degenerate import degenerate
from ..measure.divergence import Text, measure_divergence
from ..measure.kept import AnswerClassifier, kept_share
from ..measure.likeness import Likeness
from .own_answers import OwnAnswers


@dataclass(frozen=True)
class Reading:
    """A place where the difference is read. bare: answers are read after the prompts without the instruction."""

    name: str
    policy: str
    bare: bool = False


READINGS = (
    Reading("the prompt's last token", "fraction 0"),
    Reading("the mean of the answer", "completion-mean"),
    Reading("the mean of the answer, after the bare prompt", "completion-mean", bare=True),
)

HEAD_SHARES = (0.09, 0.18, 0.36)
"""Shares of a model's heads that are tried: 24, 48 and 96 of 270."""

SCOPES = ("all", "generated")

ALPHAS = (0.6, 0.9, 1.3, 1.8)

SCREEN_ALPHA = 0.7
"""The strength at which likeness screens: at larger ones it falls, whatever the answers are."""

SCREENED = 16
"""How many requests likeness uses the answers of."""

CHOSEN_ON = 40
"""How many requests are answered at each strength."""

FINALISTS = 2

ENOUGH = 0.95
"""The share of the effect that counts as all of it: more than this costs more, and nobody asked for it."""


@dataclass(frozen=True)
class Candidate:
    """A place to read with a number of heads and a scope, and its likeness at `SCREEN_ALPHA`."""

    reading: Reading
    top_k: int
    scope: str
    likeness: float


@dataclass(frozen=True)
class Tried:
    """A candidate at a strength: what its answers keep, the share that is intact, and what it costs on texts. `kept`
    and `intact` are None where nothing was answered because the perplexity is beyond the guard."""

    candidate: Candidate
    alpha: float
    perplexity: float
    kl: float
    kept: Estimate | None
    intact: Estimate | None

    def to_dict(self) -> dict:
        """As JSON types, like the points of a sweep."""
        return {
            "reading": self.candidate.reading.name,
            "top_k": self.candidate.top_k,
            "scope": self.candidate.scope,
            "alpha": self.alpha,
            "perplexity": round(self.perplexity, 3),
            "kl": float(f"{self.kl:.2g}"),
            "kept": self.kept and asdict(self.kept),
            "at": {"correct": asdict(self.intact)} if self.intact else None,
        }


@dataclass(frozen=True)
class Steering:
    """The choice. why: in words, why nothing was chosen; then `best` is the mildest point that was tried.
    plain_intact: the share of plain answers that are intact."""

    best: Tried
    why: str
    screened: Sequence[Candidate]
    tried: Sequence[Tried]
    plain_intact: Estimate


@dataclass(frozen=True)
class Validation:
    """The requests to choose on: the prompts without the instruction, the answers without it and with it, and the
    groups."""

    bare: Sequence[str]
    plain: Sequence[str]
    told: Sequence[str]
    groups: Sequence[str]


def head_numbers(heads: int) -> list[int]:
    """The numbers of heads to try, for a model that has `heads`."""
    return sorted({max(1, round(share * heads)) for share in HEAD_SHARES})


def read_directions(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    reading: Reading,
    settings: FitSettings,
    cache,
    batch_size: int,
    progress: Callable[[str, int], None],
) -> ITIDirections:
    """The directions of a reading, fitted on the fitting rows of `examples`."""
    policy = Policy.parse(reading.policy)
    activations = capture(
        model, tokenizer, examples, policy, batch_size, cache, lambda rows: progress(f"read {reading.name}", rows)
    )
    fitted = fit(activations, examples, policy, settings)
    return to_directions(fitted, activations, examples, policy, "", "")


def choose_steering(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    directions: dict[Reading, ITIDirections],
    top_ks: Sequence[int],
    alphas: Sequence[float] | None,
    likeness: Callable[[], Likeness],
    validation: Validation,
    classifier: AnswerClassifier,
    answers: OwnAnswers,
    guard: float,
    perplexity_guard: float,
    progress: Callable[[str, int], None] = lambda step, rows: None,
    scopes: Sequence[str] = SCOPES,
) -> Steering:
    """The choice by this module's rule. alphas: the strengths to try; None for `ALPHAS` and those between. likeness:
    measures the two ends of its distance, once the model has directions. At the end the model has the directions of
    the choice, with its K, scope and strength."""
    ends, screened = None, []
    for reading, of_reading in directions.items():
        model.set_iti_directions(of_reading)
        ends = ends or likeness()
        for scope in scopes:
            for top_k in top_ks:
                model.iti_top_k, model.iti_scope = top_k, scope
                screened.append(Candidate(reading, top_k, scope, ends.of(model, tokenizer, SCREEN_ALPHA)))
                progress("likeness", 1)
    best_of = [max((c for c in screened if c.reading == r), key=lambda c: c.likeness) for r in directions]
    finalists = sorted(best_of, key=lambda candidate: -candidate.likeness)[:FINALISTS]

    plain_odds, told_odds = classifier.log_odds(validation.plain), classifier.log_odds(validation.told)
    plain_intact = estimate([not degenerate(text) for text in validation.plain], validation.groups)
    neutral = [Text("", prompt, group) for prompt, group in zip(validation.bare, validation.groups, strict=True)]
    plain_texts = [
        Text(prompt, answer, group)
        for prompt, answer, group in zip(validation.bare, validation.plain, validation.groups, strict=True)
    ][:SCREENED]

    def try_at(candidate: Candidate, alphas: Sequence[float]) -> list[Tried]:
        model.set_iti_directions(directions[candidate.reading])
        model.iti_top_k, model.iti_scope = candidate.top_k, candidate.scope
        costs = measure_divergence(model, tokenizer, neutral, alphas)
        kls = measure_divergence(model, tokenizer, plain_texts, alphas)
        points = []
        for alpha, cost, moved in zip(alphas, costs, kls, strict=True):
            kept = intact = None
            ratio = math.exp(cost.nll_change.mean)
            if ratio <= perplexity_guard:
                name = f"{candidate.reading.name}, {candidate.top_k} heads, scope {candidate.scope}, alpha {alpha:g}"
                texts = answers.to(name, validation.bare, alpha)
                odds = classifier.log_odds(texts)
                kept = kept_share(odds, plain_odds, told_odds, validation.groups)
                intact = estimate([not degenerate(text) for text in texts], validation.groups)
            else:
                progress("left out", len(validation.bare))
            points.append(Tried(candidate, alpha, ratio, moved.kl.mean, kept, intact))
        return points

    def is_inside(point: Tried) -> bool:
        return point.kept is not None and point.intact.mean >= plain_intact.mean - guard - 1e-9

    def choices() -> list[Tried]:
        return [point for points in tried.values() for point in points if is_inside(point) and point.kept.low > 0]

    tried = {candidate: try_at(candidate, alphas or ALPHAS) for candidate in finalists}
    if alphas is None and not any(point.kept.mean >= ENOUGH for point in choices()):
        for candidate, points in tried.items():
            if between := alphas_between([point.alpha for point in points], list(map(is_inside, points))):
                tried[candidate] = sorted([*points, *try_at(candidate, between)], key=lambda point: point.alpha)
    every, inside = [point for points in tried.values() for point in points], choices()
    why = ""
    if not inside:
        numbers = ", ".join(f"{alpha:g}" for alpha in sorted({point.alpha for point in every}))
        why = (
            f"no strength of {numbers} clearly goes towards the instruction with as many answers intact as the guards "
            f"ask (at most {100 * guard:g} points lost, perplexity at most {perplexity_guard:g} times plain's)"
        )
    best = min(inside, key=_by_rule) if inside else min(every, key=lambda point: (point.kl, point.alpha))
    model.set_iti_directions(directions[best.candidate.reading])
    model.iti_top_k, model.iti_scope, model.iti_alpha = best.candidate.top_k, best.candidate.scope, best.alpha
    return Steering(best, why, screened, every, plain_intact)


def alphas_between(alphas: Sequence[float], inside: Sequence[bool]) -> list[float]:
    """Two strengths between the last one before the first that is not `inside` the guards (0 if that is the first) and
    that one, a third and two thirds of the way, in steps of 0.05. None if all are inside, or they lie too close."""
    if all(inside):
        return []
    first = list(inside).index(False)
    low, high = ([0.0, *alphas])[first], alphas[first]
    between = {round(20 * (low + (high - low) * share)) / 20 for share in (1 / 3, 2 / 3)}
    return sorted(between - {low, high})


def _by_rule(point: Tried) -> tuple:
    return -round(min(point.kept.mean, ENOUGH), 2), float(f"{point.kl:.2g}"), point.alpha, point.candidate.top_k
