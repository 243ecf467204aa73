"""The effects of a steering: every condition on one task set, side effects on held-out texts, a few answers."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.complete import complete
from ..foundation.intervals import estimate
from ..foundation.sandbox import Sandbox
from ..foundation.tokenize import chat_prompt
from .answering import answering
from .checks import TASKS, Check, Phrasing, controllability, robustness, utility
from .conditions import Condition, standard_conditions
from .degenerate import degenerate
from .divergence import Divergence
from .evaluate import Answers, ConditionResult, divergence_of, evaluate, settings_of
from .labelled_tasks import damage_set
from .saved_completions import SavedCompletions
from .score import Given, tokens_of
from .settings import MeasureSettings
from .summary import TOLD
from .tables import summarise
from .tasks import TaskSet


EXAMPLES = 20
"""How many prompts keep their plain and steered answers."""

EXAMPLE_TOKENS = 160


@dataclass(frozen=True)
class Measurement:
    """record: `evaluation.json`, as JSON types. divergence: {name of the texts: {condition: divergence}}. checks,
    phrasings: see `checks`."""

    record: dict
    rows: list[ConditionResult]
    answers: dict[str, Answers]
    divergence: dict[str, dict[str, Divergence]]
    checks: list[Check]
    phrasings: list[Phrasing]


def measure_steering(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    sandbox: Sandbox,
    settings: MeasureSettings | None = None,
    *,
    completions: Path | None = None,
    conditions: Sequence[Condition] | None = None,
    known: dict[str, Sequence[str]] | None = None,
    rephrased: int = TASKS,
    progress: Callable[[str, int], None] = lambda step, rows: None,
) -> Measurement:
    """Measure a steering. completions: a file from which a killed run goes on. conditions: `standard_conditions` by
    default; with others, the summary also shows those that ask in words, and the examples are the measured answers.
    known: answers that exist already, by condition. rephrased: most tasks that robustness tries in each phrasing.

    Raises:
        ValueError: if the tasks have no target, if `samples` is above 1 for pairs, or if alpha 0 is to be checked.
    """
    settings = settings or MeasureSettings()
    samples, seed, guard = settings.samples, settings.seed, settings.guard
    if not task_set.target:
        raise ValueError(f"{task_set.name}: the tasks do not say what is wanted; pass --target")
    if task_set.pairs and samples > 1:
        raise ValueError(f"samples is {samples}; expected 1: a preference between two texts is not sampled")
    if settings.checks and (model.iti_alpha if settings.alpha is None else settings.alpha) == 0:
        raise ValueError("iti_alpha is 0: nothing is steered, so there is nothing to check; expected another strength")
    unrelated = settings.damage and damage_set(settings.damage, partial(chat_prompt, tokenizer))
    if unrelated:  # refuses long ones before anything is answered
        rows = [Given(task.prompt, text) for task in unrelated.tasks for text in task.completions]
        tokens_of(model, tokenizer, rows, f"{settings.damage}: ")
    own = conditions is not None
    conditions = conditions or standard_conditions(model, settings.alpha, asked=task_set.asked is not None)
    alpha, temperature = conditions[1].alpha, settings.temperature
    made_of = settings_of(model, task_set, alpha, samples, temperature, seed)
    store = SavedCompletions(completions, made_of)
    for name, texts in (known or {}).items():
        store.add([(name, index, 0, text) for index, text in enumerate(texts)])
    rows, answers = evaluate(
        model, tokenizer, task_set, conditions, sandbox, samples, temperature, store, seed, progress=progress
    )
    divergence = {
        name: divergence_of(model, tokenizer, texts, conditions, partial(progress, f"divergence to {name}"))
        for name, texts in task_set.texts.items()
    }
    first, neutral = next(iter(task_set.texts)), list(task_set.texts)[-1]
    checks, phrasings, verdicts = [], [], {}
    if settings.checks:
        robust, phrasings = robustness(
            model, tokenizer, task_set, alpha, sandbox, guard, store, seed, most=rephrased,
            progress=partial(progress, "other phrasings"),
        )  # fmt: skip
        own_request = {}
        if task_set.sound == "intact" and samples == 1:
            asked = [getattr(task, "shown", "") or task.prompt for task in task_set.tasks]
            for name in [name for name in ("plain", "steered", TOLD) if name in answers]:
                own_request[name] = answering(model, tokenizer, asked, answers[name].completions, seed)
        groups = [task.group for task in task_set.tasks]
        answered = {name: asdict(estimate(values, groups)) for name, values in own_request.items()}
        lost = None
        if unrelated:
            (was, now), _ = evaluate(model, tokenizer, unrelated, conditions[:2], sandbox, progress=progress)
            lost = now.target_change
            damage = {"name": unrelated.name, "plain": asdict(was.target), "steered": asdict(now.target)}
            verdicts["damage"] = damage | {"change": asdict(lost)}
        useful = utility(
            answers, task_set, divergence[neutral]["steered"], guard, settings.perplexity_guard, own_request, lost
        )
        supported = model.iti_directions.provenance.get("supported") != "no"
        checks = [controllability(answers, task_set, supported), useful, robust]
        verdicts |= {"checks": list(map(asdict, checks)), "phrasings": list(map(asdict, phrasings))}
        verdicts |= {"guard": guard, "perplexity_guard": settings.perplexity_guard, "answering": answered}
    how = "greedy" if samples == 1 else f"{samples} samples a task at temperature {temperature:g}"
    if task_set.pairs:
        how = "the likelier of two given completions"
    wrong = next(len(row.wrong_way) for row in rows if row.condition == "steered") / len(task_set)
    further = [condition.name for condition in conditions if own and condition.asked]
    examples = _answered(task_set, answers) if own else _examples(model, tokenizer, task_set, alpha)
    record = made_of | {
        "target": task_set.target,
        "sound": task_set.sound,
        "note": task_set.note,
        "how": f"{task_set.name}, {len(task_set)} tasks (seed {seed}), {how}, {made_of['heads']} heads, scope "
        f"{model.iti_scope}. In brackets 95% intervals, bootstrapped by problem; KL on {first}. Steered the wrong "
        f"way: {100 * wrong:.1f}% of the tasks.",
        "conditions": [row.to_dict() for row in rows],
        "divergence": {
            name: {condition: moved.to_dict() for condition, moved in of_texts.items()}
            for name, of_texts in divergence.items()
        },
        **verdicts,
        "summary": [row.to_dict() for row in summarise(rows, answers, task_set, divergence[first], further)],
        "example_tokens": task_set.max_new_tokens if own else EXAMPLE_TOKENS,
        "examples": examples,
        "intact": sum(not degenerate(example["steered"]) for example in examples),
    }
    return Measurement(record, rows, answers, divergence, checks, phrasings)


def _answered(task_set: TaskSet, answers: dict[str, Answers]) -> list[dict]:
    """The first tasks, with their measured answers."""
    pairs = zip(task_set.tasks, answers["plain"].completions, answers["steered"].completions, strict=True)
    return [_example(task, plain, steered) for task, plain, steered in list(pairs)[:EXAMPLES]]


def _example(task, plain: str, steered: str) -> dict:
    shown = getattr(task, "shown", "") or task.prompt
    return {"prompt": task.prompt, "shown": shown, "plain": plain, "steered": steered}


def _examples(
    model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, task_set: TaskSet, alpha: float
) -> list[dict]:
    """The first prompts, each once, with their greedy answers."""
    tasks = list({task.prompt: task for task in task_set.tasks}.values())[:EXAMPLES]
    prompts = [task.prompt for task in tasks]
    kwargs = {"max_new_tokens": EXAMPLE_TOKENS, "batch_size": 2 * EXAMPLES}
    texts = complete(model, tokenizer, prompts * 2, [0.0] * len(tasks) + [alpha] * len(tasks), **kwargs)
    return [
        _example(task, plain, steered)
        for task, plain, steered in zip(tasks, texts[: len(tasks)], texts[len(tasks) :], strict=True)
    ]
