"""What is evaluated: tasks, how an answer is graded, and held-out texts that steering should leave alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from ..data.labelled_row import PROMPTS
from ..data.read_table import KINDS, read_table
from ..data.run_programs import extract_code, run_samples
from ..data.style import style_of
from ..data.written_prompt import AsPrompt, write_prompt
from ..foundation.complete import function_body
from ..foundation.sandbox import Sandbox
from .degenerate import degenerate
from .divergence import Text
from .grade import Grade, all_equal, call_values


@dataclass(frozen=True)
class TaskSet:
    """tasks: each has a `prompt` and a `group`. target: what `Grade.target` means, in a few words; "" if the set has
    no target. asked: gives the prompt of a task that asks for the target in words; None without such prompts. grade:
    grades the completions, one for each task. texts: held-out texts by name; KL is reported on the first, and the last
    say nothing of the behaviour. max_new_tokens: enough for an answer. phrasings: (name, prompt of a task), the same
    tasks phrased differently; four general ones by default. paraphrase: gives the prompt of a task in other words;
    None without paraphrases. prompt_of: gives the prompt of a task, by default its `prompt`. answer_of: the part of a
    completion that answers, such as its program.
    sound: what `Grade.correct` means: "correct" (passes its tests), "intact" (see `degenerate`), or "" (always so).
    pairs: an answer tells which of a task's two `completions` the model prefers, see `respond`. note: for a reader."""

    name: str
    tasks: Sequence
    target: str
    asked: Callable[[object], str] | None
    grade: Callable[[Sequence, Sequence[str], Sandbox], list[Grade]]
    texts: dict[str, list[Text]]
    max_new_tokens: int = 160
    sound: str = "correct"
    pairs: bool = False
    note: str = ""
    phrasings: tuple[tuple[str, Callable[[object], str]], ...] = ()
    paraphrase: Callable[[object], str] | None = None
    prompt_of: Callable[[object], str] = attrgetter("prompt")
    answer_of: Callable[[object, str], str] = lambda task, completion: completion

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True)
class FileTask:
    """tests: ("call", expression, value) or ("stdio", stdin, stdout); may be empty. shown: the prompt as its writer
    wrote it, or its last message, if a chat template was put around it; shown_at: the index in the prompt at which
    that begins; messages: all messages, if there were any. paraphrase: the prompt in other words, "" without one."""

    prompt: str
    group: str
    tests: tuple[tuple[str, str, object], ...] = ()
    shown: str = ""
    shown_at: int = 0
    paraphrase: str = ""
    messages: tuple[dict, ...] = ()


def with_header(task, header: str) -> str:
    """The prompt of a task, with a header before what its writer wrote."""
    at = getattr(task, "shown_at", 0)
    return task.prompt[:at] + header + task.prompt[at:]


def as_written(task, prompt: str | None) -> str | list | None:
    """A prompt of a task without the text that a chat template put before its writer's words, which may hold the date:
    the messages, or the words alone, and the rest of the prompt from where they begin."""
    if prompt is None or not getattr(task, "shown", ""):
        return prompt
    return [list(task.messages) or task.shown, prompt[task.shown_at :]]


def asks(header: str | None) -> Callable[[object], str] | None:
    """`TaskSet.asked` with this line before the prompt; None without a header."""
    return None if header is None else lambda task: with_header(task, f"{header.rstrip()}\n")


def paraphrases(tasks: Sequence, where: str) -> Callable[[object], str] | None:
    """`TaskSet.paraphrase` for tasks that each have a `paraphrase`; None if none has.

    Raises:
        ValueError: if some have one and others do not.
    """
    missing = [task.prompt for task in tasks if not task.paraphrase]
    if missing and len(missing) < len(tasks):
        raise ValueError(f"{where}: {missing[0]!r} has no paraphrase, others have one; expected all or none")
    return None if missing else attrgetter("paraphrase")


