"""Which alpha, K and scope to ship: a grid on validation tasks, a stated rule, a control.

A point is measured in both directions: at alpha and at minus alpha on bare prompts, and, if the tasks can be asked in
words, at minus alpha on prompts that ask for the target. The rule first keeps the points that meet four conditions:

- pass@1 (without tests: the share of intact answers) at alpha is at most `guard` below alpha 0's;
- perplexity of texts that say nothing of the behaviour is at most `perplexity_guard` times the plain model's (the
  check of utility asks for these two as well);
- KL from the plain model is at most `kl_guard`, if one is given;
- the share of answers that are correct and in the target is above alpha 0's.

It takes the point with the largest such share. Ties go to the smallest divergence from the plain model, then to the
smallest alpha, then to the fewest heads. The results at minus alpha are reported and decide nothing.

For labelled pairs the share is replaced by the mean log-odds of label 1 against label 0, which moves even if no
preference tips over, and is compared pair by pair.

The control is random directions of equal norm on the same heads. A point that does not beat the best of them is not
chosen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.intervals import Estimate, estimate, paired
from ..foundation.sandbox import Sandbox
from .conditions import Condition, random_directions, under
from .divergence import Text, measure_divergence
from .labelled_tasks import LOG_ODDS
from .respond import respond
from .saved_completions import SavedCompletions
from .settings import SWEEP_BATCH, Grid
from .tasks import TaskSet


@dataclass(frozen=True)
class Rates:
    """correct, target, both: shares of the tasks, on one set of prompts at one strength. odds: for a set of pairs, the
    mean log-odds of label 1, in nats; odds_by_task: those of each task, in order."""

    correct: Estimate
    target: Estimate
    both: Estimate
    odds: Estimate | None = None
    odds_by_task: tuple[float, ...] = field(default=(), repr=False)

    @property
    def value(self) -> float:
        """The value that the rule maximises."""
        return self.both.mean if self.odds is None else self.odds.mean

    def to_dict(self) -> dict:
        """As JSON types."""
        left_out = ("odds_by_task",) if self.odds is not None else ("odds_by_task", "odds")
        return {name: value for name, value in asdict(self).items() if name not in left_out}


@dataclass(frozen=True)
class Point:
    """One point of the grid. at: bare prompts at alpha; minus: bare prompts at minus alpha; against: prompts that ask
    for the target, at minus alpha, if the tasks have them. kl, kl_minus: mean KL from the plain model at alpha and
    minus alpha, on held-out texts. perplexity: that of texts that say nothing of the behaviour, at alpha, as a
    multiple of the plain model's."""

    top_k: int
    alpha: float
    scope: str
    at: Rates
    minus: Rates
    against: Rates | None
    kl: float
    kl_minus: float
    perplexity: float

    def to_dict(self) -> dict:
        """As JSON types."""
        rates = {name: getattr(self, name) for name in ("at", "minus", "against")}
        return asdict(self) | {name: held and held.to_dict() for name, held in rates.items()}


