"""Labelled sets from NeoCoder's human solutions or from a model's solutions: novel against ordinary."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import roc_auc_score

from ..data.labelled_set import Example
from ..data.run_programs import Outcome, extract_code, run_samples
from ..data.splits import fold_ids
from ..data.text_baseline import text_baseline
from ..foundation.sandbox import Sandbox
from .problems import Problem, python_solutions, without_spaces
from .techniques import techniques


CALIBRATED = 0.9
"""The share of accepted human solutions that has to pass the samples. Below it the problem accepts several answers, so
samples cannot judge."""


COMMON = 0.25
"""A technique is ordinary in a problem if at least this share of the other solutions uses it."""


MINIMUM = 8
"""How many solutions a problem needs before a technique can be called rare among them."""


LENGTH_RATIO = 1.25
"""The longer of two matched solutions has at most this many times the characters of the shorter."""


@dataclass
class Built:
    """A labelled set, how many rows each step left, and how well the texts alone predict the labels."""

    examples: list[Example]
    counts: list[tuple[str, int]] = field(default_factory=list)
    text_auc: float = float("nan")
    length_auc: float = float("nan")


def build_from_humans(
    problems: Sequence[Problem],
    sandbox: Sandbox,
    prompt_of: Callable[[Problem], str],
    completion_of: Callable[[str], str] = lambda code: code.rstrip() + "\n",
    rare: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] = lambda programs: None,
) -> Built:
    """Label 1: uses a core technique that at most `rare` of the problem's other solutions use. Label 0: uses only
    techniques that at least a quarter of the others use. Balanced and length-matched within each problem."""
    counts = [("human solutions", sum(len(problem.humans) for problem in problems))]
    python = {problem.id: python_solutions(problem) for problem in problems}
    counts.append(("in Python 3, without duplicates", sum(map(len, python.values()))))
    flat = [(problem, text) for problem in problems for text in python[problem.id]]
    outcomes = run_samples([t for _, t in flat], [p.samples for p, _ in flat], sandbox, progress)
    results: dict[str, list[tuple[str, Outcome]]] = {problem.id: [] for problem in problems}
    for (problem, text), outcome in zip(flat, outcomes, strict=True):
        results[problem.id].append((text, outcome))
    counts.append(("of them, pass the samples", sum(outcome.passed for outcome in outcomes)))

    pool: dict[str, list[str]] = {}
    judged = 0
    for problem in problems:
        own = results[problem.id]
        can_judge = bool(own) and np.mean([outcome.passed for _, outcome in own]) >= CALIBRATED
        judged += can_judge
        pool[problem.id] = [text for text, outcome in own if (outcome.passed if can_judge else outcome.ran)]
    counts.append((f"problems whose samples can judge (at least {CALIBRATED:.0%} of the accepted pass)", judged))
    counts.append(("solutions kept: pass there, run elsewhere", sum(map(len, pool.values()))))
    large = [problem for problem in problems if len(pool[problem.id]) >= MINIMUM]
    counts.append((f"problems with at least {MINIMUM} of them", len(large)))

    examples, novel, ordinary = [], 0, 0
    for problem in large:
        ones, zeros = _novel_and_ordinary(pool[problem.id], rare)
        novel, ordinary = novel + len(ones), ordinary + len(zeros)
        for one, zero in _length_matched(ones, zeros):
            for label, text in ((0, zero), (1, one)):
                examples.append(Example(prompt_of(problem), completion_of(text), label, problem.id))
    counts.append((f"novel: a technique that at most {rare} of the others use", novel))
    counts.append((f"ordinary: only techniques that {COMMON:.0%} of the others use", ordinary))
    return _finished(examples, counts, seed)


def _novel_and_ordinary(programs: Sequence[str], rare: int) -> tuple[list[str], list[str]]:
    used = [techniques(text).core for text in programs]
    count = Counter(name for names in used for name in names)
    others = len(programs) - 1
    novel, ordinary = [], []
    for text, names in zip(programs, used, strict=True):
        if any(count[name] - 1 <= rare for name in names):
            novel.append(text)
        elif names and all(count[name] - 1 >= COMMON * others for name in names):
            ordinary.append(text)
    return novel, ordinary


def _length_matched(ones: Sequence[str], zeros: Sequence[str]) -> list[tuple[str, str]]:
    """As many pairs as possible, each within `LENGTH_RATIO`, with the smallest total difference in log length."""
    if not ones or not zeros:
        return []
    distance = np.abs(np.log([len(a) for a in ones])[:, None] - np.log([len(b) for b in zeros])[None])
    allowed = distance <= np.log(LENGTH_RATIO)
    rows, columns = linear_sum_assignment(np.where(allowed, distance, 1e3))
    return [(ones[i], zeros[j]) for i, j in zip(rows, columns, strict=True) if allowed[i, j]]


def build_from_samples(
    problems: Sequence[Problem],
    samples: Sequence[dict],
    sandbox: Sandbox,
    seed: int = 0,
    progress: Callable[[int], None] = lambda programs: None,
) -> Built:
    """A model's correct solutions, labelled as for the earlier NeoCoder directions: label 1 if at least 0.1 of their
    techniques appear in no human solution of the problem, label 0 if none do. `samples` are rows of `dataset
    generate`."""
    by_id = {problem.id: problem for problem in problems}
    rows = []
    for number, sample in enumerate(samples, 1):
        if sample.get("problem_id") not in by_id:
            raise ValueError(f"row {number}: problem_id is {sample.get('problem_id')!r}; expected one of NeoCoder's")
        rows.append((by_id[sample["problem_id"]], sample, extract_code(sample["completion"])))
    counts = [("samples", len(rows))]
    unique = {(problem.id, without_spaces(code)): (problem, sample, code) for problem, sample, code in reversed(rows)}
    rows = list(reversed(unique.values()))
    counts.append(("without duplicates", len(rows)))
    outcomes = run_samples([code for *_, code in rows], [p.samples for p, *_ in rows], sandbox, progress)
    rows = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome.passed]
    counts.append(("correct on the samples", len(rows)))
    human = {
        problem.id: frozenset().union(*(techniques(text).neocoder for text in python_solutions(problem)))
        for problem in {problem.id: problem for problem, *_ in rows}.values()
    }
    examples = []
    for problem, sample, code in rows:
        used = techniques(code).neocoder
        ratio = len(used - human[problem.id]) / len(used) if used else 0.0
        if ratio >= 0.1 or ratio == 0:
            label = int(ratio >= 0.1)
            examples.append(
                Example(sample["prompt"], sample["completion"], label, problem.id, meta={"new_ratio": ratio})
            )
    return _finished(examples, counts, seed)


def _finished(examples: list[Example], counts: list[tuple[str, int]], seed: int) -> Built:
    labels = Counter(example.label for example in examples)
    counts.append(("rows of label 1", labels[1]))
    counts.append(("rows of label 0", labels[0]))
    counts.append(("groups (problems)", len({example.group for example in examples})))
    built = Built(examples, counts)
    y = np.array([example.label for example in examples])
    groups = np.array([example.group for example in examples])
    try:
        folds = fold_ids(y, groups, 5, seed)
    except ValueError:  # too few rows; the counts show it
        return built
    texts = [example.completion for example in examples]
    scores = {"text_auc": text_baseline(texts, y, folds), "length_auc": np.array([len(text) for text in texts], float)}
    for name, score in scores.items():
        setattr(built, name, float(np.mean([roc_auc_score(y[folds == f], score[folds == f]) for f in range(5)])))
    return built
