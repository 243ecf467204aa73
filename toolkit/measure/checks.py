"""Three checks that a steering passes or fails at its shipped strength: does it do what it says, does it leave the
rest alone, and does it still work when the prompts are phrased differently?"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.intervals import Estimate, estimate, paired
from ..foundation.sandbox import Sandbox
from .divergence import Divergence
from .evaluate import Answers
from .labelled_tasks import LOG_ODDS
from .respond import respond
from .saved_completions import SavedCompletions
from .settings import CHANCE
from .tasks import TaskSet, with_header


PHRASINGS = ("\n", "Next:\n\n", "---\n", "# 2\n")
"""The text before a prompt in each of four phrasings, for task sets without phrasings."""

PARAPHRASED = "in other words"

TEMPERATURE = 0.8

TASKS = 100
"""Most tasks that robustness is measured on."""


@dataclass(frozen=True)
class Check:
    """The result of one check. why: the numbers that decided it, in words."""

    name: str
    passed: bool
    why: str


@dataclass(frozen=True)
class Phrasing:
    """Prompts phrased differently, sampled at temperature 0.8 (labelled pairs are scored). change: the gain on plain,
    task by task, in the share of correct answers in the target, or for pairs in the log-odds. lost: the loss in the
    share of correct answers."""

    name: str
    plain: Estimate
    steered: Estimate
    change: Estimate
    lost: float


def score_answers(answers: Answers, pairs: bool) -> list[float]:
    """The value of each answer that the checks want more of: correct and in the target; for a pair, its log-odds."""
    if pairs:
        return [grade.measures[LOG_ODDS] for grade in answers.grades]
    return [grade.correct * grade.target for grade in answers.grades]


def controllability(answers: dict[str, Answers], task_set: TaskSet, supported: bool = True) -> Check:
    """Whether the interval of the steered share lies above plain's and above that of every draw of random directions;
    for pairs, whether the log-odds gain on each of these, pair by pair. It fails if the fit does not support the
    directions: such a direction is chance, and may point the right way by chance."""
    check = _beats_chance(answers, task_set)
    if supported:
        return check
    why = "no head reads the labels better than shuffled ones (the fit's permutation test)"
    return Check(check.name, False, f"{why}; {check.why}")


def _beats_chance(answers: dict[str, Answers], task_set: TaskSet) -> Check:
    steered = answers["steered"]
    groups = [task.group for task in task_set.tasks for _ in range(steered.samples)]
    ours = score_answers(steered, task_set.pairs)
    others = {
        name: score_answers(share, task_set.pairs)
        for name, share in answers.items()
        if name.startswith(("plain", "rand"))
    }
    if task_set.pairs:
        gains = {name: paired(ours, values, groups) for name, values in others.items()}
        least = min(gains, key=lambda name: gains[name].low)
        why = f"log-odds {gains[least].plain()} nats above {least}, the nearest"
        return Check("controllability", bool(gains[least].low > 0), why)
    share, shares = estimate(ours, groups), {name: estimate(values, groups) for name, values in others.items()}
    best = max(shares, key=lambda name: shares[name].high)
    what = "correct and " if task_set.sound == "correct" else ""
    why = f"{what}in the target: {share.percent()}, against {shares[best].percent()} of {best}, the nearest"
    return Check("controllability", bool(share.low > shares[best].high), why)


def utility(
    answers: dict[str, Answers],
    task_set: TaskSet,
    neutral: Divergence,
    guard: float,
    perplexity_guard: float,
    own: dict[str, list[float]] | None = None,
    damage: Estimate | None = None,
) -> Check:
    """Whether the share of correct (or intact) answers, the share that answer their own request, and the perplexity of
    texts that say nothing of the behaviour, stay within their guards. own: `answering` of "plain" and "steered"; where
    plain's share is not above chance it tells nothing, and is left out. damage: the change of right choices among
    pairs that have nothing to do with the behaviour."""
    ratio = math.exp(neutral.nll_change.mean)
    right = ratio <= perplexity_guard
    why = f"perplexity {ratio:.3f} times plain's, at most {perplexity_guard:g}"
    if damage is not None:
        right = right and damage.mean >= -guard - 1e-9
        why = f"right choices: {damage.points()} points of {damage.n}; {why}"
    if task_set.sound:
        steered, plain = answers["steered"], answers["plain"]
        groups = [task.group for task in task_set.tasks for _ in range(steered.samples)]
        change = paired(steered.correct, plain.correct, groups)
        right = right and change.mean >= -guard - 1e-9
        if own and estimate(own["plain"], groups).low > CHANCE:
            answered = paired(own["steered"], own["plain"], groups)
            right = right and answered.mean >= -guard - 1e-9
            why = f"answers to their own request: {answered.points()} points; {why}"
        why = f"{task_set.sound}: {change.points()} points, at most {100 * guard:g} may be lost; {why}"
    return Check("utility", bool(right), why)


def rephrase_tasks(task_set: TaskSet, most: int = TASKS) -> list[tuple[str, TaskSet]]:
    """The task set in four other phrasings, and in other words if it has paraphrases."""
    ways = task_set.phrasings or tuple(
        (repr(before), lambda task, before=before: with_header(task, before)) for before in PHRASINGS
    )
    if task_set.paraphrase is not None:
        ways = (*ways, (PARAPHRASED, task_set.paraphrase))
    few = replace(task_set, tasks=task_set.tasks[:most], asked=None, paraphrase=None)
    return [(name, replace(few, prompt_of=way, name=f"{task_set.name}, {name}")) for name, way in ways]


def robustness(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    alpha: float,
    sandbox: Sandbox,
    guard: float,
    store: SavedCompletions | None = None,
    seed: int = 0,
    batch_size: int = 96,
    progress: Callable[[int], None] = lambda rows: None,
    most: int = TASKS,
) -> tuple[Check, list[Phrasing]]:
    """Whether the steering gains on plain in each of four phrasings, and in other words where the tasks have
    paraphrases, at temperature 0.8, and loses no more than `guard` of the correct answers over all of them. Plain and
    steered answers of a task are rows of one batch. most: how many tasks are tried."""
    store, phrasings = store or SavedCompletions(None, {}), []
    for number, (name, rephrased) in enumerate(rephrase_tasks(task_set, most)):
        answers = {}
        tasks = rephrased.tasks
        half = max(1, batch_size // 2)
        for at in range(0, len(tasks), half):
            batch = list(range(at, min(at + half, len(tasks))))
            if any(store.get(f"{name}, {strength:g}", i, 0) is None for i in batch for strength in (0.0, alpha)):
                torch.manual_seed(1_000_003 * seed + 1009 * number + at)
                sampling = {} if rephrased.pairs else {"do_sample": True, "temperature": TEMPERATURE}
                both = [tasks[i] for i in batch] * 2
                alphas = [0.0] * len(batch) + [alpha] * len(batch)
                texts = respond(
                    model, tokenizer, rephrased, both, [False] * len(both), alphas, batch_size=batch_size, **sampling
                )
                keys = [(f"{name}, {strength:g}", i, 0) for strength in (0.0, alpha) for i in batch]
                store.add([(*key, text) for key, text in zip(keys, texts, strict=True)])
            progress(2 * len(batch))
        for condition, strength in (("plain", 0.0), ("steered", alpha)):
            texts = [store.get(f"{name}, {strength:g}", i, 0) for i in range(len(tasks))]
            answers[condition] = Answers(condition, 1, texts, rephrased.grade(tasks, texts, sandbox))
        groups = [task.group for task in tasks]
        plain, steered = (score_answers(answers[condition], rephrased.pairs) for condition in ("plain", "steered"))
        lost = sum(answers["plain"].correct) - sum(answers["steered"].correct)
        phrasings.append(
            Phrasing(
                name,
                estimate(plain, groups),
                estimate(steered, groups),
                paired(steered, plain, groups),
                lost / len(tasks),
            )
        )
    worst = min(phrasings, key=lambda phrasing: phrasing.change.low)
    lost = sum(phrasing.lost for phrasing in phrasings) / len(phrasings)
    unit = f"{worst.change.plain()} nats" if task_set.pairs else f"{worst.change.points()} points"
    ways = f"{len(phrasings)} phrasings"
    if task_set.paraphrase is not None:
        ways = f"{len(phrasings) - 1} phrasings and in other words,"
    why = f"gains at least {unit} in {ways} of {len(task_set.tasks[:most])} tasks"
    if task_set.sound:
        why += f" at temperature {TEMPERATURE:g}; {task_set.sound}: {-100 * lost:+.1f} points over all"
    return Check("robustness", bool(worst.change.low > 0 and lost <= guard + 1e-9), why), phrasings
