"""Evaluate a steering: the same tasks under several conditions, executed, with intervals and paired differences."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.hashing import fingerprint, fingerprint_of
from ..foundation.intervals import Estimate, estimate, paired
from ..foundation.sandbox import Sandbox
from .conditions import Condition, under
from .degenerate import degenerate
from .divergence import Divergence, Text, measure_divergence
from .grade import Grade
from .respond import respond
from .saved_completions import SavedCompletions
from .tasks import TaskSet, as_written


@dataclass(frozen=True)
class Answers:
    """The completions of one condition and their grades: `samples` of each task, one after the other."""

    condition: str
    samples: int
    completions: list[str]
    grades: list[Grade]

    @property
    def correct(self) -> list[bool]:
        return [grade.correct for grade in self.grades]

    @property
    def target(self) -> list[float]:
        return [grade.target for grade in self.grades]

    @property
    def degenerate(self) -> list[bool]:
        flags = zip(self.completions, self.grades, strict=True)
        return [bool(degenerate(text)) or grade.style == "unparsable" for text, grade in flags]

    def pass_at(self, k: int) -> list[float]:
        """The unbiased estimate of pass@k for each task (Chen et al. 2021, equation 1)."""
        n, correct = self.samples, self.correct
        counts = [sum(correct[at : at + n]) for at in range(0, len(correct), n)]
        return [1 - math.comb(n - c, k) / math.comb(n, k) for c in counts]


@dataclass(frozen=True)
class ConditionResult:
    """One row of the result. Rates are shares of all completions; *_change is the paired difference to the plain
    condition. pass_at: {k: estimate}. target: the share that behaves as wanted. measures: means of the task set's
    further measures. lost: prompts that plain solves (by any sample) and this condition does not; gained: the reverse.
    wrong_way: prompts with a plain completion in the target (any sample) and none under this condition."""

    condition: str
    alpha: float
    correct: Estimate
    correct_change: Estimate
    pass_at: dict[int, Estimate]
    target: Estimate
    target_change: Estimate
    measures: dict[str, Estimate]
    degenerate: Estimate
    characters: Estimate
    lost: list[str]
    gained: list[str]
    wrong_way: list[str]

    def to_dict(self) -> dict:
        """As JSON types."""
        fields = asdict(self)
        return fields | {"pass_at": {str(k): value for k, value in fields["pass_at"].items()}}


def settings_of(
    model: ITILlamaForCausalLM, task_set: TaskSet, alpha: float, samples: int, temperature: float, seed: int
) -> dict:
    """Everything that the completions of `standard_conditions` depend on, for a `SavedCompletions`: weights,
    directions and prompts by hash."""
    used = model.iti_directions.top(model.iti_top_k)
    return {
        "tasks": task_set.name,
        "n": len(task_set),
        "seed": seed,
        "heads": len(used),
        "scope": model.iti_scope,
        "samples": samples,
        "alpha": alpha,
        "temperature": temperature if samples > 1 else 0,
        "model": fingerprint(model)[:16],
        "directions": fingerprint_of(used)[:16],
        "prompts": prompts_hash(task_set),
        "max_new_tokens": task_set.max_new_tokens,
    }


def sweep_settings_of(model: ITILlamaForCausalLM, task_set: TaskSet) -> dict:
    """Everything that the answers of a sweep depend on, except alpha, K and scope, which name the answers in its
    store."""
    return {
        "tasks": task_set.name,
        "n": len(task_set),
        "model": fingerprint(model)[:16],
        "directions": fingerprint_of(model.iti_directions)[:16],
        "prompts": prompts_hash(task_set),
        "max_new_tokens": task_set.max_new_tokens,
    }


def prompts_hash(task_set: TaskSet) -> str:
    """A short name for the prompts as their writers wrote them, since a chat template may add the date."""
    ways, prompts = (task_set.prompt_of, task_set.asked or (lambda task: None)), []
    for task in task_set.tasks:
        prompts.append([*(as_written(task, way(task)) for way in ways), *(task.completions if task_set.pairs else ())])
    return hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:16]


def answer(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    condition: Condition,
    sandbox: Sandbox,
    samples: int = 1,
    temperature: float = 1.0,
    store: SavedCompletions | None = None,
    seed: int = 0,
    batch_size: int = 96,
    progress: Callable[[int], None] = lambda rows: None,
) -> Answers:
    """Complete every task under one condition, greedily or, for more than one sample, at `temperature`; run the
    programs.

    Batches and their seeds depend on the tasks alone: a run that goes on from a `store` gives the same completions as
    one that was never killed.
    """
    store = store or SavedCompletions(None, {})
    ask = task_set.asked if condition.asked else task_set.prompt_of
    lengths = [len(ask(task)) for task in task_set.tasks for _ in range(samples)]
    order = sorted(range(len(lengths)), key=lambda unit: lengths[unit])
    sampling = {"do_sample": True, "temperature": temperature} if samples > 1 else {}
    with under(model, condition):
        for at in range(0, len(order), batch_size):
            batch = order[at : at + batch_size]
            if any(store.get(condition.name, *divmod(unit, samples)) is None for unit in batch):
                name = hashlib.sha256(f"{seed}:{condition.name}:{at}".encode()).digest()
                torch.manual_seed(int.from_bytes(name[:7], "big"))
                texts = respond(
                    model,
                    tokenizer,
                    task_set,
                    [task_set.tasks[unit // samples] for unit in batch],
                    [condition.asked] * len(batch),
                    [condition.alpha] * len(batch),
                    batch_size=batch_size,
                    **sampling,
                )
                units = zip(batch, texts, strict=True)
                store.add([(condition.name, *divmod(unit, samples), text) for unit, text in units])
            progress(len(batch))
    completions = [store.get(condition.name, *divmod(unit, samples)) for unit in range(len(lengths))]
    repeated = [task for task in task_set.tasks for _ in range(samples)]
    return Answers(condition.name, samples, completions, task_set.grade(repeated, completions, sandbox))


def measure(condition: Condition, answers: Answers, plain: Answers, task_set: TaskSet) -> ConditionResult:
    n, tasks = answers.samples, task_set.tasks
    by_task = [task.group for task in tasks]
    groups = [group for group in by_task for _ in range(n)]

    repeated = (task for task in tasks for _ in range(n))
    lengths = [len(task_set.answer_of(task, text)) for task, text in zip(repeated, answers.completions, strict=True)]

    def any_of(values: list[float]) -> list[bool]:
        return [max(values[at : at + n]) >= 0.5 for at in range(0, len(values), n)]

    def moved(before: list[float], after: list[float]) -> list[str]:
        return [t.prompt for t, b, a in zip(tasks, any_of(before), any_of(after), strict=True) if b and not a]

    return ConditionResult(
        condition=condition.name,
        alpha=condition.alpha,
        correct=estimate(answers.correct, groups),
        correct_change=paired(answers.correct, plain.correct, groups),
        pass_at={k: estimate(answers.pass_at(k), by_task) for k in (1, 5, 10, 50) if k <= n},
        target=estimate(answers.target, groups),
        target_change=paired(answers.target, plain.target, groups),
        measures={
            name: estimate([grade.measures[name] for grade in answers.grades], groups)
            for name in answers.grades[0].measures
        },
        degenerate=estimate(answers.degenerate, groups),
        characters=estimate(lengths, groups),
        lost=moved(plain.correct, answers.correct),
        gained=moved(answers.correct, plain.correct),
        wrong_way=moved(plain.target, answers.target),
    )


def evaluate(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    conditions: Sequence[Condition],
    sandbox: Sandbox,
    samples: int = 1,
    temperature: float = 1.0,
    store: SavedCompletions | None = None,
    seed: int = 0,
    progress: Callable[[str, int], None] = lambda condition, rows: None,
) -> tuple[list[ConditionResult], dict[str, Answers]]:
    """Answer and measure. The others are compared with the first condition."""
    answers = {
        condition.name: answer(
            model, tokenizer, task_set, condition, sandbox, samples, temperature, store, seed,
            progress=lambda rows, name=condition.name: progress(name, rows),
        )
        for condition in conditions
    }  # fmt: skip
    plain = answers[conditions[0].name]
    return [measure(condition, answers[condition.name], plain, task_set) for condition in conditions], answers


def divergence_of(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    conditions: Sequence[Condition],
    progress: Callable[[int], None] = lambda texts: None,
) -> dict[str, Divergence]:
    """The divergence of every condition that steers, by name, on held-out texts."""
    steering = [condition for condition in conditions if condition.alpha != 0 and not condition.asked]
    divergences: dict[str, Divergence] = {}
    for _, alike in itertools.groupby(steering, key=lambda condition: id(condition.directions)):
        alike = list(alike)
        with under(model, alike[0]):
            alphas, k = [condition.alpha for condition in alike], len(alike)
            found = measure_divergence(model, tokenizer, texts, alphas, progress=lambda n, k=k: progress(n * k))
        divergences |= {condition.name: moved for condition, moved in zip(alike, found, strict=True)}
    return divergences
