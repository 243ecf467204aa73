"""Grading: what counts as solved, and that it cannot be fooled."""

import pytest

from iti_llama.toolkit.measure.bundled_tasks import frozen_tasks
from iti_llama.toolkit.measure.grade import grade


@pytest.fixture(scope="module")
def task():
    return frozen_tasks("test")[0]


def test_right_solutions_pass_in_their_style(sandbox):
    tasks = frozen_tasks("test")[:12]
    for style in ("plain", "idiomatic"):
        grades = grade(tasks, [task.solutions[style] + "\n" for task in tasks], sandbox)
        assert all(one.correct and one.style == style for one in grades)


def test_text_after_the_function_is_left_out(sandbox, task):
    text = task.solutions["plain"] + "\n\nraise SystemExit\n"
    assert grade([task], [text], sandbox)[0].correct


@pytest.mark.parametrize(
    "body",
    [
        "return None",
        "import sys\n    print(sys.stdin.read())",
        "import os\n    os._exit(0)",
        "raise SystemExit(0)",
        "return eval(open('/dev/stdin').read() or 'None')",
        "class Anything:\n        __eq__ = lambda self, other: True\n        __hash__ = lambda self: 0\n        "
        "__repr__ = lambda self: 'True'\n    return Anything()",
        "import builtins\n    builtins.repr = lambda value: 'True'\n    return True",
        "import sys, inspect\n    return [f.frame.f_globals for f in inspect.stack()]",
        "for _ in iter(int, 1): pass",
        "def (",
        "",
    ],
)
def test_a_program_that_does_not_solve_the_task_fails(sandbox, task, body):
    assert not grade([task], [body], sandbox)[0].correct


def test_values_of_another_type_do_not_count(sandbox):
    task = next(task for task in frozen_tasks("test") if ":count:" in task.group)
    body = task.solutions["idiomatic"].replace("return sum", "return 1.0 * sum")
    assert not grade([task], [body], sandbox)[0].correct
