"""Whether a completion solves its task, by running it, and whether it behaves as wanted.

The sandbox gets the program and the arguments of the tests, never the expected values; the results are compared here.
So a program gains nothing if it exits early, prints something else or changes its surroundings.
"""

import ast
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..data.style import style_of
from ..foundation.complete import function_body
from ..foundation.sandbox import Sandbox


_CALLS = """

import ast as _ast, sys as _sys
_mark, *_lines = _sys.stdin.read().split("\\n")
for _line in _lines:
    print(_mark, repr({name}(*_ast.literal_eval(_line))), flush=True)
"""


@dataclass(frozen=True)
class Grade:
    """correct: every test gave the expected value; for tasks without tests, see `TaskSet.sound`. style: "plain",
    "idiomatic", "neither" or "unparsable"; "" for answers that are not code. target: whether it behaves as the
    steering wants, True, False or a number from 0 to 1. measures: further numbers, by name."""

    correct: bool
    style: str
    target: float
    measures: dict[str, float] = field(default_factory=dict)


class FunctionTask(Protocol):
    """A function to write: its name, (arguments, expected value) pairs, and a method that turns a completion into a
    program."""

    name: str
    tests: Sequence[tuple[tuple, object]]

    def program(self, completion: str) -> str: ...


def grade(tasks: Sequence[FunctionTask], completions: Sequence[str], sandbox: Sandbox) -> list[Grade]:
    """Grade the completion of each task. Equal programs are run once."""
    programs = [task.program(function_body(text)) for task, text in zip(tasks, completions, strict=True)]
    styles = [style_of(program) for program in programs]
    jobs: dict[tuple[str, str], tuple[str, str, str]] = {}
    keys = []
    for task, program, style in zip(tasks, programs, styles, strict=True):
        lines = "\n".join(repr(arguments) for arguments, _ in task.tests)
        keys.append((program, lines))
        if style != "unparsable":
            mark = secrets.token_hex(8)
            jobs.setdefault((program, lines), (program + _CALLS.format(name=task.name), f"{mark}\n{lines}", mark))
    runs = sandbox.run_all((program, stdin) for program, stdin, _ in jobs.values())
    values = {key: _values(run.stdout, job[2]) for (key, job), run in zip(jobs.items(), runs, strict=True)}
    return [
        Grade(all_equal(values.get(key, []), [expected for _, expected in task.tests]), style, style == "idiomatic")
        for task, key, style in zip(tasks, keys, styles, strict=True)
    ]


def call_values(program: str, calls: Sequence[str], sandbox: Sandbox) -> list[object]:
    """The value of each call, like `f(2, 3)`, to what a program defines; fewer if a call fails."""
    mark = secrets.token_hex(8)
    code = "\n\n_mark = __import__('sys').stdin.readline().strip()\n"
    code += "".join(f"print(_mark, repr({call}), flush=True)\n" for call in calls)
    return _values(sandbox.run(program + code, f"{mark}\n").stdout, mark)


def _values(stdout: str, mark: str) -> list[object]:
    """The marked values in a run's output, in order, up to the first that is not a literal."""
    values = []
    for line in stdout.splitlines():
        if line.startswith(mark + " "):
            try:
                values.append(ast.literal_eval(line[len(mark) + 1 :]))
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                break
    return values


def all_equal(values: list[object], expected: list[object]) -> bool:
    return len(values) == len(expected) and all(
        type(value) is type(wanted) and value == wanted for value, wanted in zip(values, expected, strict=True)
    )
