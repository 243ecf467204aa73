"""Which alpha, K and scope to ship: a grid on validation tasks, and a stated rule.

The rule: of the points whose pass@1 on the validation tasks is at most `guard` below plain, and whose share of correct
solutions in the target style is above plain's, the one where that share, averaged with those at the next smaller and the next
larger alpha of the grid (same K and scope), is the largest; of several, the smallest alpha, then the fewest heads. The
average keeps the choice off the edges of a plateau.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from iti_llama import ITILlamaForCausalLM
from transformers import PreTrainedTokenizerBase

from .completion import complete
from .corpus import Task
from .grading import grade
from .intervals import Estimate, estimate
from .sandbox import Sandbox


@dataclass(frozen=True)
class Point:
    """One point of the grid. `both`: share of solutions that are correct and idiomatic."""

    top_k: int
    alpha: float
    scope: str
    correct: Estimate
    idiomatic: Estimate
    both: Estimate

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
    points: list[Point] = []

    def grade_at(alphas: Sequence[float], k: int, scope: str) -> None:
        pairs = [(task, alpha) for task in tasks for alpha in alphas]
        texts = complete(
            model, tokenizer, [t.prompt for t, _ in pairs], [a for _, a in pairs], batch_size=128, progress=progress
        )
        grades = grade([t for t, _ in pairs], texts, sandbox)
        for i, alpha in enumerate(alphas):
            own = grades[i :: len(alphas)]
            correct, idiomatic = [g.correct for g in own], [g.style == "idiomatic" for g in own]
            both = [c and s for c, s in zip(correct, idiomatic, strict=True)]
            points.append(
                Point(k, alpha, scope, estimate(correct, groups), estimate(idiomatic, groups), estimate(both, groups))
            )

    try:
        for index, (k, scope) in enumerate(grid):
            model.iti_top_k, model.iti_scope = k, scope
            grade_at([0.0, *alphas] if index == 0 else alphas, k, scope)
    finally:
        model.iti_top_k, model.iti_scope = before
    return points


def choose(points: Sequence[Point], guard: float = 0.05) -> Point | None:
    """The point that the rule of this module picks; None if no point beats plain inside the guard."""
    plain = next(point for point in points if point.alpha == 0)
    inside = [p for p in points if p.correct.mean >= plain.correct.mean - guard and p.both.mean > plain.both.mean]

    def around(point: Point) -> float:
        line = sorted(
            (p for p in points if (p.top_k, p.scope) == (point.top_k, point.scope)), key=lambda p: p.alpha
        )
        at = line.index(point)
        near = line[max(0, at - 1) : at + 2]
        return sum(p.both.mean for p in near) / len(near)

    return min(inside, key=lambda p: (-round(around(p), 6), abs(p.alpha), p.top_k), default=None)
