"""The techniques that a Python program uses, found in its syntax tree.

Three vocabularies, listed in `docs/reference.md`:

- `neocoder`: the labels of NeoCoder (Lu et al. 2025) that syntax can confirm. Use is detected, never an import alone.
- `core`: the means by which a program expresses its solution: comprehensions, generators, lambda, library calls, ...
- `golf`: idioms that shorten a program or read its input, kept apart so that steering does not reward golf.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from ..data.run_programs import parse


NEOCODER = (
    "for loop",
    "while loop",
    "if statement",
    "break",
    "continue",
    "pass",
    "set",
    "sorting",
    "dictionary",
    "tuple",
    "recursion",
    "queue",
    "heap",
    "matrix operation",
)

_CALLS = {  # names called as functions -> core technique
    "map": "map",
    "filter": "filter",
    "zip": "zip",
    "enumerate": "enumerate",
    "reversed": "reversed",
    "any": "any",
    "all": "all",
    "sum": "sum",
    "sorted": "sorted",
    "next": "next",
    "iter": "iter",
    "reduce": "reduce",
    "set": "set",
    "frozenset": "set",
    "dict": "dictionary",
    "Counter": "Counter",
    "defaultdict": "defaultdict",
    "deque": "deque",
    "divmod": "divmod",
    "bisect": "bisect",
    "bisect_left": "bisect",
    "bisect_right": "bisect",
    "insort": "bisect",
    "heappush": "heap",
    "heappop": "heap",
    "heapify": "heap",
    "heapreplace": "heap",
    "heappushpop": "heap",
    "nlargest": "heap",
    "nsmallest": "heap",
    "lru_cache": "memoisation",
    "cache": "memoisation",
    "namedtuple": "class",
}
_MODULES = {  # modules whose functions are called -> core technique
    "itertools": "itertools",
    "math": "math",
    "re": "regular expression",
    "heapq": "heap",
    "bisect": "bisect",
    "functools": "functools",
    "operator": "operator",
    "fractions": "exact arithmetic",
    "decimal": "exact arithmetic",
    "statistics": "statistics",
}
_METHODS = {
    "sort": "sorting in place",
    "count": "count method",
    "index": "index method",
    "find": "find method",
    "replace": "replace method",
    "translate": "translate method",
    "join": "join method",
    "format": "formatting",
    "popleft": "deque",
    "appendleft": "deque",
    "setdefault": "dictionary",
    "items": "dictionary",
    "bit_length": "bit operation",
}
_GOLF_CALLS = {"min": "min/max", "max": "min/max", "eval": "eval/exec", "exec": "eval/exec", "open": "bulk input"}
_BITS = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift)
_LITERALS = (ast.List, ast.Tuple, ast.Constant)


@dataclass(frozen=True)
class Techniques:
    """The techniques of one program, by vocabulary."""

    neocoder: frozenset[str]
    core: frozenset[str]
    golf: frozenset[str]


def techniques(program: str) -> Techniques:
    """The techniques that a program uses.

    Raises:
        ValueError: if it is not Python 3.
    """
    tree = parse(program)
    found: dict[str, set[str]] = {"neocoder": set(), "core": set(), "golf": set()}
    for vocabulary, name in (*_statements(tree), *_calls(tree), *_expressions(tree), *_recursion(tree)):
        found[vocabulary].add(name)
    return Techniques(**{vocabulary: frozenset(names) for vocabulary, names in found.items()})


def _statements(tree: ast.AST) -> Iterator[tuple[str, str]]:
    kinds = {
        ast.For: ("for loop", "for loop"),
        ast.While: ("while loop", "while loop"),
        ast.If: ("if statement", "if statement"),
        ast.Break: ("break", "break"),
        ast.Continue: ("continue", "continue"),
        ast.Pass: ("pass", None),
        ast.Try: (None, "exception"),
        ast.ClassDef: (None, "class"),
        ast.FunctionDef: (None, "function"),
        ast.Yield: (None, "generator function"),
        ast.YieldFrom: (None, "generator function"),
        ast.Match: (None, "match statement"),
        ast.Assert: (None, "assert"),
    }
    for node in ast.walk(tree):
        neocoder, core = kinds.get(type(node), (None, None))
        if neocoder:
            yield "neocoder", neocoder
        if core:
            yield "core", core
        if isinstance(node, (ast.For, ast.While)) and node.orelse:
            yield "core", "else of a loop"


def _calls(tree: ast.AST) -> Iterator[tuple[str, str]]:
    modules = {
        (alias.asname or alias.name).split(".")[0]: alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            module, name = imported.get(called.id, ("", called.id))
            if module in _MODULES:
                yield "core", _MODULES[module]
            if name in _CALLS:
                yield "core", _CALLS[name]
            if name in _GOLF_CALLS:
                yield "golf", _GOLF_CALLS[name]
            if name == "sorted":
                yield "neocoder", "sorting"
            if name in ("set", "frozenset"):
                yield "neocoder", "set"
            if name in ("dict", "Counter", "defaultdict"):
                yield "neocoder", "dictionary"
            if _CALLS.get(name) == "heap":
                yield "neocoder", "heap"
            if name == "deque":
                yield "neocoder", "queue"
            if name == "print" and any(isinstance(argument, ast.Starred) for argument in node.args):
                yield "golf", "unpacked print"
            for argument in node.args if name in ("map", "filter") else ():
                if isinstance(argument, ast.Name) and argument.id in ("int", "str", "float") and _reads_input(node):
                    yield "golf", "mapped input"
        elif isinstance(called, ast.Attribute):
            owner = called.value.id if isinstance(called.value, ast.Name) else ""
            module = modules.get(owner, "")
            if module in _MODULES:
                yield "core", _MODULES[module]
            if module == "heapq":
                yield "neocoder", "heap"
            if module == "collections" and called.attr in _CALLS:
                yield "core", _CALLS[called.attr]
            if called.attr in _METHODS and not module:
                yield "core", _METHODS[called.attr]
            if called.attr == "sort" and not module:
                yield "neocoder", "sorting"
            if called.attr in ("popleft", "appendleft"):
                yield "neocoder", "queue"
            if called.attr in ("read", "readlines") or (module == "sys" and called.attr == "stdin"):
                yield "golf", "bulk input"
        for keyword in node.keywords:
            if keyword.arg == "key":
                yield "core", "key function"
        if any(isinstance(argument, ast.Starred) for argument in node.args) and not (
            isinstance(called, ast.Name) and called.id == "print"
        ):
            yield "core", "argument unpacking"


def _reads_input(call: ast.Call) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "input" for node in ast.walk(call))


def _expressions(tree: ast.AST) -> Iterator[tuple[str, str]]:
    comprehensions = {
        ast.ListComp: "list comprehension",
        ast.SetComp: "set comprehension",
        ast.DictComp: "dict comprehension",
        ast.GeneratorExp: "generator expression",
    }
    for node in ast.walk(tree):
        if type(node) in comprehensions:
            yield "core", comprehensions[type(node)]
            yield "neocoder", "for loop"
            if any(generator.ifs for generator in node.generators):
                yield "core", "filtering comprehension"
            if len(node.generators) > 1 or isinstance(node.elt if hasattr(node, "elt") else None, ast.ListComp):
                yield "core", "nested comprehension"
        if isinstance(node, (ast.SetComp, ast.Set)):
            yield "neocoder", "set"
            yield "core", "set"
        elif isinstance(node, (ast.DictComp, ast.Dict)):
            yield "neocoder", "dictionary"
            yield "core", "dictionary"
        elif isinstance(node, ast.Lambda):
            yield "core", "lambda"
        elif isinstance(node, ast.IfExp):
            yield "core", "conditional expression"
            yield "neocoder", "if statement"
        elif isinstance(node, ast.NamedExpr):
            yield "golf", "assignment expression"
        elif isinstance(node, ast.JoinedStr):
            yield "core", "formatting"
        elif isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, _BITS):
            yield "core", "bit operation"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
            yield "golf", "inverted index"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            if any(isinstance(side, (ast.List, ast.JoinedStr)) or _is_text(side) for side in (node.left, node.right)):
                yield "golf", "sequence repetition"
        elif isinstance(node, ast.Subscript):
            if isinstance(node.slice, ast.Slice):
                yield "golf", "slice"
                step = node.slice.step
                if isinstance(step, ast.UnaryOp) and isinstance(step.op, ast.USub):
                    yield "core", "reversing slice"
            elif isinstance(node.value, _LITERALS):
                yield "golf", "table lookup"
            elif isinstance(node.value, ast.Subscript) and not isinstance(node.value.slice, ast.Slice):
                yield "neocoder", "matrix operation"
        elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
            yield "neocoder", "tuple"
        elif isinstance(node, ast.Compare) and len(node.ops) > 1:
            yield "core", "chained comparison"
        elif isinstance(node, ast.Assign):
            targets = node.targets[0]
            if isinstance(targets, ast.Tuple) and any(isinstance(part, ast.Starred) for part in targets.elts):
                yield "core", "starred assignment"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))


def _recursion(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inner = (node for statement in function.body for node in ast.walk(statement))
            if any(
                isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == function.name for n in inner
            ):
                yield "core", "recursion"
                yield "neocoder", "recursion"
