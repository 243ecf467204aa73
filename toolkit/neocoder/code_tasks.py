"""Three sets of Python functions that a chat model is asked to write, and that tests judge: the package's own tasks,
HumanEval and CreativeBench-Explore.

The program of an answer is its first code fence, or the answer itself if there is none. It runs in the sandbox in a
fresh namespace, after the code that the task gives and before the tests.
"""

import ast
import gzip
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.read_table import read_table
from ..data.run_programs import extract_code, parse
from ..data.style import style_of
from ..data.written_prompt import AsPrompt, write_prompt
from ..foundation.sandbox import Sandbox
from ..measure.bundled_tasks import BundledTask, frozen_tasks
from ..measure.grade import Grade
from ..measure.tasks import TaskSet


OWN, HUMANEVAL, CREATIVEBENCH = "own tasks", "HumanEval", "CreativeBench-Explore"

FILES = {HUMANEVAL: "HumanEval.jsonl.gz", CREATIVEBENCH: "creativebench_explore_200.jsonl"}
"""The names of the files, as openai/human-eval and ZethWang/CreativeBench have them (200 rows of the latter)."""

COMPLETE = "Complete this Python function. Answer with the whole function in a ```python fence.\n\n```python\n{}\n```"

_RUN = """_mark, _space = input(), {{}}
for _code in {codes!r}:
    exec(_code, _space)
print()
print(_mark)
"""


@dataclass(frozen=True)
class CodeTask:
    """given: code that runs before the answer, such as the function without its body. tests: code that runs after it,
    and raises if it is wrong. solution: a program by the task's author. shown, shown_at: see `FileTask`."""

    prompt: str
    group: str
    given: str
    tests: str
    solution: str
    shown: str
    shown_at: int
    messages: tuple[dict, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A task before the chat template: what the user says; the rest as in `CodeTask`."""

    request: str
    group: str
    given: str
    tests: str
    solution: str


def read_tasks(data: Path, n: int | None = None) -> dict[str, list[Asked]]:
    """The first `n` tasks of each set, by its name. `data`: the folder with `FILES`."""
    return {
        OWN: own_tasks()[:n],
        HUMANEVAL: humaneval_tasks(data / FILES[HUMANEVAL])[:n],
        CREATIVEBENCH: creativebench_tasks(data / FILES[CREATIVEBENCH])[:n],
    }


def own_tasks() -> list[Asked]:
    """The package's own tasks, which the bundled model never saw."""
    return [
        Asked(
            COMPLETE.format(task.prompt.rstrip()), task.group, task.prompt, _own_tests(task),
            task.program(task.solutions["plain"]),
        )
        for task in frozen_tasks("test")
    ]  # fmt: skip


def _own_tests(task: BundledTask) -> str:
    lines = []
    for arguments, value in task.tests:
        lines.append(f"value, expected = {task.name}(*{arguments!r}), {value!r}")
        lines.append("assert type(value) is type(expected) and value == expected")
    return "\n".join(lines) + "\n"


def humaneval_tasks(path: Path) -> list[Asked]:
    """The rows of HumanEval. What its prompt imports and defines is there when the answer runs.

    Raises:
        ValueError: naming the file, the line and the field.
    """
    fields = ("task_id", "prompt", "entry_point", "test", "canonical_solution")
    return [
        Asked(COMPLETE.format(prompt.rstrip()), name, prompt, f"{test}\ncheck({entry})\n", prompt + solution)
        for _, (name, prompt, entry, test, solution) in _read(path, fields)
    ]


def creativebench_tasks(path: Path) -> list[Asked]:
    """The rows of CreativeBench-Explore: a question, and constraints that rule out the usual techniques. Its tests do
    not see whether these are kept. Raises as `humaneval_tasks`."""
    tasks = []
    fields = ("question", "problem_id", "test_code", "reference_solution", "constraints")
    for where, (question, group, test, solution, constraints) in _read(path, fields):
        if "def test(" not in test:
            raise ValueError(f"{where}: test_code is {test[:60]!r}; expected a function test()")
        rules = "".join(f"\n- {rule}" for rule in constraints)
        request = question + (f"\n\nConstraints:{rules}" if rules else "")
        tasks.append(Asked(request, group, "", f"{test}\ntest()\n", solution))
    return tasks


def _read(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, list]]:
    for where, row in _rows(path):
        values = [row.get(name) for name in fields]
        for name, value in zip(fields, values, strict=True):
            kind = list if name == "constraints" else str
            if not isinstance(value, kind):
                raise ValueError(f"{where}: {name} is {value!r}; expected a {'list' if kind is list else 'text'}")
        yield where, values


def _rows(path: Path) -> Iterator[tuple[str, dict]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected {' and '.join(FILES.values())} in that folder")
    if path.suffix != ".gz":
        yield from read_table(path)
        return
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
        yield from ((f"{path}, line {i}", json.loads(line)) for i, line in enumerate(lines, 1) if line.strip())
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: not JSON Lines in a gzip file ({error})") from None


def code_set(name: str, tasks: Sequence[Asked], instruction: str, as_prompt: AsPrompt, max_new_tokens: int) -> TaskSet:
    """A set of these tasks; "asked in words" has the instruction after the request."""
    made, told = [], {}
    for task in tasks:
        written = write_prompt(task.request, as_prompt, name)
        of_task = task.group, task.given, task.tests, task.solution
        made.append(CodeTask(written.prompt, *of_task, written.shown, written.shown_at, written.messages))
        told[written.prompt] = as_prompt(f"{task.request}\n\n{instruction}", name)
    return TaskSet(name, made, "", _asked_in(told), grade_code, {}, max_new_tokens, answer_of=program_in)


def program_in(task: object, completion: str) -> str:
    """The program in a completion; see `extract_code`."""
    return extract_code(completion)


def _asked_in(told: dict[str, str]) -> Callable[[CodeTask], str]:
    return lambda task: told[task.prompt]


def grade_code(tasks: Sequence[CodeTask], completions: Sequence[str], sandbox: Sandbox) -> list[Grade]:
    """Correct: the tests ran to their end. An answer that leaves the program early is wrong."""
    programs, mark = [extract_code(text) for text in completions], secrets.token_hex(8)
    codes = [(task.given, program, task.tests) for task, program in zip(tasks, programs, strict=True)]
    jobs = {code: (_RUN.format(codes=code), mark) for code in codes if kinds(code[1]) is not None}
    runs = dict(zip(jobs, sandbox.run_all(jobs.values()), strict=True))
    ends = {code: run.returncode == 0 and run.stdout.endswith(f"\n{mark}\n") for code, run in runs.items()}
    return [Grade(ends.get(code, False), style_of(code[1]), False) for code in codes]


def kinds(program: str) -> frozenset[str] | None:
    """The kinds of nodes in the syntax tree of a program, such as "For" and "ListComp"; None if it is not Python."""
    try:
        return frozenset(type(node).__name__ for node in ast.walk(parse(program)))
    except ValueError:
        return None
