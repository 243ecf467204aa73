"""What the steering does: the same tasks under several conditions, executed, with intervals and paired differences."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from iti_llama import ITIDirections, ITILlamaForCausalLM

from .capture import fingerprint, fingerprint_of
from .completion import complete, function_body
from .damage import Damage, Text, degenerate, measure_damage
from .grading import Grade
from .intervals import Estimate, estimate, paired
from .sandbox import Sandbox
from .store import Store
from .tasksets import TaskSet


@dataclass(frozen=True)
class Condition:
    """One way to answer the tasks.

    alpha: strength. directions: None for the model's own. asked: the prompt asks for the behaviour in words.
    """

    name: str
    alpha: float = 0.0
    directions: ITIDirections | None = None
    asked: bool = False


@dataclass(frozen=True)
class Answers:
    """The completions of one condition and their grades: `samples` of each task, one after the other."""

    condition: str
    samples: int
    completions: list[str]
    grades: list[Grade]

    @property
    def correct(self) -> list[bool]:
        return [one.correct for one in self.grades]

    @property
    def target(self) -> list[bool]:
        return [one.target for one in self.grades]

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
class Measured:
    """One row of the result. Rates are shares of all completions; *_change is the paired difference to the plain
    condition. pass_at: {k: estimate}. target: the share that behaves as wanted. measures: means of the task set's own
    measures. lost: prompts solved when plain (by any sample) and not now; gained: the reverse. wrong_way: prompts whose
    completions were in the target when plain (by any sample) and are not now."""

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
        return asdict(self)


def random_directions(directions: ITIDirections, seed: int) -> ITIDirections:
    """The control: the same heads and sigmas, so offsets of equal norm, with random unit directions."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(directions.directions.shape, generator=generator, dtype=torch.float64)
    return replace(directions, directions=torch.nn.functional.normalize(drawn, dim=-1).float(), scores=None)


def standard_conditions(model: ITILlamaForCausalLM, alpha: float | None = None, draws: int = 3) -> list[Condition]:
    """Plain, steered, minus alpha, random directions, asked in words without steering, and that at minus alpha."""
    alpha = model.iti_alpha if alpha is None else alpha
    used = model.iti_directions.top(model.iti_top_k)
    return [
        Condition("plain"),
        Condition("steered", alpha),
        Condition("minus alpha", -alpha),
        *(Condition(f"random {i + 1}", alpha, random_directions(used, i + 1)) for i in range(draws)),
        Condition("asked in words", asked=True),
        Condition("asked in words, minus alpha", -alpha, asked=True),
    ]


def settings_of(
    model: ITILlamaForCausalLM, task_set: TaskSet, alpha: float, samples: int, temperature: float, seed: int
) -> dict:
    """All that the completions of `standard_conditions` depend on, for a `Store`: weights, directions and prompts by hash."""
    used = model.iti_directions.top(model.iti_top_k)
    prompts = json.dumps([(task.prompt, task_set.asked(task)) for task in task_set.tasks]).encode()
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
        "prompts": hashlib.sha256(prompts).hexdigest()[:16],
    }


@contextmanager
def under(model: ITILlamaForCausalLM, condition: Condition) -> Iterator[None]:
    """Inside the block the model has the condition's directions; its own, with its K, are put back."""
    own, top_k = model.iti_directions, model.iti_top_k
    if condition.directions is None:
        yield
        return
    model.iti_top_k = None
    model.set_iti_directions(condition.directions)
    try:
        yield
    finally:
        model.set_iti_directions(own)
        model.iti_top_k = top_k


def answer(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    condition: Condition,
    sandbox: Sandbox,
    samples: int = 1,
    temperature: float = 1.0,
    store: Store | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda rows: None,
) -> Answers:
    """Complete every task under one condition, greedily or, for more than one sample, at `temperature`; run the programs.

    Batches, and the seed of each, depend on the tasks alone: a run that goes on from a `store` gives the completions of
    one that was never killed.
    """
    store = store or Store(None, {})
    ask = task_set.asked if condition.asked else (lambda task: task.prompt)
    prompts = [ask(task) for task in task_set.tasks for _ in range(samples)]
    order = sorted(range(len(prompts)), key=lambda unit: len(prompts[unit]))
    sampling = {"do_sample": True, "temperature": temperature} if samples > 1 else {}
    with under(model, condition):
        for at in range(0, len(order), batch_size):
            batch = order[at : at + batch_size]
            if any(store.get(condition.name, *divmod(unit, samples)) is None for unit in batch):
                name = hashlib.sha256(f"{seed}:{condition.name}:{at}".encode()).digest()
                torch.manual_seed(int.from_bytes(name[:7], "big"))
                texts = complete(
                    model,
                    tokenizer,
                    [prompts[unit] for unit in batch],
                    [condition.alpha] * len(batch),
                    max_new_tokens=task_set.max_new_tokens,
                    batch_size=batch_size,
                    **sampling,
                )
                units = zip(batch, texts, strict=True)
                store.add([(condition.name, *divmod(unit, samples), text) for unit, text in units])
            progress(len(batch))
    completions = [store.get(condition.name, *divmod(unit, samples)) for unit in range(len(prompts))]
    repeated = [task for task in task_set.tasks for _ in range(samples)]
    return Answers(condition.name, samples, completions, task_set.grade(repeated, completions, sandbox))


