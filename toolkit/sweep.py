"""Which alpha, K and scope to ship: a grid on validation tasks, and a stated rule.

A point is measured in both directions: at alpha, on bare prompts, and at minus alpha on prompts that ask for the target
style in words. The rule: of the points whose pass@1 in both directions is at most `guard` below alpha 0, and whose share of correct
solutions in the target style is above alpha 0's, the one with the largest *reach*: that share at alpha plus what minus alpha takes
from the share of the prompts that ask, averaged with the next smaller and the next larger alpha of the grid (same K and
scope), so that the choice keeps off the edges of a plateau. Of several, the smallest alpha, then the fewest heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from iti_llama import ITILlamaForCausalLM
from transformers import PreTrainedTokenizerBase

from .completion import complete
from .corpus import HEADERS, Task
from .grading import grade
from .intervals import Estimate, estimate
from .sandbox import Sandbox


@dataclass(frozen=True)
class Point:
    """One point of the grid. correct, idiomatic, both (correct and idiomatic): rates at alpha on bare prompts.
    against, against_correct: idiomatic and correct rates at minus alpha on prompts that ask for the style."""

    top_k: int
    alpha: float
    scope: str
    correct: Estimate
    idiomatic: Estimate
    both: Estimate
    against: Estimate
    against_correct: Estimate

    def to_dict(self) -> dict:
        return asdict(self)


def sweep(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    top_ks: Sequence[int],
    alphas: Sequence[float],
    scopes: Sequence[str],
    sandbox: Sandbox,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Point]:
    """Answer every task at every point. The alphas of one task are rows of one batch; alpha 0 is always among them, and is
    shared by every K and scope. The model's own alpha, K and scope are put back."""
    before, groups = (model.iti_top_k, model.iti_scope), [task.group for task in tasks]
    grid = [(k, scope) for scope in scopes for k in top_ks]
    asked = HEADERS["idiomatic"][0] + "\n"
    points: list[Point] = []

    def grade_at(alphas: Sequence[float], k: int, scope: str) -> None:
        rows = [(task, prefix, alpha) for task in tasks for alpha in alphas for prefix in ("", asked)]
        prompts = [prefix + task.prompt for task, prefix, _ in rows]
        strengths = [-alpha if prefix else alpha for _, prefix, alpha in rows]
        texts = complete(model, tokenizer, prompts, strengths, batch_size=128, progress=progress)
        grades = grade([task for task, *_ in rows], texts, sandbox)
        for i, alpha in enumerate(alphas):
            bare, against = (grades[2 * i + side :: 2 * len(alphas)] for side in (0, 1))
            points.append(
                Point(
                    top_k=k,
                    alpha=alpha,
                    scope=scope,
                    correct=estimate([g.correct for g in bare], groups),
                    idiomatic=estimate([g.style == "idiomatic" for g in bare], groups),
                    both=estimate([g.correct and g.style == "idiomatic" for g in bare], groups),
                    against=estimate([g.style == "idiomatic" for g in against], groups),
                    against_correct=estimate([g.correct for g in against], groups),
                )
            )

    try:
        for index, (k, scope) in enumerate(grid):
            model.iti_top_k, model.iti_scope = k, scope
            grade_at([0.0, *alphas] if index == 0 else alphas, k, scope)
    finally:
        model.iti_top_k, model.iti_scope = before
    return points


def choose(points: Sequence[Point], guard: float = 0.05) -> Point | None:
    """The point that the rule of this module picks; None if no point beats alpha 0 inside the guard."""
    plain = next(point for point in points if point.alpha == 0)

    def inside(point: Point) -> bool:
        kept = point.correct.mean >= plain.correct.mean - guard
        kept_against = point.against_correct.mean >= plain.against_correct.mean - guard
        return kept and kept_against and point.both.mean > plain.both.mean

    def reach(point: Point) -> float:
        line = sorted((p for p in points if (p.top_k, p.scope) == (point.top_k, point.scope)), key=lambda p: p.alpha)
        at = line.index(point)
        near = line[max(0, at - 1) : at + 2]
        return sum(p.both.mean + plain.against.mean - p.against.mean for p in near) / len(near)

    candidates = [point for point in points if point.alpha != 0 and inside(point)]
    return min(candidates, key=lambda p: (-round(reach(p), 6), abs(p.alpha), p.top_k), default=None)
