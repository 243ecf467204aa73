"""NeoCoder at a state of constraints as a task set (target: a technique that no human solution uses), and its human
rows."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from transformers import PreTrainedTokenizerBase

from ..data.run_programs import extract_code, run_samples
from ..data.style import style_of
from ..foundation.intervals import Estimate, estimate
from ..foundation.sandbox import Sandbox
from ..measure.divergence import Text
from ..measure.grade import Grade
from ..measure.tasks import TaskSet
from .code_tasks import program_in
from .label_solutions import CALIBRATED
from .problems import Problem, python_solutions
from .sample_solutions import prompt_for
from .techniques import techniques


@dataclass(frozen=True)
class NeoTask:
    """A problem at a state: its prompt, its tests, the forbidden techniques, and those that humans use."""

    prompt: str
    group: str
    asked: str
    tests: tuple[tuple[str, str], ...]
    constraints: frozenset[str]
    human_neocoder: frozenset[str]
    human_core: frozenset[str]
    first_human: str


def neocoder_set(
    problems: Sequence[Problem], state: int, tokenizer: PreTrainedTokenizerBase | None, name: str = "neocoder"
) -> TaskSet:
    """The problems that have the state. Our detector finds the techniques, for the model and for the humans."""
    tasks = []
    for problem in problems:
        if state < len(problem.statements) and problem.samples:
            used = [techniques(text) for text in python_solutions(problem)]
            statement = problem.statements[state]
            creative = f"Be creative: use a technique that others would not think of.\n\n{statement}"
            tasks.append(
                NeoTask(
                    prompt=prompt_for(statement, tokenizer),
                    group=problem.id,
                    asked=prompt_for(creative, tokenizer),
                    tests=problem.samples,
                    constraints=problem.constraints[state],
                    human_neocoder=frozenset().union(*(one.neocoder for one in used)),
                    human_core=frozenset().union(*(one.core for one in used)),
                    first_human=next(iter(python_solutions(problem)), ""),
                )
            )
    if not tasks:
        raise ValueError(f"no problem has state {state}; expected 0 to {max(len(p.statements) for p in problems) - 1}")
    texts = {"human code": [Text(task.prompt, task.first_human, task.group) for task in tasks if task.first_human]}
    return TaskSet(
        f"{name}:{state}", tasks, "novel", attrgetter("asked"), _grade_neocoder, texts, 1024, answer_of=program_in
    )


def _grade_neocoder(tasks: Sequence[NeoTask], completions: Sequence[str], sandbox: Sandbox) -> list[Grade]:
    """NeoGauge's parts for each answer (Lu et al. 2025, equations 1 to 4): `follows` the constraints, `convergent`
    (follows and correct), `divergent` (share of its techniques that no human uses), `neogauge` (their product);
    `divergent_core` uses the extended list. Code that does not parse uses no technique, so it is neither."""
    programs = [extract_code(text) for text in completions]
    outcomes = run_samples(programs, [task.tests for task in tasks], sandbox)
    grades = []
    for task, program, outcome in zip(tasks, programs, outcomes, strict=True):
        try:
            used = techniques(program)
        except ValueError:
            zero = dict.fromkeys(("follows", "convergent", "divergent", "neogauge", "divergent_core"), 0.0)
            grades.append(Grade(False, "unparsable", False, zero))
            continue
        follows = not used.neocoder & task.constraints
        divergent = len(used.neocoder - task.human_neocoder) / len(used.neocoder) if used.neocoder else 0.0
        core = len(used.core - task.human_core) / len(used.core) if used.core else 0.0
        convergent = float(follows and outcome.passed)
        measures = {
            "follows": float(follows),
            "convergent": convergent,
            "divergent": divergent,
            "neogauge": convergent * divergent,
            "divergent_core": core,
        }
        grades.append(Grade(outcome.passed, style_of(program), divergent > 0, measures))
    return grades


def calibrated(
    problems: Sequence[Problem], sandbox: Sandbox, progress: Callable[[int], None] = lambda programs: None
) -> list[Problem]:
    """The problems whose samples can judge: at least `CALIBRATED` of the accepted Python solutions pass them."""
    programs = [(problem, text) for problem in problems for text in python_solutions(problem)]
    outcomes = run_samples([t for _, t in programs], [p.samples for p, _ in programs], sandbox, progress)
    passed: dict[str, list[bool]] = {}
    for (problem, _), outcome in zip(programs, outcomes, strict=True):
        passed.setdefault(problem.id, []).append(outcome.passed)
    return [p for p in problems if p.id in passed and sum(passed[p.id]) >= CALIBRATED * len(passed[p.id])]


def strengthened(
    problems: Sequence[Problem],
    sandbox: Sandbox,
    judges: int = 6,
    mutants: int = 4,
    seed: int = 0,
    progress: Callable[[int], None] = lambda programs: None,
) -> list[Problem]:
    """The problems with more tests: samples with changed numbers, kept if `judges` accepted human solutions all run
    and agree. Problems with fewer judges stay as they are."""
    jobs, owners = [], []
    for problem in problems:
        humans = python_solutions(problem)[:judges]
        rng = random.Random(f"{seed}:{problem.id}")
        for mutant in {_mutate(problem.samples[0][0], rng) for _ in range(mutants)} if len(humans) == judges else ():
            owners.append((problem.id, mutant))
            jobs.append([(text, mutant) for text in humans])
    runs = []
    flat = [job for part in jobs for job in part]
    for at in range(0, len(flat), 64):
        runs += sandbox.run_all(flat[at : at + 64])
        progress(len(flat[at : at + 64]))
    more: dict[str, list[tuple[str, str]]] = {}
    for index, (name, mutant) in enumerate(owners):
        own = runs[index * judges : (index + 1) * judges]
        answers = {" ".join(run.stdout.lower().split()) for run in own}
        if len(answers) == 1 and answers != {""} and all(run.returncode == 0 and not run.stopped for run in own):
            more.setdefault(name, []).append((mutant, own[0].stdout.strip()))
    return [
        replace(problem, samples=problem.samples + tuple(sorted(more.get(problem.id, [])))) for problem in problems
    ]


def _mutate(stdin: str, rng: random.Random) -> str:
    """The input with one to three of its numbers changed, each to a number between the smallest and the largest of its
    line, or to a neighbour. The first line, which counts, stays as it is if others follow."""
    lines = stdin.rstrip("\n").split("\n")
    where = [
        (i, j)
        for i, line in enumerate(lines)
        for j, word in enumerate(line.split())
        if re.fullmatch(r"-?\d+", word) and (i > 0 or len(lines) == 1)
    ]
    for i, j in rng.sample(where, min(len(where), rng.randint(1, 3))):
        words = lines[i].split()
        numbers = [int(word) for word in words if re.fullmatch(r"-?\d+", word)]
        old = int(words[j])
        words[j] = str(rng.choice([max(old - 1, min(0, old)), old + 1, rng.randint(min(numbers), max(numbers))]))
        lines[i] = " ".join(words)
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class HumanRow:
    """convergent: the share of human solutions that follow the constraints of a state (Lu et al. 2025, equation 5;
    they were accepted, so correctness is 1), over `problems` problems. published: the paper's figure, on all 199
    problems."""

    state: int
    convergent: Estimate
    problems: int
    published: float


PUBLISHED_CONVERGENT = (1.0, 0.361, 0.148, 0.049, 0.023, 0.017)
"""The human row of Lu et al. 2025, by state."""


def human_convergent(problems: Sequence[Problem]) -> list[HumanRow]:
    """The human rows by state, from the techniques in NeoCoder's files."""
    rows = []
    for state, published in enumerate(PUBLISHED_CONVERGENT):
        own = [p for p in problems if state < len(p.statements) and p.human_labels]
        follows = [(not labels & p.constraints[state], p.id) for p in own for labels in p.human_labels]
        if follows:
            rows.append(HumanRow(state, estimate(*zip(*follows, strict=True)), len(own), published))
    return rows


def human_divergent(problems: Sequence[Problem]) -> Estimate:
    """Mean share of a human solution's techniques that no other human solution of the problem uses (equation 6)."""
    shares = []
    for problem in problems:
        for i, labels in enumerate(problem.human_labels):
            others = frozenset().union(*problem.human_labels[:i], *problem.human_labels[i + 1 :])
            shares.append((len(labels - others) / len(labels) if labels else 0.0, problem.id))
    return estimate(*zip(*shares, strict=True))