def measure(condition: Condition, answers: Answers, plain: Answers, task_set: TaskSet) -> Measured:
    n, tasks = answers.samples, task_set.tasks
    by_task = [task.group for task in tasks]
    groups = [group for group in by_task for _ in range(n)]

    def any_of(flags: list[bool]) -> list[bool]:
        return [any(flags[at : at + n]) for at in range(0, len(flags), n)]

    def moved(before: list[bool], after: list[bool]) -> list[str]:
        return [t.prompt for t, b, a in zip(tasks, any_of(before), any_of(after), strict=True) if b and not a]

    return Measured(
        condition=condition.name,
        alpha=condition.alpha,
        correct=estimate(answers.correct, groups),
        correct_change=paired(answers.correct, plain.correct, groups),
        pass_at={k: estimate(answers.pass_at(k), by_task) for k in (1, 5, 10, 50) if k <= n},
        target=estimate(answers.target, groups),
        target_change=paired(answers.target, plain.target, groups),
        measures={
            name: estimate([one.measures[name] for one in answers.grades], groups)
            for name in answers.grades[0].measures
        },
        degenerate=estimate(answers.degenerate, groups),
        characters=estimate([len(function_body(text)) for text in answers.completions], groups),
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
    store: Store | None = None,
    seed: int = 0,
    progress: Callable[[str, int], None] = lambda condition, rows: None,
) -> tuple[list[Measured], dict[str, Answers]]:
    """Answer and measure. The first condition is what the others are compared with."""
    answers = {
        condition.name: answer(
            model, tokenizer, task_set, condition, sandbox, samples, temperature, store, seed,
            progress=lambda rows, name=condition.name: progress(name, rows),
        )
        for condition in conditions
    }  # fmt: skip
    plain = answers[conditions[0].name]
    return [measure(condition, answers[condition.name], plain, task_set) for condition in conditions], answers


def damage_of(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    conditions: Sequence[Condition],
    progress: Callable[[int], None] = lambda texts: None,
) -> dict[str, Damage]:
    """The damage of every condition that steers, by name, on held-out texts."""
    found = {}
    for condition in conditions:
        if condition.alpha != 0 and not condition.asked:
            with under(model, condition):
                (found[condition.name],) = measure_damage(
                    model, tokenizer, texts, [condition.alpha], progress=progress
                )
    return found


def markdown(rows: Sequence[Measured], target: str, damage: dict[str, Damage] | None = None) -> str:
    """The result as a table for a model card."""
    damage = damage or {}
    names = list(rows[0].measures)
    heads = ["condition", "alpha", "correct (pass@1)", "change, points", target, "change, points", *names]
    heads += ["degenerate", "characters", "KL, nats a token", "KL, 95th percentile", "n"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        own = damage.get(row.condition)
        change = ("", "") if row is rows[0] else (row.correct_change.points(), row.target_change.points())
        cells = [row.condition, f"{row.alpha:g}", row.correct.percent(), change[0], row.target.percent(), change[1]]
        cells += [row.measures[name].percent() for name in names]
        cells += [row.degenerate.percent(), f"{row.characters.mean:.0f}"]
        cells += [f"{own.kl.mean:.3f} [{own.kl.low:.3f}, {own.kl.high:.3f}]", f"{own.kl_95:.3f}"] if own else ["", ""]
        lines.append("| " + " | ".join([*cells, str(row.correct.n)]) + " |")
    return "\n".join(lines)


def damage_table(damage: dict[str, dict[str, Damage]]) -> str:
    """Perplexity and KL on every set of held-out texts, as a table for a model card."""
    lines = [
        "| held-out text | condition | perplexity plain | steered | change of log-likelihood, nats a token | KL | tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for text, own in damage.items():
        for condition, d in own.items():
            change = f"{-d.nll_change.mean:+.3f} [{-d.nll_change.high:+.3f}, {-d.nll_change.low:+.3f}]"
            lines.append(
                f"| {text} | {condition} | {d.perplexity_plain:.3f} | {d.perplexity_steered:.3f} | {change} "
                f"| {d.kl.mean:.3f} | {d.tokens} |"
            )
    return "\n".join(lines)
