"""What the steering is meant to do, as a number for each completion: a regular expression, a predicate of one's own,
or a classifier of the labelled texts."""

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
"""Completions that a predicate is given in one run of the sandbox, at most. Where a limit ends a run, the next one
begins with the completion that it ended in, so that one alone may take the time of a run."""

_PREDICATE = """
import json as _json, sys as _sys
_names = {{"__name__": "predicate"}}  # not the main program: what a file does as such is not wanted here
exec(compile({source!r}, {file!r}, "exec"), _names)
_mark, *_lines = _sys.stdin.read().split("\\n")
for _line in _lines:
    _value = float(_names[{name!r}](*_json.loads(_line)))
    print("\\n" + _mark, _json.dumps(_value), flush=True)
"""


@dataclass(frozen=True)
class Target:
    """name: what the share is of, in a few words. score: [completions] from 0 (not so) to 1. note: what a reader has
    to know of it, as the classifier's own accuracy."""

    name: str
    score: Callable[[Sequence[str], Sequence[str]], list[float]]
    note: str = ""


def matches(pattern: str) -> Target:
    """Completions in which a regular expression is found; `^` and `$` are the ends of lines.

    Raises:
        ValueError: if it is none.
    """
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"--target is {pattern!r}: no regular expression ({error})") from None
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
            found = [line.split(" ", 1)[1] for line in run.stdout.splitlines() if line.startswith(f"{mark} ")]
            if len(found) < len(chunk) and not (found and run.stopped):  # what stopped a chunk gets a run of its own
                ended = f"stopped by the limit on {run.stopped}" if run.stopped else f"exit code {run.returncode}"
                said = (run.stderr.strip().splitlines() or [ended])[-1]
                shown = json.dumps(chunk[len(found)][1])[:200]
                raise ValueError(f"{spec}: failed on completion {at + len(found) + 1}, {shown}: {said}")
            values += [float(value) for value in found]
            wrong = next((value for value in values[at:] if not 0 <= value <= 1), None)
            if wrong is not None:
                raise ValueError(f"{spec}: returned {wrong}; expected True, False or a number from 0 to 1")
        return values

    return Target(name.replace("_", " "), score)


def probe(fitting: Sequence[Example], held_out: Sequence[Example], seed: int = 0) -> Target:
    """Completions that a classifier takes for label 1: logistic regression on TF-IDF of words and symbols, one and two
    in a row, fitted on the labelled completions of `fitting`. Its own accuracy, on `held_out`, is in the note."""
    texts, labels = [e.completion for e in fitting], np.array([e.label for e in fitting])
    vectorizer = TfidfVectorizer(
        token_pattern=r"\w+|[^\w\s]|\n", ngram_range=(1, 2), sublinear_tf=True, lowercase=False
    )
    classifier = make_pipeline(vectorizer, LogisticRegression(max_iter=1000, random_state=seed)).fit(texts, labels)
    right = classifier.predict([e.completion for e in held_out]) == [e.label for e in held_out]
    own = estimate(right, [e.group for e in held_out])
    return Target(
        "taken for label 1",
        lambda prompts, completions: classifier.predict(list(completions)).astype(float).tolist(),
        f"The classifier (TF-IDF of the completion) is right on {own.percent()} of {own.n} held-out labelled texts.",
    )


def with_target(task_set: TaskSet, target: Target) -> TaskSet:
    """The same tasks, with this target in place of their own."""

    def grade(tasks, completions, sandbox):
        scores = target.score([task.prompt for task in tasks], completions)
        grades = task_set.grade(tasks, completions, sandbox)
        return [replace(one, target=score) for one, score in zip(grades, scores, strict=True)]

    return replace(task_set, grade=grade, target=target.name, note=target.note)
