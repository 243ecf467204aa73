"""NeoCoder (Lu et al., NAACL 2025): its problems, and the labelled sets that come from its solutions.

NeoCoder's own files are read as they are: `NeoCoder.json`, `human_solutions.json`, `human_solution_techniques.json`,
`test_cases_annotated.json`, from a folder or from its repository. Tests are the samples in the problem statements.
"""

import ast
import hashlib
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from iti_llama.iti_directions import write_whole

from .baseline import text_baseline
from .examples import Example
from .fit import fold_ids
from .probes import auc
from .sandbox import Sandbox
from .techniques import parse, techniques


FILES = ("NeoCoder.json", "human_solutions.json", "human_solution_techniques.json", "test_cases_annotated.json")
REPOSITORY = "https://raw.githubusercontent.com/JHU-CLSP/NeoCoder/main/datasets/CodeForce/NeoCoder"
LICENSE = "Apache-2.0"

CALIBRATED = 0.9
"""Where fewer of the accepted human solutions pass the samples, several answers are accepted and samples cannot judge."""

COMMON = 0.25
"""A technique is ordinary in a problem if at least this share of the other solutions uses it."""

MINIMUM = 8
"""Solutions that a problem needs before anything can be called rare among them."""

LENGTH_RATIO = 1.25
"""The longer of two matched solutions has at most this many times the characters of the shorter."""


@dataclass(frozen=True)
class Problem:
    """statements[t], constraints[t]: the text and the forbidden techniques at state t. samples: (stdin, stdout) pairs.
    humans: solutions in any language; human_labels: the techniques that NeoCoder's files give each."""

    id: str
    title: str
    statements: tuple[str, ...]
    constraints: tuple[frozenset[str], ...]
    samples: tuple[tuple[str, str], ...]
    humans: tuple[str, ...]
    human_labels: tuple[frozenset[str], ...]


def fetch(url: str, folder: Path, sha256: dict[str, str] | None = None) -> dict[str, str]:
    """Download NeoCoder's files into `folder`, unless they are there; returns {name: SHA-256}.

    Raises:
        ValueError: if a file is not the one that `sha256` names. It is not kept.
    """
    sums = {}
    for name in FILES:
        path = folder / name
        if path.exists():
            data = path.read_bytes()
        else:
            with urllib.request.urlopen(f"{url.rstrip('/')}/{name}", timeout=60) as answer:
                data = answer.read()
        sums[name] = hashlib.sha256(data).hexdigest()
        wanted = (sha256 or {}).get(name)
        if wanted is not None and sums[name] != wanted:
            raise ValueError(f"{name}: SHA-256 is {sums[name]}; expected {wanted}")
        if not path.exists():
            write_whole(path, data)
    return sums


def load(folder: Path) -> list[Problem]:
    """Read NeoCoder's files.

    Raises:
        FileNotFoundError: if one is missing. ValueError: if one is not in NeoCoder's schema; the message names it.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: no {name}; expected NeoCoder's files {', '.join(FILES)}")
    try:
        problems, humans, labels, cases = (json.loads((folder / name).read_text(encoding="utf-8")) for name in FILES)
        raw = {case["problem_id"]: case["problem_statement"] for case in cases}
        return [
            _problem(
                entry,
                raw[entry["problem_id"]],
                humans.get(entry["problem_id"], []),
                labels.get(entry["problem_id"], []),
            )
            for entry in problems
            if entry["problem_id"] in raw
        ]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: not NeoCoder's files ({type(error).__name__}: {error})") from error


def _problem(entry: dict, raw: str, humans: list[str], labels: list[list[str]]) -> Problem:
    statements = entry["problem_statements"]
    constraints = [frozenset(part) for part in entry["constraints_list"]]
    constraints[0] = frozenset()  # the files say 'this is the og problem' there
    kept = [0]  # a state that adds nothing repeats the one before
    for state in range(1, len(constraints)):
        if constraints[state] != constraints[kept[-1]]:
            kept.append(state)
    return Problem(
        id=entry["problem_id"],
        title=statements[0].split("\n", 1)[0].strip(),
        statements=tuple(re.sub(r"^- *\n", "", statements[state], flags=re.MULTILINE) for state in kept),
        constraints=tuple(constraints[state] for state in kept),
        samples=parse_samples(raw),
        humans=tuple(text.replace("\r\n", "\n") for text in humans),
        human_labels=tuple(frozenset(part) for part in labels),
    )


def parse_samples(statement: str) -> tuple[tuple[str, str], ...]:
    """(stdin, stdout) of every sample in a raw problem statement."""
    examples = re.search(r"\nExamples?\s*\n(.*)", statement, re.DOTALL)
    if examples is None:
        return ()
    text = re.split(r"\nNote\n", examples[1])[0]
    parts = re.findall(r"(?:^|\n)Input\n(.*?)\nOutput\n(.*?)(?=\nInput\n|\Z)", text, re.DOTALL)
    return tuple((stdin.strip("\n") + "\n", stdout.strip()) for stdin, stdout in parts)


def extract_code(text: str) -> str:
    """The program in a model's answer: its first fence, which may lack its end; else from the first import or definition on."""
    fence = re.search(r"```(?:python3?|py)?[ \t]*\n(.*?)(?:\n```|\Z)", text, re.DOTALL | re.IGNORECASE)
    if fence:
        return fence[1] + "\n"
    start = re.search(r"^(?:import|from|def|class|for|while|n\b|t\b)", text, re.MULTILINE)
    return (text[start.start() :] if start else text).rstrip() + "\n"


