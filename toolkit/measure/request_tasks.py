"""Turn what the options name into tasks (of a file, or of the held-out part of a repo's labelled set) and a target."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from ..data.labelled_set import is_labelled, read_examples
from ..data.read_table import SUFFIXES
from ..data.splits import halves
from ..foundation.sandbox import Sandbox
from ..foundation.tokenize import chat_prompt
from .keep_labelled_set import FILE, read_parts
from .labelled_tasks import labelled_set
from .settings import TaskRequest
from .target import Target, matches, predicate, probe, with_target
from .tasks import TaskSet, asks, file_set


NAMES = "held-out:PART, or a .jsonl, .json or .csv file"


def kept_set(request: TaskRequest) -> Path | None:
    """The labelled set that the repo keeps."""
    path = Path(request.folder, FILE)
    return path if request.folder and path.is_file() else None


def request_tasks(request: TaskRequest, part: str, tokenizer, sandbox: Sandbox) -> TaskSet:
    """The tasks of a part ("validation" or "test"): those of a file, or else the held-out ones of the repo's labelled
    set. They have the target that was asked for, or else their own.

    Raises:
        ValueError: naming the option.
    """
    name = request.tasks or f"held-out:{part}"
    return finish_tasks(request, part, read_tasks(request, name, tokenizer), sandbox)


def read_tasks(request: TaskRequest, name: str, tokenizer, names: str = NAMES) -> TaskSet:
    """The tasks that `name` stands for, one of `names`."""
    kind, _, part = name.partition(":")
    pairs = request.target in (None, "labels") and not request.texts_alone
    if kind == "held-out" and part in ("validation", "test"):
        if kept_set(request) is None:
            raise ValueError(f"--tasks is {name!r}, but the repo keeps no {FILE}; expected {names}")
        if not request.halved:  # `run` has just fitted on the same set in the same way
            check_own_prompts(request, name)
        return labelled_set(name, read_parts(Path(request.folder), part), request.header, pairs)
    if not name.endswith(SUFFIXES):
        raise ValueError(f"--tasks is {name!r}; expected {names}")
    path, as_prompt = Path(name), partial(chat_prompt, tokenizer, raw=request.raw)
    if is_labelled(path):
        examples = read_examples(path, as_prompt, system=request.system)
        return labelled_set(path.stem, examples, request.header, pairs)
    if request.target == "labels":
        raise ValueError(f"--target is 'labels', but {name} has no labels; expected rows of completion and label")
    return file_set(path, request.header, as_prompt, request.system)


def check_own_prompts(request: TaskRequest, name: str) -> None:
    """Raises `ValueError` if an option would change the prompts of tasks whose prompts are fixed."""
    if request.raw or request.system is not None:
        option = "--raw" if request.raw else "--system"
        raise ValueError(f"{option} is for a file of --tasks; the prompts of {name} are fixed")


def finish_tasks(request: TaskRequest, part: str, tasks: TaskSet, sandbox: Sandbox) -> TaskSet:
    """The tasks, cut to the requested number, with the requested header, length and target."""
    if tasks.sound == "correct":
        sandbox.prove()  # first, since the answers take longer
    if request.halved and request.tasks is not None:
        groups = halves([task.group for task in tasks.tasks], request.seed)[part == "test"]
        tasks = replace(tasks, tasks=[task for task in tasks.tasks if task.group in groups])
    tasks = replace(tasks, tasks=tasks.tasks[: request.n])
    if tasks.pairs or not tasks.target:
        prompts = {task.prompt for task in tasks.tasks}
        of_prompts = {name: [t for t in texts if t.prompt in prompts] for name, texts in tasks.texts.items()}
        tasks = replace(tasks, texts={name: of_prompts[name] or texts for name, texts in tasks.texts.items()})
    if request.header is not None:
        tasks = replace(tasks, asked=asks(request.header))
    if request.max_new_tokens is not None:
        tasks = replace(tasks, max_new_tokens=request.max_new_tokens)
    if request.target in (None, "labels"):
        return tasks
    if request.target == "probe":
        if kept_set(request) is None:
            raise ValueError(f"--target is 'probe', but the repo keeps no {FILE} to fit it on")
        folder = Path(request.folder)
        target = probe(read_parts(folder, "fit"), read_parts(folder, "validation", "test"))
    else:
        target = read_target(request.target, sandbox)
    return with_target(tasks, target)


def file_of_target(spec: str) -> str:
    """The file of FILE.py:function; "" for a regular expression."""
    file, _, function = spec.rpartition(":")
    return file if file.endswith(".py") and function.isidentifier() else ""


def read_target(spec: str, sandbox: Sandbox) -> Target:
    """The target for a regular expression or FILE.py:function. Raises as `matches` and `predicate` do."""
    if not file_of_target(spec):
        if not spec.strip() or (spec.endswith(".py") and Path(spec).is_file()):
            raise ValueError(f"--target is {spec!r}; expected a regular expression, or FILE.py:FUNCTION")
        return matches(spec)
    sandbox.prove()
    return predicate(spec, sandbox)
