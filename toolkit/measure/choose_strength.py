"""A whole sweep: a grid or a divergence budget, a choice by rule, the control, and one confirmation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_DOWN, Context

from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.sandbox import Sandbox
from .conditions import Condition
from .divergence import Text
from .evaluate import ConditionResult, evaluate
from .saved_completions import SavedCompletions
from .settings import PAIRS_KL_GUARD, SWEEP_BATCH, Grid
from .sweep import Point, Rates, alpha_of_kl, beats_control, choose_point, control, even_grid, sweep
from .tasks import TaskSet


@dataclass(frozen=True)
class Choice:
    """points: the grid, alpha 0 first. best: the point that the rule picks, None if nothing passes the guard. why: in
    words, why nothing is applied; empty if there is a `best`. random: see `control`. confirmed: plain and steered on
    other tasks."""

    grid: Grid
    alphas: Sequence[float]
    points: Sequence[Point]
    best: Point | None
    why: str
    random: Sequence[Sequence[Rates]] = ()
    confirmed: Sequence[ConditionResult] = field(default=())

    def to_dict(self) -> dict:
        """As JSON types. Divergences have two digits: further ones differ between machines."""
        chosen = None if self.why else self.best.to_dict()
        record = {
            "guard": self.grid.guard,
            "kl_guard": self.grid.kl_guard,
            "perplexity_guard": self.grid.perplexity_guard,
            "points": [p.to_dict() for p in self.points],
        }
        for point in (*record["points"], *([chosen] if chosen else [])):
            point["kl"], point["kl_minus"] = float(f"{point['kl']:.2g}"), float(f"{point['kl_minus']:.2g}")
            point["perplexity"] = round(point["perplexity"], 3)
        return record | {
            "chosen": chosen,
            "why": self.why,
            "random": [[rates.to_dict() for rates in draw] for draw in self.random],
        }


def choose_strength(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    grid: Grid,
    sandbox: Sandbox,
    confirm: TaskSet | None = None,
    batch_size: int = SWEEP_BATCH,
    seed: int = 0,
    progress: Callable[[str, int], None] = lambda step, rows: None,
    store: SavedCompletions | None = None,
    told: Callable[[list[Point]], None] = lambda points: None,
) -> Choice:
    """Sweep the grid on validation tasks, choose, compare with random directions, and confirm on other tasks, once. At
    the end the model is as it was. With a `store` a killed run goes on where it stopped. told: see `sweep`.

    Raises:
        ValueError: if the tasks have no target; `strength_of_budget` needs none.
    """
    if not task_set.target:
        raise ValueError(f"{task_set.name}: the tasks do not say what is wanted; pass --target, or --kl-budget alone")
    before = (model.iti_top_k, model.iti_scope)
    if task_set.pairs and grid.kl_guard is None:
        grid = replace(grid, kl_guard=PAIRS_KL_GUARD)
    ks = grid.top_ks or [len(model.iti_directions.top(model.iti_top_k))]
    try:
        if grid.kl_budget is not None:
            model.iti_top_k, model.iti_scope = ks[0], grid.scopes[0]
            exact, _ = alpha_of_kl(model, tokenizer, next(iter(task_set.texts.values())), grid.kl_budget)
            alphas = [_rounded_down(exact)]
        elif grid.alphas is None:
            alphas = even_grid(model, tokenizer, task_set, ks, grid)
        else:
            alphas = list(grid.alphas)
        points = sweep(
            model, tokenizer, task_set, ks, alphas, grid.scopes, sandbox, batch_size,
            lambda n: progress("generate", n), store, told=told,
        )  # fmt: skip
        best = choose_point(points, grid)
        if best is None:
            return Choice(grid, alphas, points, None, "no point beats plain inside the guard: nothing is applied")
        random = control(
            model, tokenizer, task_set, best.top_k, best.scope, alphas, sandbox, batch_size=batch_size,
            progress=lambda n: progress("control", n), store=store,
        )  # fmt: skip
        if not beats_control(best, alphas, random, [task.group for task in task_set.tasks]):
            why = f"alpha {best.alpha:g} does not beat random directions of equal norm: nothing is applied"
            return Choice(grid, alphas, points, best, why, random)
        confirmed = ()
        if confirm is not None:
            model.iti_top_k, model.iti_scope = best.top_k, best.scope
            pair = [Condition("plain"), Condition("steered", best.alpha)]
            confirmed, _ = evaluate(model, tokenizer, confirm, pair, sandbox, seed=seed)
        return Choice(grid, alphas, points, best, "", random, confirmed)
    finally:
        model.iti_top_k, model.iti_scope = before


@dataclass(frozen=True)
class Budget:
    """The largest alpha whose mean KL from the plain model, on `n` held-out texts, is at most `budget`. This does not
    show what else the steering does."""

    budget: float
    alpha: float
    kl: float
    top_k: int
    scope: str
    n: int


def strength_of_budget(
    model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], grid: Grid
) -> Budget:
    """The choice without a target. At the end the model is as it was. Raises as `alpha_of_kl` does."""
    before = (model.iti_top_k, model.iti_scope)
    k = (grid.top_ks or [len(model.iti_directions.top(model.iti_top_k))])[0]
    try:
        model.iti_top_k, model.iti_scope = k, grid.scopes[0]
        alpha, kl = alpha_of_kl(model, tokenizer, texts, grid.kl_budget)
    finally:
        model.iti_top_k, model.iti_scope = before
    return Budget(grid.kl_budget, _rounded_down(alpha), float(f"{kl:.2g}"), k, grid.scopes[0], len(texts))


def _rounded_down(alpha: float) -> float:
    """Alpha, rounded down to three digits so that it stays inside the budget."""
    return float(Context(prec=3, rounding=ROUND_DOWN).create_decimal_from_float(alpha))