def runnable(program: str) -> str:
    """The program, with a call of `solve()` at the end where that is defined and never called."""
    try:
        tree = parse(program)
    except ValueError:
        return program
    defined = any(isinstance(n, ast.FunctionDef) and n.name == "solve" and not n.args.args for n in tree.body)
    called = any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "solve" for n in ast.walk(tree)
    )
    return program + "\nsolve()\n" if defined and not called else program


@dataclass(frozen=True)
class Outcome:
    """How a program did on the samples. ran: to its end, without error."""

    passed: bool
    ran: bool


def run_samples(
    programs: Sequence[str],
    samples: Sequence[Sequence[tuple[str, str]]],
    sandbox: Sandbox,
    progress: Callable[[int], None] = lambda programs: None,
) -> list[Outcome]:
    """Run each program on its samples. Answers are compared by tokens, whatever their case. The sandbox gets the input alone."""
    jobs = [(runnable(p), stdin, stdout) for p, own in zip(programs, samples, strict=True) for stdin, stdout in own]
    unique = {(program, stdin): None for program, stdin, _ in jobs}
    done = {}
    keys = list(unique)
    for at in range(0, len(keys), 64):
        part = keys[at : at + 64]
        done.update(zip(part, sandbox.run_all(part), strict=True))
        progress(len(part))
    outcomes, at = [], 0
    for own in samples:
        mine = jobs[at : at + len(own)]
        at += len(own)
        runs = [(done[program, stdin], stdout) for program, stdin, stdout in mine]
        ran = bool(runs) and all(run.returncode == 0 and not run.stopped for run, _ in runs)
        passed = ran and all(run.stdout.lower().split() == stdout.lower().split() for run, stdout in runs)
        outcomes.append(Outcome(passed, ran))
    return outcomes


@dataclass
class Built:
    """A labelled set, how many were left after each step, and what the texts alone say."""

    examples: list[Example]
    counts: list[tuple[str, int]] = field(default_factory=list)
    text_auc: float = float("nan")
    length_auc: float = float("nan")


def _key(program: str) -> str:
    return "".join(program.split())


def python_solutions(problem: Problem) -> list[str]:
    """A problem's human solutions in Python 3, each once, whatever its white space."""
    seen, kept = set(), []
    for text in problem.humans:
        try:
            techniques(text)
        except ValueError:
            continue
        if _key(text) not in seen:
            seen.add(_key(text))
            kept.append(text)
    return kept


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
    """As many pairs as there are, each within `LENGTH_RATIO`, of the smallest total difference in log length."""
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
    """A model's own solutions, labelled by the convention of the earlier NeoCoder directions: correct, and a share of at least
    0.1 of techniques that no human solution of the problem uses (label 1), or none (label 0). `samples` are rows of
    `dataset generate`."""
    by_id = {problem.id: problem for problem in problems}
    rows = []
    for number, sample in enumerate(samples, 1):
        if sample.get("problem_id") not in by_id:
            raise ValueError(f"row {number}: problem_id is {sample.get('problem_id')!r}; expected one of NeoCoder's")
        rows.append((by_id[sample["problem_id"]], sample, extract_code(sample["completion"])))
    counts = [("samples", len(rows))]
    unique = {(problem.id, _key(code)): (problem, sample, code) for problem, sample, code in reversed(rows)}
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
    except ValueError:  # too few to say; the counts show it
        return built
    texts = [example.completion for example in examples]
    scores = {"text_auc": text_baseline(texts, y, folds), "length_auc": np.array([len(text) for text in texts], float)}
    for name, score in scores.items():
        setattr(built, name, float(np.mean([auc(score[folds == f, None], y[folds == f])[0] for f in range(5)])))
    return built
