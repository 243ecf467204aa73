"""What the steering is meant to do, as a number for each completion: a regular expression, the user's predicate, or a
classifier of the labelled texts."""

import ast
import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ..data.labelled_set import Example
from ..foundation.files import read_text
from ..foundation.intervals import estimate
from ..foundation.sandbox import Sandbox
from .tasks import TaskSet


CHUNK = 100
"""The most completions that a predicate gets in one run of the sandbox. If a limit ends a run, the next run begins
with the completion at which it ended, so that a single completion may take the time of a whole run."""

_PREDICATE = """
import json as _json, sys as _sys
_names = {{"__name__": "predicate"}}  # not "__main__": what the file does as a program is not wanted here
exec(compile({source!r}, {file!r}, "exec"), _names)
_mark, *_lines = _sys.stdin.read().split("\\n")
for _line in _lines:
    _value = float(_names[{name!r}](*_json.loads(_line)))
    print("\\n" + _mark, _json.dumps(_value), flush=True)
"""


@dataclass(frozen=True)
class Target:
    """name: what the share counts, in a few words. score: gives [completions], each from 0 (no) to 1 (yes). note: what
    a reader has to know of it, such as the classifier's accuracy."""

    name: str
    score: Callable[[Sequence[str], Sequence[str]], list[float]]
    note: str = ""


def matches(pattern: str) -> Target:
    """Completions in which a regular expression is found; `^` and `$` are the ends of lines.

    Raises:
        ValueError: if it is not a regular expression.
    """
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"--target is {pattern!r}; expected a regular expression ({error})") from None
    return Target(
        f"matches {pattern}", lambda prompts, completions: [float(bool(compiled.search(text))) for text in completions]
    )


def predicate(spec: str, sandbox: Sandbox) -> Target:
    """`FILE.py:function`, called in the sandbox with prompt and completion: True, False or a number from 0 to 1.

    Raises:
        ValueError: if the file is not in UTF-8 or has no such function; while scoring, if it fails or returns
            something else.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"--target is {spec!r}, but there is no file {path}")
    source = read_text(path, "a Python file")
    try:
        defined = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from None
    if name not in defined:
        raise ValueError(f"{path}: no function {name!r}; found {', '.join(sorted(defined)) or 'none'}")

    def score(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        pairs, values = list(zip(prompts, completions, strict=True)), []
        while len(values) < len(pairs):
            at, mark = len(values), secrets.token_hex(8)
            chunk = pairs[at : at + CHUNK]
            lines = "\n".join(json.dumps(pair) for pair in chunk)
            run = sandbox.run(_PREDICATE.format(source=source, file=path.name, name=name), f"{mark}\n{lines}")
            scores = [line.split(" ", 1)[1] for line in run.stdout.splitlines() if line.startswith(f"{mark} ")]
            if len(scores) < len(chunk) and not (scores and run.stopped):  # the completion that stopped it runs again
                ended = f"stopped by the limit on {run.stopped}" if run.stopped else f"exit code {run.returncode}"
                reason = (run.stderr.strip().splitlines() or [ended])[-1]
                shown = json.dumps(chunk[len(scores)][1])[:200]
                raise ValueError(f"{spec}: failed on completion {at + len(scores) + 1}, {shown}: {reason}")
            values += [float(value) for value in scores]
            wrong = next((value for value in values[at:] if not 0 <= value <= 1), None)
            if wrong is not None:
                raise ValueError(f"{spec}: returned {wrong}; expected True, False or a number from 0 to 1")
        return values

    return Target(name.replace("_", " "), score)


def probe(fitting: Sequence[Example], held_out: Sequence[Example], seed: int = 0) -> Target:
    """Completions that a classifier takes for label 1: logistic regression on TF-IDF of words and symbols, one and two
    in a row, fitted on the labelled completions of `fitting`. The note gives its accuracy on `held_out`."""
    texts, labels = [e.completion for e in fitting], np.array([e.label for e in fitting])
    vectorizer = TfidfVectorizer(
        token_pattern=r"\w+|[^\w\s]|\n", ngram_range=(1, 2), sublinear_tf=True, lowercase=False
    )
    classifier = make_pipeline(vectorizer, LogisticRegression(max_iter=1000, random_state=seed)).fit(texts, labels)
    right = classifier.predict([e.completion for e in held_out]) == [e.label for e in held_out]
    accuracy = estimate(right, [e.group for e in held_out])
    return Target(
        "taken for label 1",
        lambda prompts, completions: classifier.predict(list(completions)).astype(float).tolist(),
        f"The classifier (TF-IDF of the completion) is right on {accuracy.percent()} of {accuracy.n} held-out "
        "labelled texts.",
    )


def with_target(task_set: TaskSet, target: Target) -> TaskSet:
    """The same tasks, with this target in place of their own."""

    def grade(tasks, completions, sandbox):
        scores = target.score([task.prompt for task in tasks], completions)
        grades = task_set.grade(tasks, completions, sandbox)
        return [replace(graded, target=score) for graded, score in zip(grades, scores, strict=True)]

    return replace(task_set, grade=grade, target=target.name, note=target.note)
