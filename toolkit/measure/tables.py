"""Results of an evaluation as tables for documents."""

from collections.abc import Sequence

from ..foundation.intervals import Estimate, estimate, paired
from ..foundation.markdown_table import markdown_table
from .divergence import Divergence
from .evaluate import Answers, ConditionResult
from .labelled_tasks import LOG_ODDS
from .summary import Summary
from .tasks import TaskSet


def evaluation_table(
    rows: Sequence[ConditionResult],
    target: str,
    divergence: dict[str, Divergence] | None = None,
    sound: str = "correct",
) -> str:
    """The result as a table for a document, with every column."""
    divergence = divergence or {}
    names = list(rows[0].measures)
    first = {"correct": "correct (pass@1)"}.get(sound, sound or "scored")
    heads = ["condition", "alpha", first, "change, points", target, "change, points", *names]
    heads += ["degenerate", "characters", "KL, nats a token", "KL, 95th percentile", "n"]
    lines = []
    for row in rows:
        moved = divergence.get(row.condition)
        change = ("", "") if row is rows[0] else (row.correct_change.points(), row.target_change.points())
        cells = [row.condition, f"{row.alpha:g}", row.correct.percent(), change[0], row.target.percent(), change[1]]
        cells += [row.measures[name].plain() if name == LOG_ODDS else row.measures[name].percent() for name in names]
        cells += [row.degenerate.percent(), f"{row.characters.mean:.0f}"]
        cells += (
            [f"{moved.kl.mean:.3f} [{moved.kl.low:.3f}, {moved.kl.high:.3f}]", f"{moved.kl_95:.3f}"]
            if moved
            else ["", ""]
        )
        lines.append([*cells, str(row.correct.n)])
    return markdown_table(heads, lines)


def divergence_table(divergence: dict[str, dict[str, Divergence]]) -> str:
    """Perplexity and KL on every set of held-out texts, as a table for a model card."""
    lines = [
        "| held-out text | condition | perplexity plain | steered | change of log-likelihood, nats a token | KL | "
        "tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for text, of_text in divergence.items():
        for condition, moved in of_text.items():
            change = f"{-moved.nll_change.mean:+.3f} [{-moved.nll_change.high:+.3f}, {-moved.nll_change.low:+.3f}]"
            lines.append(
                f"| {text} | {condition} | {moved.perplexity_plain:.3f} | {moved.perplexity_steered:.3f} | {change} "
                f"| {moved.kl.mean:.3f} | {moved.tokens} |"
            )
    return "\n".join(lines)


def summarise(
    rows: Sequence[ConditionResult],
    answers: dict[str, Answers],
    task_set: TaskSet,
    divergence: dict[str, Divergence],
    further: Sequence[str] = (),
) -> list[Summary]:
    """Plain, steered, the random directions pooled, minus alpha, and `further` conditions."""
    randoms = [row.condition for row in rows if row.condition.startswith("random")]
    shown = {"plain": ["plain"], "steered": ["steered"], "random directions": randoms, "minus alpha": ["minus alpha"]}
    shown |= {name: [name] for name in further}
    summaries = []
    for name, conditions in shown.items():
        pooled = [answers[condition] for condition in conditions]
        groups = [task.group for answered in pooled for task in task_set.tasks for _ in range(answered.samples)]
        kls = [divergence[condition].kl.mean for condition in conditions if condition in divergence]
        summaries.append(
            Summary(
                name,
                next(row.alpha for row in rows if row.condition == conditions[0]),
                estimate([flag for answered in pooled for flag in answered.correct], groups)
                if task_set.sound
                else None,
                estimate([value for answered in pooled for value in answered.target], groups),
                sum(kls) / len(kls) if kls else None,
                _odds_change(pooled, answers["plain"], groups) if task_set.pairs else None,
            )
        )
    return summaries


def _odds_change(pooled: Sequence[Answers], plain: Answers, groups: Sequence[str]) -> Estimate:
    before = [grade.measures[LOG_ODDS] for _ in pooled for grade in plain.grades]
    return paired([grade.measures[LOG_ODDS] for answered in pooled for grade in answered.grades], before, groups)
