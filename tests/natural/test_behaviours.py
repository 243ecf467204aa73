"""Behaviours of natural code: what an author did is found, and the checkers see it in what a model writes."""

import ast

import pytest

from iti_llama.examples.natural.behaviours import BEHAVIOURS, completed, grade, rows_of, task_set
from iti_llama.examples.natural.corpus import Source


SOURCE = '''"""A module."""

import os


def documented(a, b):
    """Add two numbers."""
    return a + b


class Thing:
    def bare(self, first, second=1):
        kept = []
        for item in first:
            kept.append(item)
        return kept

    async def typed(self, path: str, mode: str = "r") -> list[str]:
        if not path:
            raise ValueError(f"{path!r} is no path")
        print("%s in %s" % (path, mode))
        return [part for part in path.split(os.sep)]
'''

LABELS = {
    "docstring": {"documented": 1, "bare": 0, "typed": 0},
    "annotation": {"documented": 0, "bare": 0, "typed": 1},
    "f-string": {"raise": 1, "print": 0},
    "comprehension": {"bare": 0, "typed": 1},
}


def named(unit: str) -> str:
    return next(word for word in ("documented", "bare", "typed", "raise", "print") if word in unit)


@pytest.fixture(params=BEHAVIOURS, ids=lambda behaviour: behaviour.name)
def behaviour(request):
    return request.param


@pytest.fixture
def rows(behaviour):
    return rows_of(behaviour, [Source("package", "module.py", SOURCE)])


def test_every_place_where_the_author_decided_is_a_row(behaviour, rows):
    assert {named(row.meta["unit"]): row.label for row in rows} == LABELS[behaviour.name]
    for row in rows:
        assert row.prompt.endswith(row.meta["unit"]) and SOURCE.startswith(row.prompt) and row.group
        assert SOURCE[len(row.prompt) :].startswith(row.completion)


def test_the_checker_sees_in_the_author_s_text_what_the_label_says(behaviour, rows):
    own = task_set(behaviour, "test", rows, {})
    grades = grade(behaviour, own.tasks, [row.completion for row in rows])
    assert [grade.target for grade in grades] == [bool(row.label) for row in rows]
    assert all(grade.correct for grade in grades)


def test_the_example_above_shows_the_behaviour_and_stands_before_the_function(behaviour, rows):
    assert behaviour.check(ast.parse(behaviour.above))
    own = task_set(behaviour, "test", rows, {})
    for task in own.tasks:
        asked = own.asked(task)
        assert asked.endswith(task.unit) and asked.startswith(task.prompt[: len(task.prompt) - len(task.unit)])
        assert "def clear(" in asked


@pytest.mark.parametrize(
    "completion,whole",
    [
        ("\n    return 1\n", True),
        ("\n    return 1\n\n\ndef other(:\n", True),  # the next function is not ours
        ('\n    """Cut off in a docstr', True),
        ("\n    x = 1\n    return (x +", True),  # the last line is cut off
        ("\n    x = = 1\n    y = 2\n    return x\n", False),
        (" )(", False),
    ],
)
def test_what_is_no_python_is_seen(completion, whole):
    tree, found = completed("def f(x):", completion)
    assert found == whole and (tree is not None or not whole)
