"""What the steering does: the same tasks under several conditions, executed, with intervals and paired differences."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from iti_llama import ITIDirections, ITILlamaForCausalLM
from transformers import PreTrainedTokenizerBase

from .completion import complete, function_body
from .corpus import HEADERS, Task
from .grading import Grade, grade
from .intervals import Estimate, estimate, paired
from .sandbox import Sandbox


@dataclass(frozen=True)
class Condition:
    """One way to answer the tasks.

    alpha: strength. directions: None for the model's own. prefix: text before every prompt (an instruction, in words).
    """

    name: str
    alpha: float = 0.0
    directions: ITIDirections | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Answers:
    """The completions of one condition and their grades, in the order of the tasks."""

    condition: str
    completions: list[str]
    grades: list[Grade]

    @property
    def correct(self) -> list[bool]:
        return [one.correct for one in self.grades]

    @property
    def idiomatic(self) -> list[bool]:
        return [one.style == "idiomatic" for one in self.grades]


@dataclass(frozen=True)
class Measured:
    """One row of the result. Rates are shares of all tasks; *_change is the paired difference to the plain condition.

    wrong_way: tasks that were idiomatic when plain and are not now, or the reverse for a condition that steers away.
    """

    condition: str
    alpha: float
    correct: Estimate
    idiomatic: Estimate
    correct_change: Estimate
    idiomatic_change: Estimate
    characters: float
    lost: int = field(metadata={"help": "tasks solved when plain, and not now"})
    gained: int = field(metadata={"help": "tasks not solved when plain, and solved now"})

    def to_dict(self) -> dict:
        return asdict(self)


def random_directions(directions: ITIDirections, seed: int) -> ITIDirections:
    """The control: the same heads and sigmas, so offsets of equal norm, with random unit directions."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(directions.directions.shape, generator=generator, dtype=torch.float64)
    return replace(directions, directions=torch.nn.functional.normalize(drawn, dim=-1).float(), scores=None)


def standard_conditions(model: ITILlamaForCausalLM, alpha: float | None = None, draws: int = 3) -> list[Condition]:
    """Plain, steered, minus alpha, random directions, a header that asks in words, and that header at minus alpha."""
    alpha = model.iti_alpha if alpha is None else alpha
    used = model.iti_directions.top(model.iti_top_k)
    asked = HEADERS["idiomatic"][0] + "\n"
    return [
        Condition("plain"),
        Condition("steered", alpha),
        Condition("minus alpha", -alpha),
        *(Condition(f"random {i + 1}", alpha, random_directions(used, i + 1)) for i in range(draws)),
        Condition("asked in words", prefix=asked),
        Condition("asked in words, minus alpha", -alpha, prefix=asked),
    ]


def answer(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    condition: Condition,
    sandbox: Sandbox,
    progress: Callable[[int], None] = lambda rows: None,
) -> Answers:
    """Complete every task greedily under one condition, and run the programs."""
    own, top_k = model.iti_directions, model.iti_top_k
    if condition.directions is not None:
        model.iti_top_k = None
        model.set_iti_directions(condition.directions)
    try:
        prompts = [condition.prefix + task.prompt for task in tasks]
        completions = complete(model, tokenizer, prompts, [condition.alpha] * len(tasks), progress=progress)
    finally:
        if condition.directions is not None:
            model.set_iti_directions(own)
            model.iti_top_k = top_k
    return Answers(condition.name, completions, grade(tasks, completions, sandbox))


def measure(condition: Condition, answers: Answers, plain: Answers, tasks: Sequence[Task]) -> Measured:
    groups = [task.group for task in tasks]
    before, after = plain.correct, answers.correct
    return Measured(
        condition=condition.name,
        alpha=condition.alpha,
        correct=estimate(after, groups),
        idiomatic=estimate(answers.idiomatic, groups),
        correct_change=paired(after, before, groups),
        idiomatic_change=paired(answers.idiomatic, plain.idiomatic, groups),
        characters=sum(len(function_body(text)) for text in answers.completions) / len(tasks),
        lost=sum(b and not a for b, a in zip(before, after, strict=True)),
        gained=sum(a and not b for b, a in zip(before, after, strict=True)),
    )


def evaluate(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    conditions: Sequence[Condition],
    sandbox: Sandbox,
    progress: Callable[[str, int], None] = lambda condition, rows: None,
) -> tuple[list[Measured], dict[str, Answers]]:
    """Answer and measure. The first condition is what the others are compared with."""
    answers = {
        condition.name: answer(
            model, tokenizer, tasks, condition, sandbox, lambda rows, name=condition.name: progress(name, rows)
        )
        for condition in conditions
    }
    plain = answers[conditions[0].name]
    return [measure(condition, answers[condition.name], plain, tasks) for condition in conditions], answers


def markdown(rows: Sequence[Measured]) -> str:
    """The result as a table for a model card."""
    lines = [
        "| condition | alpha | correct (pass@1) | change, points | idiomatic | change, points | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.condition} | {row.alpha:g} | {row.correct.percent()} | {row.correct_change.points()} "
            f"| {row.idiomatic.percent()} | {row.idiomatic_change.points()} | {row.correct.n} |"
        )
    return "\n".join(lines)