def file_set(path: Path, header: str | None, as_prompt: AsPrompt | None = None, system: str | None = None) -> TaskSet:
    """Tasks of a file, in JSON Lines, a JSON list or CSV: `{"prompt": str, "tests": [...], "group": str}`. A test is
    `{"call": "f(2)", "value": 4}` (the prompt and its completion define f) or `{"input": "2\\n", "output": "4"}` (the
    completion is a program). `"paraphrase"` is the prompt in other words, on which robustness is measured. The prompt
    may be called `question`, and prompt and paraphrase may be messages. If no row has tests, an answer only has to be
    intact. `as_prompt`, `system`: see `read_examples`.

    Raises:
        ValueError: naming the file, the line and the field.
    """
    rows = enumerate(read_table(path), 1)
    tasks = [_file_task(row, where, str(number), as_prompt, system) for number, (where, row) in rows]
    if not tasks:
        raise ValueError(f"{path}: no tasks; expected {KINDS}, of prompt and optional tests")
    texts = {"prompts": [Text("", task.prompt, task.group) for task in tasks]}
    tested, other = [bool(task.tests) for task in tasks], paraphrases(tasks, str(path))
    if not any(tested):
        return TaskSet(path.stem, tasks, "", asks(header), grade_intact, texts, 256, "intact", paraphrase=other)
    if not all(tested):
        raise ValueError(f"{path}: row {tested.index(False) + 1} has no tests, others have; expected all or none")
    return TaskSet(
        path.stem, tasks, "idiomatic", asks(header), _grade_file, texts, 512, paraphrase=other, answer_of=_code_in
    )


def grade_intact(tasks: Sequence, completions: Sequence[str], sandbox: Sandbox) -> list[Grade]:
    """Grades of answers that have no tests: correct if the output is not degenerate."""
    return [Grade(not degenerate(text), "", False) for text in completions]


def _file_task(row: dict, where: str, number: str, as_prompt: AsPrompt | None, system: str | None) -> FileTask:
    known = [name for name in PROMPTS if name in row] or ["prompt"]
    if len(known) > 1:
        raise ValueError(f"{where}: {known[0]} and {known[1]}; expected one of them")
    named, prompt = known[0], row.get(known[0])
    if not prompt or not isinstance(prompt, list if named == "messages" else str | list):
        raise ValueError(f"{where}: {named} is {prompt!r}; expected a text, or messages")
    tests = []
    for test in row.get("tests") or ():
        if isinstance(test, dict) and isinstance(test.get("call"), str) and "value" in test:
            tests.append(("call", test["call"], test["value"]))
        elif isinstance(test, dict) and isinstance(test.get("input"), str) and isinstance(test.get("output"), str):
            tests.append(("stdio", test["input"], test["output"]))
        else:
            raise ValueError(f"{where}: a test is {test!r}; expected call and value, or input and output")
    if len({kind for kind, *_ in tests}) > 1:
        raise ValueError(f"{where}: tests mix call and input; expected one kind")
    paraphrase = row.get("paraphrase", "")
    if not isinstance(paraphrase, str | list):
        raise ValueError(f"{where}: paraphrase is {paraphrase!r}; expected a text, or messages")
    written = write_prompt(prompt, as_prompt, where, system)
    around = {"shown": written.shown, "shown_at": written.shown_at} if written.templated else {}
    other = written.other(paraphrase, as_prompt, where) if paraphrase else ""
    group = str(row.get("group", number))
    return FileTask(written.prompt, group, tuple(tests), **around, paraphrase=other, messages=written.messages)


def _code_in(task: FileTask, completion: str) -> str:
    """An answer to a user has the whole program; a completion goes on where the prompt ends."""
    goes_on = task.tests[0][0] == "call" and not task.shown
    return function_body(completion) if goes_on else extract_code(completion)


def _grade_file(tasks: Sequence[FileTask], completions: Sequence[str], sandbox: Sandbox) -> list[Grade]:
    grades = []
    for task, text in zip(tasks, completions, strict=True):
        program = _code_in(task, text)
        if task.tests[0][0] == "call":
            program = program if task.shown else task.prompt + program
            values = call_values(program, [call for _, call, _ in task.tests], sandbox)
            correct = all_equal(values, [value for *_, value in task.tests])
        else:
            (outcome,) = run_samples([program], [[test[1:] for test in task.tests]], sandbox)
            correct = outcome.passed
        style = style_of(program)
        grades.append(Grade(correct, style, style == "idiomatic"))
    return grades
