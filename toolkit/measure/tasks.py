"""What is evaluated: tasks, how an answer is graded, and held-out texts that steering should leave alone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.run_solutions import extract_code, run_samples
from ..data.style import style_of
from ..foundation.complete import function_body
from ..foundation.sandbox import Sandbox
from .divergence import Text
from .grade import Grade, all_equal, call_values


@dataclass(frozen=True)
class TaskSet:
    """tasks: each has a `prompt` and a `group`. target: what `Grade.target` means, in a word. asked: the prompt of a
    task that asks for the target in words. grade: grades of completions, one beside each task. texts: held-out texts
    by name. max_new_tokens: enough for an answer."""

    name: str
    tasks: Sequence
    target: str
    asked: Callable[[object], str]
    grade: Callable[[Sequence, Sequence[str], Sandbox], list[Grade]]
    texts: dict[str, list[Text]]
    max_new_tokens: int = 160

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True)
class FileTask:
    """tests: ("call", expression, value) or ("stdio", stdin, stdout)."""

    prompt: str
    group: str
    tests: tuple[tuple[str, str, object], ...]


def file_set(path: Path, header: str) -> TaskSet:
    """Tasks of a JSON Lines file: `{"prompt": str, "tests": [...], "group": str}`, each test `{"call": "f(2)",
    "value": 4}` (the prompt and its completion define f) or `{"input": "2\\n", "output": "4"}` (the completion is a
    program).

    Raises:
        ValueError: naming the file, the line and the field.
    """
    tasks = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: no JSON ({error})") from None
            tasks.append(_file_task(row, f"{path}, line {number}", str(number)))
    if not tasks:
        raise ValueError(f"{path}: no tasks; expected JSON Lines of prompt and tests")
    texts = {"prompts": [Text("", task.prompt, task.group) for task in tasks]}
    return TaskSet(path.stem, tasks, "idiomatic", lambda task: header + task.prompt, _grade_file, texts, 512)


def _file_task(row: dict, where: str, number: str) -> FileTask:
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"]:
        raise ValueError(
            f"{where}: prompt is {row.get('prompt') if isinstance(row, dict) else row!r}; expected a text"
        )
    tests = []
    for test in row.get("tests") or ():
        if isinstance(test, dict) and isinstance(test.get("call"), str) and "value" in test:
            tests.append(("call", test["call"], test["value"]))
        elif isinstance(test, dict) and isinstance(test.get("input"), str) and isinstance(test.get("output"), str):
            tests.append(("stdio", test["input"], test["output"]))
        else:
            raise ValueError(f"{where}: a test is {test!r}; expected call and value, or input and output")
    if not tests:
        raise ValueError(f"{where}: tests is {row.get('tests')!r}; expected one test or more")
    if len({kind for kind, *_ in tests}) > 1:
        raise ValueError(f"{where}: tests mix call and input; expected one kind")
    return FileTask(row["prompt"], str(row.get("group", number)), tuple(tests))


def _grade_file(tasks: Sequence[FileTask], completions: Sequence[str], sandbox: Sandbox) -> list[Grade]:
    grades = []
    for task, text in zip(tasks, completions, strict=True):
        if task.tests[0][0] == "call":
            program = task.prompt + function_body(text)
            values = call_values(program, [call for _, call, _ in task.tests], sandbox)
            correct = all_equal(values, [value for *_, value in task.tests])
        else:
            program = extract_code(text)
            (outcome,) = run_samples([program], [[test[1:] for test in task.tests]], sandbox)
            correct = outcome.passed
        style = style_of(program)
        grades.append(Grade(correct, style, style == "idiomatic"))
    return grades