def rates_of(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    conditions: Sequence[tuple[bool, float]],
    sandbox: Sandbox,
    batch_size: int = SWEEP_BATCH,
    progress: Callable[[int], None] = lambda rows: None,
    store: SavedCompletions | None = None,
    name: str = "",
) -> list[Rates]:
    """The rates of each (asked, alpha) pair, from greedy answers in shared batches. Batches depend on the tasks and
    conditions alone; those that `store` holds, under `name`, are not answered again."""
    store, tasks = store or SavedCompletions(None, {}), task_set.tasks
    keys = [f"{name}, {'asked' if asked else 'bare'}, alpha {alpha:g}" for asked, alpha in conditions]
    order = sorted(range(len(tasks)), key=lambda index: len(tasks[index].prompt))
    at_once = max(1, batch_size // len(conditions))
    for at in range(0, len(order), at_once):
        units = [(index, i) for index in order[at : at + at_once] for i in range(len(conditions))]
        if any(store.get(keys[i], index, 0) is None for index, i in units):
            of_rows, asked, alphas = zip(*((tasks[index], *conditions[i]) for index, i in units), strict=True)
            texts = respond(model, tokenizer, task_set, of_rows, asked, alphas, batch_size)
            store.add([(keys[i], index, 0, text) for (index, i), text in zip(units, texts, strict=True)])
        progress(len(units))
    groups = [task.group for task in tasks]
    rates = []
    for key in keys:
        grades = task_set.grade(tasks, [store.get(key, index, 0) for index in range(len(tasks))], sandbox)
        odds = tuple(g.measures[LOG_ODDS] for g in grades) if task_set.pairs else ()
        rates.append(
            Rates(
                estimate([g.correct for g in grades], groups),
                estimate([g.target for g in grades], groups),
                estimate([g.correct * g.target for g in grades], groups),
                estimate(odds, groups) if odds else None,
                odds,
            )
        )
    return rates


def sweep(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    top_ks: Sequence[int],
    alphas: Sequence[float],
    scopes: Sequence[str],
    sandbox: Sandbox,
    batch_size: int = SWEEP_BATCH,
    progress: Callable[[int], None] = lambda rows: None,
    store: SavedCompletions | None = None,
    told: Callable[[list[Point]], None] = lambda points: None,
) -> list[Point]:
    """Answer every task at every point; the first point is alpha 0, which every K and scope share. At the end the
    model gets its K and scope back. told: called with the points of each K and scope as soon as they are known."""
    before = (model.iti_top_k, model.iti_scope)
    texts = list(task_set.texts.values())
    points: list[Point] = []
    try:
        for k, scope in [(k, scope) for scope in scopes for k in top_ks]:
            model.iti_top_k, model.iti_scope = k, scope
            strengths = [0.0, *alphas] if not points else list(alphas)
            tries = [(False, 1), (False, -1)] + ([] if task_set.asked is None else [(True, -1)])
            wanted = [(asked, sign * alpha) for alpha in strengths for asked, sign in tries]
            name = f"{k} heads, scope {scope}"
            rates = rates_of(model, tokenizer, task_set, wanted, sandbox, batch_size, progress, store, name)
            told_of = measure_divergence(model, tokenizer, texts[0], both_signs(strengths))
            kls = [divergence.kl.mean for divergence in told_of]
            others = told_of[::2] if len(texts) == 1 else measure_divergence(model, tokenizer, texts[-1], strengths)
            perplexities = [math.exp(divergence.nll_change.mean) for divergence in others]
            for i, alpha in enumerate(strengths):
                at, minus, *against = rates[len(tries) * i : len(tries) * (i + 1)]
                kl, kl_minus = kls[2 * i : 2 * i + 2]
                asked = against[0] if against else None
                points.append(Point(k, alpha, scope, at, minus, asked, kl, kl_minus, perplexities[i]))
            told(points[-len(strengths) :])
    finally:
        model.iti_top_k, model.iti_scope = before
    return points


def count_answers(tasks: int, asked: bool, grid: Grid) -> int:
    """How many answers a sweep of `tasks` tasks and its control take. asked: whether they are asked in words too."""
    alphas = POINTS if grid.alphas is None else len(grid.alphas)
    alphas = alphas if grid.kl_budget is None else 1
    tries = 3 if asked else 2
    return tasks * (tries * (1 + alphas * len(grid.top_ks or (0,)) * len(grid.scopes)) + 6 * alphas)


def both_signs(alphas: Sequence[float]) -> list[float]:
    return [sign * alpha for alpha in alphas for sign in (1, -1)]


def choose_point(points: Sequence[Point], grid: Grid) -> Point | None:
    """The point that this module's rule picks; None if no point beats alpha 0 inside the guards of the grid."""
    plain = next(point for point in points if point.alpha == 0)

    def inside(point: Point) -> bool:
        kept = point.at.correct.mean >= plain.at.correct.mean - grid.guard - 1e-9
        mild = point.perplexity <= grid.perplexity_guard and (grid.kl_guard is None or point.kl <= grid.kl_guard)
        return kept and mild and point.at.value > plain.at.value

    return min((point for point in points if point.alpha != 0 and inside(point)), key=order_by_rule, default=None)


def order_by_rule(point: Point) -> tuple:
    """The order of the rule: the better of two points has the smaller value. A divergence has two digits, since
    further ones differ between machines."""
    return -round(point.at.value, 6), float(f"{point.kl:.2g}"), abs(point.alpha), point.top_k


def control(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    top_k: int,
    scope: str,
    alphas: Sequence[float],
    sandbox: Sandbox,
    draws: int = 3,
    batch_size: int = SWEEP_BATCH,
    progress: Callable[[int], None] = lambda rows: None,
    store: SavedCompletions | None = None,
) -> list[list[Rates]]:
    """[draws][2 * alphas]: the rates at alpha and at minus alpha, in turn, of random directions on the same heads."""
    before = (model.iti_top_k, model.iti_scope)
    try:
        model.iti_top_k, model.iti_scope = top_k, scope
        used, draws_rates = model.iti_directions.top(top_k), []
        for draw in range(draws):
            with under(model, Condition("random", directions=random_directions(used, draw + 1))):
                wanted = [(False, alpha) for alpha in both_signs(alphas)]
                name = f"random {draw + 1}, {top_k} heads, scope {scope}"
                draws_rates.append(
                    rates_of(model, tokenizer, task_set, wanted, sandbox, batch_size, progress, store, name)
                )
        return draws_rates
    finally:
        model.iti_top_k, model.iti_scope = before


def beats_control(
    point: Point, alphas: Sequence[float], random: Sequence[Sequence[Rates]], groups: Sequence[str] = ()
) -> bool:
    """Whether the interval of the point's share of correct answers in the target lies above that of every random draw
    at its alpha; for a set of pairs, in `groups`, whether its log-odds do, pair by pair."""
    at = 2 * list(alphas).index(point.alpha)
    if point.at.odds is not None:
        return all(paired(point.at.odds_by_task, draw[at].odds_by_task, groups).low > 0 for draw in random)
    return all(point.at.both.low > draw[at].both.high for draw in random)


def alpha_of_kl(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    budget: float,
    largest: float = 64.0,
    tolerance: float = 0.01,
) -> tuple[float, float]:
    """(alpha, KL): the largest alpha up to `largest` whose mean KL from the plain model stays within `budget`, to a
    relative `tolerance`. Four strengths are tried in each forward pass.

    Raises:
        ValueError: if the budget is not positive, or is so large or small that no alpha up to `largest` meets it.
    """
    if not budget > 0:
        raise ValueError(f"the KL budget is {budget}; expected a positive number of nats a token")
    kls: dict[float, float] = {0.0: 0.0}

    def inside(tried: list[float]) -> list[bool]:
        found = measure_divergence(model, tokenizer, texts, tried)
        kls.update({alpha: divergence.kl.mean for alpha, divergence in zip(tried, found, strict=True)})
        return [kls[alpha] <= budget for alpha in tried]

    if inside([largest])[0]:
        raise ValueError(
            f"the KL budget is {budget}, but alpha {largest:g} has a KL of {kls[largest]:.3g}; expected less"
        )
    alpha = _largest(inside, largest, tolerance)
    if not alpha:
        raise ValueError(f"the KL budget is {budget}, which no alpha above 1e-06 meets; expected more")
    return alpha, kls[alpha]


def _largest(inside: Callable[[list[float]], list[bool]], largest: float, tolerance: float) -> float:
    """The largest alpha below `largest` that is inside, to a relative tolerance; 0.0 if that is below 1e-6."""
    low, high = 0.0, largest
    while high - low > tolerance * high and high >= 1e-6:
        tried = [low + (high - low) * part for part in ((0.2, 0.4, 0.6, 0.8) if low else (0.01, 0.05, 0.2, 0.5))]
        are_inside = inside(tried)
        low = max([low, *(alpha for alpha, is_inside in zip(tried, are_inside, strict=True) if is_inside)])
        high = min([alpha for alpha in tried if alpha > low], default=high)
    return low


POINTS = 8
"""How many strengths an even grid has."""

STEPS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
"""The numbers that a step of an even grid may begin with, so that strengths are short numbers."""


def even_grid(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    top_ks: Sequence[int],
    grid: Grid,
    largest: float = 64.0,
) -> list[float]:
    """`POINTS` strengths in even steps from 0 to the first damage. That is where the perplexity of texts that say
    nothing of the behaviour, or the KL of the others, leaves the guards of the grid, at the K and scope that bear
    most. The last strengths may lie a step or two beyond it. At the end the model is as it was."""
    before, texts = (model.iti_top_k, model.iti_scope), list(task_set.texts.values())

    def inside(tried: list[float]) -> list[bool]:
        others = measure_divergence(model, tokenizer, texts[-1], tried)
        kept = [math.exp(divergence.nll_change.mean) <= grid.perplexity_guard for divergence in others]
        if grid.kl_guard is None:
            return kept
        told_of = others if len(texts) == 1 else measure_divergence(model, tokenizer, texts[0], tried)
        mild = [divergence.kl.mean <= grid.kl_guard for divergence in told_of]
        return [all(both) for both in zip(kept, mild, strict=True)]

    edge = 0.0
    try:
        for model.iti_top_k, model.iti_scope in [(k, scope) for scope in grid.scopes for k in top_ks]:
            edge = max(edge, largest if inside([largest])[0] else _largest(inside, largest, 0.02))
    finally:
        model.iti_top_k, model.iti_scope = before
    size = 10.0 ** math.floor(math.log10((edge or 1e-6) / POINTS))
    step = next(step for step in (*(start * size for start in STEPS), 10 * size) if step * POINTS >= edge)
    return [float(f"{step * number:.3g}") for number in range(1, POINTS + 1)]
