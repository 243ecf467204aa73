"""Behaviours found in Python as people write it, each with a checker on the syntax tree.

A row is a place in a real file where its author decided: the text before it is the prompt, label 1 says that the
author did it. `above` is a function that shows the behaviour, for the plain alternative, an example in the prompt.
"""

import ast
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.foundation.complete import function_body
from iti_llama.toolkit.measure.degenerate import degenerate
from iti_llama.toolkit.measure.divergence import Text
from iti_llama.toolkit.measure.grade import Grade
from iti_llama.toolkit.measure.tasks import FileTask, TaskSet

from .corpus import Source


CONTEXT = 700
"""Characters of the file before a place, in whole lines; what the model is given."""

COMPLETION = 300
"""Characters of the author's own text that a row keeps."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Place:
    """start: where the function's (or statement's) first line begins in the file; at: where the author decided."""

    start: int
    at: int
    label: int


@dataclass(frozen=True)
class Behaviour:
    """places: the decisions in a file, with what its author did. check: whether a syntax tree, of the function (or
    statement) as the model completed it, shows the behaviour."""

    name: str
    phrase: str
    places: Callable[[str, ast.Module], Iterator[Place]]
    check: Callable[[ast.Module], bool]
    above: str
    max_new_tokens: int = 64


def _offsets(text: str) -> list[int]:
    """Where each line begins."""
    found = [0]
    for line in text.splitlines(keepends=True):
        found.append(found[-1] + len(line))
    return found


def _functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function) and 2 <= node.end_lineno - node.lineno <= 40:
            yield node


def _after_colon(text: str, lines: list[int], node: Function) -> int | None:
    """The end of the line on which a signature ends, where the body begins on the next."""
    at = text.rfind(":", lines[node.lineno - 1], lines[node.body[0].lineno - 1] + node.body[0].col_offset)
    end = text.find("\n", at)
    return at + 1 if at > 0 and text[at + 1 : end].strip() == "" and end < lines[node.body[0].lineno - 1] + 1 else None


def _docstring_places(text: str, tree: ast.Module) -> Iterator[Place]:
    lines = _offsets(text)
    for node in _functions(tree):
        at = _after_colon(text, lines, node)
        if at is not None and not node.name.startswith("_"):
            yield Place(lines[node.lineno - 1], at, int(ast.get_docstring(node) is not None))


def _annotation_places(text: str, tree: ast.Module) -> Iterator[Place]:
    lines = _offsets(text)
    for node in _functions(tree):
        arguments = [a for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
        if arguments and arguments[0].lineno == node.lineno:
            at = lines[node.lineno - 1] + arguments[0].col_offset + len(arguments[0].arg)
            if text[:at].endswith(arguments[0].arg):
                yield Place(lines[node.lineno - 1], at, int(arguments[0].annotation is not None))


def _format_kind(node: ast.expr) -> int | None:
    """1 for an f-string, 0 for `%` or `str.format`, None for neither."""
    if isinstance(node, ast.JoinedStr):
        return 1
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and _is_text(node.left):
        return 0
    call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return 0 if call and node.func.attr == "format" and _is_text(node.func.value) else None


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _format_places(text: str, tree: ast.Module) -> Iterator[Place]:
    """At the name of what is called with a text: before its bracket, which may be one token with a quote."""
    lines, seen = _offsets(text), set()
    simple = (ast.Expr, ast.Raise, ast.Return, ast.Assign)
    for statement in (node for node in ast.walk(tree) if isinstance(node, simple)):
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                label, line = _format_kind(node.args[0]), node.func.lineno - 1
                at = lines[line] + node.func.col_offset + len(node.func.id)
                called = text[:at].endswith(node.func.id) and text[at : at + 1] == "("
                if label is not None and called and node.lineno == statement.lineno and at not in seen:
                    seen.add(at)
                    yield Place(lines[line], at, label)


def _has(tree: ast.AST, kinds: tuple[type, ...]) -> bool:
    return any(isinstance(node, kinds) for node in ast.walk(tree))


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LOOPS = (ast.For, ast.While)


def _loop_places(text: str, tree: ast.Module) -> Iterator[Place]:
    lines = _offsets(text)
    for node in _functions(tree):
        at, one, other = _after_colon(text, lines, node), _has(node, COMPREHENSIONS), _has(node, LOOPS)
        if at is not None and one != other:
            yield Place(lines[node.lineno - 1], at, int(one))


def _first_function(tree: ast.Module) -> Function | None:
    return next((node for node in tree.body if isinstance(node, Function)), None)


def _documented(tree: ast.Module) -> bool:
    found = _first_function(tree)
    return found is not None and ast.get_docstring(found) is not None


def _annotated(tree: ast.Module) -> bool:
    found = _first_function(tree)
    arguments = found and [a for a in (*found.args.posonlyargs, *found.args.args) if a.arg not in ("self", "cls")]
    return bool(arguments) and arguments[0].annotation is not None


def _formats(tree: ast.Module) -> bool:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    return any(_format_kind(call.args[0]) == 1 for call in calls)


def _comprehends(tree: ast.Module) -> bool:
    return _has(tree, COMPREHENSIONS) and not _has(tree, LOOPS)


BEHAVIOURS = (
    Behaviour(
        "annotation",
        "annotates the arguments of functions",
        _annotation_places,
        _annotated,
        "def clear(items: list, keep: int = 0) -> int:\n    count = len(items)\n    del items[keep:]\n"
        "    return count\n",
    ),
    Behaviour(
        "docstring",
        "documents the functions that it writes",
        _docstring_places,
        _documented,
        'def clear(items):\n    """Remove every item, and return how many there were."""\n    count = len(items)\n'
        "    items.clear()\n    return count\n",
    ),
    Behaviour(
        "comprehension",
        "writes comprehensions rather than loops",
        _loop_places,
        _comprehends,
        "def clear(items, keep):\n    return [item for item in items if item in keep]\n",
        96,
    ),
    Behaviour(
        "f-string",
        "formats texts by f-strings",
        _format_places,
        _formats,
        "def clear(items, limit):\n    if len(items) > limit:\n"
        '        raise ValueError(f"{len(items)} items, at most {limit}")\n    items.clear()\n',
        48,
    ),
)


@dataclass(frozen=True)
class PlaceTask(FileTask):
    """unit: the beginning of the function or statement, as far as the prompt has it; it lies at its end."""

    unit: str = ""


def rows_of(behaviour: Behaviour, found: Sequence[Source]) -> list[Example]:
    """Every place of some files, as labelled rows; a file is a group."""
    rows = []
    for source in found:
        places = sorted(behaviour.places(source.text, ast.parse(source.text)), key=lambda place: place.at)
        for place in places:
            begin = max(0, place.start - CONTEXT)
            begin = source.text.find("\n", begin) + 1 if begin else 0
            begin = min(begin, place.start)
            completion = source.text[place.at : place.at + COMPLETION]
            if completion.strip():
                group = f"{source.package}/{source.name}"
                unit = {"unit": source.text[place.start : place.at]}
                rows.append(Example(source.text[begin : place.at], completion, place.label, group, meta=unit))
    return rows


def completed(unit: str, completion: str) -> tuple[ast.Module | None, bool]:
    """(tree, whole): the function or statement that a prompt began, as the completion has it, and whether all of the
    completion's lines are in it; the last one may be cut off. Of a text that is no Python the tree is of as many lines
    as are, None if there is none."""
    depth = len(unit) - len(unit.lstrip(" "))
    body = "\n".join(line[depth:] if not line[:depth].strip() else line for line in completion.split("\n"))
    start, is_function = textwrap.dedent(unit), unit.lstrip().startswith(("def ", "async def "))
    lines = (function_body(body) if is_function else body).rstrip("\n").split("\n")
    if not is_function:  # the statement ends where it is first Python
        ends = (end for end in range(1, len(lines) + 1) if _parsed(start, lines[:end]) is not None)
        end = next(ends, None)
        return (None, False) if end is None else (_parsed(start, lines[:end]), True)
    for end in range(len(lines), 0, -1):
        tree = _parsed(start, lines[:end], ("", '"""', '\n    """', "\n    pass"))
        if tree is not None:
            return tree, end >= len(lines) - 1
    return None, False


def _parsed(start: str, lines: Sequence[str], closing: Sequence[str] = ("",)) -> ast.Module | None:
    for extra in closing:
        try:
            return ast.parse(start + "\n".join(lines) + extra)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def grade(behaviour: Behaviour, tasks: Sequence[PlaceTask], completions: Sequence[str]) -> list[Grade]:
    """correct: all of what was written is Python, up to where it was cut off, and no loop; target: it shows the
    behaviour."""
    grades = []
    for task, completion in zip(tasks, completions, strict=True):
        tree, whole = completed(task.unit, completion)
        grades.append(Grade(whole and not degenerate(completion), "", tree is not None and behaviour.check(tree)))
    return grades


def task_set(behaviour: Behaviour, part: str, rows: Sequence[Example], texts: dict[str, list[Text]]) -> TaskSet:
    """Rows as tasks: the model goes on where the author decided."""
    tasks = [PlaceTask(row.prompt, row.group, unit=row.meta["unit"]) for row in rows]

    def asked(task: PlaceTask) -> str:
        depth = len(task.unit) - len(task.unit.lstrip(" "))
        example = textwrap.indent(behaviour.above, " " * depth)
        return task.prompt[: len(task.prompt) - len(task.unit)] + example + "\n" + task.unit

    return TaskSet(
        f"{behaviour.name}:{part}",
        tasks,
        behaviour.phrase,
        asked,
        lambda tasks, completions, sandbox: grade(behaviour, tasks, completions),
        texts,
        behaviour.max_new_tokens,
        "parses",
        note="Asked: a function that does so stands above.",
    )
