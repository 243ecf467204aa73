"""The tasks that the bundled model is shown and measured on, and the labelled pairs that it was fitted on.

They are frozen as JSON Lines in `bundled/`, beside this module; `make freeze` writes them from the generator in
`examples/bundled_model`. A file is read when it is first needed.
"""

import ast
import json
import random
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..data.labelled_set import Example
from ..foundation.complete import function_body
from .divergence import Text
from .grade import grade
from .tasks import TaskSet


FOLDER = Path(__file__).with_name("bundled")

ASKS_FOR_IDIOMATIC = "# Style: expressions rather than statements."
"""The first line of a prompt that asks for the idiomatic style."""

PAIRS = ("idiomatic", "commented")
"""The meaning of label 1 in the labelled pairs."""


@dataclass(frozen=True)
class BundledTask:
    """A function to write.

    `group` names what to compute, whatever the wording; the split is by group, so the model is never trained on any
    wording of a held-out group. `solutions` maps a style to the function's body, without the indentation of its first
    line. `tests` are (arguments, expected value) pairs. `paraphrase` is the docstring in other words.
    """

    group: str
    name: str
    signature: str
    docstring: str
    solutions: dict[str, str]
    tests: tuple[tuple[tuple, object], ...]
    paraphrase: str = ""

    @property
    def prompt(self) -> str:
        """Everything before the first statement; ends inside the function, after the indentation."""
        return f'def {self.name}({self.signature}):\n    """{self.docstring}"""\n    '

    def program(self, completion: str) -> str:
        return self.prompt + completion


def _in_another_case(text: str) -> str:
    return text.lower() if text != text.lower() else text[0].upper() + text[1:]


def _with_another_end(text: str) -> str:
    return text[:-1] if text.endswith((".", "?")) else text + "."


PHRASINGS = (
    ("in another case", lambda task: task.prompt.replace(task.docstring, _in_another_case(task.docstring))),
    ("with another end", lambda task: task.prompt.replace(task.docstring, _with_another_end(task.docstring))),
    ("under a comment", lambda task: f"# part of a larger module\n{task.prompt}"),
    ("as a function called f", lambda task: task.prompt.replace(f"def {task.name}(", "def f(")),
)


def frozen_row(task: BundledTask) -> dict:
    """A task as JSON types. Arguments and values of its tests are written as Python literals: JSON has no sets, and no
    dictionaries whose keys are numbers."""
    tests = [[_literal(arguments), _literal(value)] for arguments, value in task.tests]
    fields = ("group", "name", "signature", "docstring", "paraphrase", "solutions")
    return {name: getattr(task, name) for name in fields} | {"tests": tests}


def _literal(value: object) -> str:
    """A set in sorted order, because its own order differs between processes."""
    return "{" + ", ".join(sorted(map(repr, value))) + "}" if isinstance(value, set) and value else repr(value)


@cache
def frozen_tasks(part: str) -> tuple[BundledTask, ...]:
    """Every frozen task of "test" or "validation", which are held out from training, or of "classic", which the demo
    shows."""
    tasks = []
    for row in _rows(part):
        tests = tuple((ast.literal_eval(arguments), ast.literal_eval(value)) for arguments, value in row["tests"])
        tasks.append(BundledTask(**row | {"tests": tests}))
    return tuple(tasks)


def _rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def demo_tasks(n: int = 3) -> list[tuple[str, BundledTask]]:
    """`n` tasks, each with its origin: "check if a number is prime", then the first held-out tasks, by index.

    Raises:
        ValueError: if there are fewer.
    """
    (prime,), held_out = frozen_tasks("classic"), frozen_tasks("test")
    if n > 1 + len(held_out):
        raise ValueError(f"n is {n}; expected at most {1 + len(held_out)} tasks")
    shown = (("held out from training", task) for task in held_out[: n - 1])
    return [("a classic of the training corpus", prime), *shown]


def corpus_set(split: str, n: int, seed: int = 0) -> TaskSet:
    """`n` held-out tasks of the bundled model's corpus, of split "test" or "validation": the first ones, or the first
    of another order if the seed is not 0.

    Raises:
        ValueError: if there are fewer.
    """
    tasks = list(frozen_tasks(split))
    if n > len(tasks):
        raise ValueError(f"{n} tasks of corpus:{split} were asked for; it holds {len(tasks)}")
    if seed != 0:
        random.Random(seed).shuffle(tasks)
    tasks = tasks[:n]
    texts = {
        f"{style} code": [Text(task.prompt, task.solutions[style] + "\n", task.group) for task in tasks]
        for style in ("plain", "idiomatic")
    }
    texts["prompts"] = [Text("", task.prompt, task.group) for task in tasks]
    return TaskSet(
        f"corpus:{split}", tasks, "idiomatic", lambda task: f"{ASKS_FOR_IDIOMATIC}\n{task.prompt}", grade, texts,
        phrasings=PHRASINGS, paraphrase=lambda task: replace(task, docstring=task.paraphrase).prompt,
        answer_of=lambda task, completion: function_body(completion),
    )  # fmt: skip


def labelled_pairs(behaviour: str = "idiomatic", groups: int = 300) -> list[Example]:
    """Two rows for each of the first `groups` training tasks: one whose header asks for the behaviour, solved in that
    way (label 1), and one whose header asks for the opposite (label 0).

    Raises:
        ValueError: if `behaviour` is not in `PAIRS`, or there are fewer groups.
    """
    if behaviour not in PAIRS:
        raise ValueError(f"the behaviour is {behaviour!r}; expected one of {', '.join(PAIRS)}")
    rows = _rows(f"pairs_{behaviour}")
    if groups > len(rows):
        raise ValueError(f"{groups} groups of labelled pairs were asked for; there are {len(rows)}")
    return [
        Example(f"{header}\n{row['prompt']}", completion, label, row["group"], id=f"{row['group']}:{kind}")
        for row in rows[:groups]
        for label, (kind, header, completion) in enumerate(row["answers"])
    ]


def frozen_pairs(examples: list[Example]) -> list[dict]:
    """Labelled pairs as JSON types, one row for each group, as `labelled_pairs` reads them."""
    rows = []
    for pair in zip(examples[::2], examples[1::2], strict=True):
        answers = [
            [row.id.removeprefix(f"{row.group}:"), row.prompt.split("\n", 1)[0], row.completion] for row in pair
        ]
        rows.append({"group": pair[0].group, "prompt": pair[0].prompt.split("\n", 1)[1], "answers": answers})
    return rows
