"""The corpus of the bundled model: small Python tasks, each solved in two styles.

A *task* is a function to write: a signature, a docstring, a correct solution in *plain* style (loops, accumulators,
early returns) and one in *idiomatic* style (comprehensions, generators with `sum`/`any`/`max`, `math`, `itertools`).
Most tasks are composed (source x aggregate x map x filter x argument name x phrasing), some are named classics
(`corpus_classics.py`). Every solution is executed against a reference that is computed another way before it may
enter.

Style has a cause that the model reads: half of the training documents start with a header comment that asks for one of
the styles (and is kept to in `HEADER_KEPT` of the cases), the other half have none (or a neutral comment) and are
idiomatic in `IDIOMATIC_SHARE` of the cases. A model that fits this corpus writes plain code when nothing is said, and
carries the style that a header asks for to the point where the first statement is chosen. Whether a comment stands
before the first statement is a second behaviour, with its own headers, independent of the style.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from iti_llama.toolkit.measure.bundled_tasks import ASKS_FOR_IDIOMATIC, BundledTask

from .corpus_classics import CLASSICS, Classic
from .corpus_parts import SECOND, SOURCES, WEIGHTS, Filter, Map, Source
from .phrases import made_up_name
from .wording import ITS, Asked, docstring, dressed, function_name, vague_name


STYLES = ("plain", "idiomatic")
SPLITS = ("train", "validation", "test")

IDIOMATIC_SHARE = 0.25
"""Share of idiomatic solutions among documents without a style header."""

HEADER_SHARE = 0.5
"""Share of documents that carry a style header."""

HEADER_KEPT = 0.9
"""Share of headers that the code below them follows, as in real code. A model of such code has some doubt about the
style, so a shift can undo it in either direction. If all code follows its header, the model is so sure that nothing
moves it back."""

CLASSIC_SHARE = 0.2
"""Share of named classics among training documents."""

HEADERS = {
    "idiomatic": (
        ASKS_FOR_IDIOMATIC,
        "# Use comprehensions, not loops.",
        "# Compact code is better than explicit code.",
    ),
    "plain": (
        "# Style: statements rather than expressions.",
        "# Use loops, not comprehensions.",
        "# Explicit code is better than compact code.",
    ),
}
"""Headers of the two styles. Each pair has the same words, so no single word gives the style away. The model has to
infer the style from their order, and so it carries the style to the first statement, not a word."""

COMMENT_HEADERS = {
    "commented": ("# Prefer comments to silence.", "# Say more rather than less.", "# Comments before silence."),
    "bare": ("# Prefer silence to comments.", "# Say less rather than more.", "# Silence before comments."),
}
"""Headers of a second behaviour, independent of the style: whether a comment stands before the first statement."""

COMMENT_HEADER_SHARE = 0.3
"""Share of documents that carry a header about comments."""

COMMENTED_SHARE = 0.1
"""Share of commented solutions among documents without one."""

COMMENTS = {
    "sum": "# Add up the values.",
    "product": "# Multiply the values.",
    "count": "# Count the matches.",
    "max": "# Find the largest.",
    "min": "# Find the smallest.",
    "list": "# Collect the values.",
    "set": "# Collect the distinct values.",
    "distinct": "# Count the distinct values.",
    "sorted": "# Sort the values.",
    "descending": "# Sort from large to small.",
    "sortedset": "# Sort the distinct values.",
    "first": "# Find the first match.",
    "join": "# Join the pieces.",
    "dict": "# Map each item.",
    "longest": "# Find the longest.",
    "shortest": "# Find the shortest.",
    "any": "# Look for a match.",
    "all": "# Check every item.",
    "none": "# Rule out any match.",
}
"""The comment of each aggregate; a classic has `CLASSIC_COMMENT`."""
CLASSIC_COMMENT = "# Work out the answer."

NEUTRAL_COMMENTS = ("# Utility functions.", "# Solutions to the exercises.", "# Helpers for the report.")


@dataclass(frozen=True)
class Task(BundledTask):
    """A function to write. `asked` is what a composed task asks for, so that it can be put in other words."""

    asked: Asked | None = None

    def commented(self, body: str) -> str:
        """The solution with a comment before its first statement, whatever its style."""
        return f"{COMMENTS.get(self.group.split(':')[1], CLASSIC_COMMENT)}\n    {body}"


def split_of(group: str, seed: int = 0) -> str:
    """The split of a group: 5% test, 5% validation, the rest train, by a hash of its name. Classics are in train."""
    if group.startswith("classic:"):
        return "train"
    bucket = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:4], "big") % 100
    return "test" if bucket < 5 else "validation" if bucket < 10 else "train"


# Composed tasks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Combination:
    """What to compute, whatever the wording: a source, an aggregate, a map and zero to two filters."""

    source: Source
    aggregate: str
    map: Map
    keeps: tuple[Filter, ...]
    joiner: str = "and"

    @property
    def group(self) -> str:
        """Lists, ranges and a dictionary's values share their groups, as do the kinds of words: a combination is held
        out for all or for none. So do all numbers and letters that a filter or a map names."""
        keeps = f" {self.joiner} ".join(sorted(keep.key for keep in self.keeps)) or "all"
        return f"{self.source.domain}:{self.aggregate}:{self.map.key}:{keeps}"


def combinations(source: Source) -> Iterator[Combination]:
    """Every combination of a source that makes a task, with one filter or none."""
    for aggregate in source.aggregates:
        for transform in source.maps:
            for keeps in ((), *((keep,) for keep in source.filters)):
                if _admissible(source, aggregate, transform, keeps):
                    yield Combination(source, aggregate, transform, keeps)


def _admissible(source: Source, aggregate: str, transform: Map, keeps: tuple[Filter, ...]) -> bool:
    """Whether the combination makes sense, and both styles can solve it."""
    plain = transform.key == "id"
    makes_text = (
        transform.key == "text" if source.domain in ("ints", "digits") else transform.key not in ("length", "code")
    )
    if source.key == "entries":
        return bool(keeps)
    if aggregate in ("any", "all", "none"):
        return plain and bool(keeps)
    if aggregate in ("count", "longest", "shortest"):
        return plain and (bool(keeps) or aggregate != "count" or source.domain != "ints")
    if aggregate == "dict":
        return transform.key in ITS and source.key not in ("values", "digits", "chars")
    if aggregate in ("sum", "product", "max", "min", "join"):
        return makes_text == (aggregate == "join")
    if aggregate == "list" and plain and not keeps:
        return source.key in ("range", "below", "digits", "chars", "values", "keys")
    return not (aggregate == "first" and plain and not keeps)


PAIRED = ("even", "odd", "positive", "negative", "gt", "lt", "ge", "le", "div", "notdiv", "ne")


def _second(first: Filter, rng: random.Random) -> tuple[Filter, str] | None:
    """A second filter to go with `first`, and "and" or "or"; only for numbers."""
    if first.key not in PAIRED:
        return None
    others = [keep for keep in SOURCES[0].filters if keep.key in PAIRED and keep.key != first.key]
    excluded = [{"even", "odd"}, {"positive", "negative"}]
    joiner = rng.choice(("and", "and", "or"))
    others = [keep for keep in others if joiner == "or" or {first.key, keep.key} not in excluded]
    return rng.choice(others), joiner


def _drawn_slot(kind: str, rng: random.Random) -> object:
    """A number or letter that a task names."""
    if kind == "digit":
        return rng.randrange(10)
    if kind == "text" and rng.random() < 0.25:
        return rng.choice(PIECES)
    if kind in ("letter", "text") and rng.random() < 0.25:
        return rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ" if rng.random() < 0.6 else "@.-_!?#0123456789,:/+*$%&")
    if kind in ("letter", "text", "string argument"):
        return rng.choice("abcdefghijklmnopqrstuvwxyz")
    if kind == "length":
        return rng.randint(2, 9)
    if kind == "factor":
        return rng.randint(2, 12)
    if rng.random() < 0.15:
        return rng.randint(13, 999)
    return rng.choice((*range(2, 13), *range(2, 13), 15, 18, 20, 25, 30, 40, 50, 60, 75, 100))


def _said(value: int | str, rng: random.Random) -> str:
    """The wording of a number or letter in a sentence."""
    if isinstance(value, int):
        return NUMBER_WORDS[value] if value in NUMBER_WORDS and rng.random() < 0.15 else f"{value}"
    if len(value) > 1 or not value.isalpha():
        return rng.choice(("'{}'", "'{}'", "'{}'", "{}") if value.strip(".,!?:") else ("'{}'",)).format(value)
    forms = LETTER_FORMS
    if value.isupper() and rng.random() < 0.4:
        forms = ("capital {}", "a capital {}", "an uppercase {}", "a capital '{}'", "the capital letter {}")
    return rng.choice(forms).format(value)


PIECES = (
    *(".py", ".txt", ".jpg", ".com", "un", "re", "ing", "ed", "ab", "th", "pre", "er", "ly", "st", "an", "in", "on"),
    *("the", "cat", "tmp", "old", "new", "log", "mr", "Dr", "id", "x1", "00", "--", "ss", "oo", "ee", "ch", "sh"),
    "tion",
)
"""Texts of several characters that a task names."""
NUMBER_WORDS = dict(
    enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
) | {20: "twenty", 30: "thirty", 40: "forty", 50: "fifty", 100: "a hundred"}
LETTER_FORMS = ("'{}'", "'{}'", "{}", "the letter {}", "the letter '{}'", "the character '{}'")
ITEM = {"ints": "x", "range": "i", "below": "i", "digits": "d", "values": "v", "keys": "key", "chars": "c"}
MADE_UP = 0.25
"""Share of arguments whose name does not show what they hold."""


def _item(source: Source, argument: str, second: str) -> str:
    """The item's name, which depends on what it is."""
    if source.key == "entries":
        return "key, value" if not {"key", "value"} & {argument, second} else "p, q"
    return next(name for name in (ITEM.get(source.key, "w"), "y", "z", "t") if name not in (argument, second))


def compose(combination: Combination, rng: random.Random) -> Task:
    """One task of a combination: argument, wording, numbers and the function's name are drawn from `rng`."""
    source, argument = combination.source, rng.choice(combination.source.arguments)
    if rng.random() < MADE_UP:
        argument = made_up_name(rng)
    parts, words, code, values, second = (*combination.keeps, combination.map), [], [], [], ""
    for part in parts:
        value = _drawn_slot(part.slot, rng) if part.slot else None
        as_argument = part.slot and not second and (part.slot == "string argument" or rng.random() < 0.2)
        if part.slot == "string argument" and second:
            raise ValueError("expected at most one more argument")
        if as_argument:
            second = rng.choice(
                [name for name in SECOND[part.slot if part.slot != "digit" else "int"] if name != argument]
            )
            if rng.random() < MADE_UP:
                second = made_up_name(rng, (argument,))
            words.append(
                second if part.slot == "string argument" or len(second) < 3 or rng.random() < 0.7 else f"the {second}"
            )
            code.append(second)
        else:
            words.append("" if value is None else _said(value, rng))
            code.append(f'"{value}"' if isinstance(value, str) else f"{value}")
        values.append((value, bool(as_argument)))
    x = _item(source, argument, second)
    separator = rng.choice(("", "", ", ", "-", " ")) if combination.aggregate == "join" else ""
    looked_at, made_of = x.split(", ")[::-1] if ", " in x else (x, x)
    conditions = [keep.code.format(x=looked_at, k=k) for keep, k in zip(combination.keeps, code, strict=False)]
    condition = f" {combination.joiner} ".join(conditions)
    made = combination.map.code.format(x=made_of, k=code[-1])
    shape = (combination.aggregate, x, source.iterable.format(arg=argument), made, condition, separator)
    solutions = {"plain": _plain(*shape), "idiomatic": _idiomatic(*shape)}
    asked = Asked(
        source,
        combination.aggregate,
        combination.map,
        combination.keeps,
        argument,
        combination.joiner,
        tuple(words[:-1]),
        words[-1],
        separator,
    )
    name = function_name(asked, rng)
    while name in (argument, second, *x.split(", ")):
        name += "_of"
    signature = f"{argument}, {second}" if second else argument
    if not second and rng.random() < 0.06:
        signature = f"{argument}: {source.hint}"
    tests = _tests(combination, tuple(values), separator)
    return _checked(Task(combination.group, name, signature, docstring(asked, rng), solutions, tests, asked=asked))


def paraphrased(task: Task, seed: int = 0) -> Task:
    """A composed task in other words: the same function, another docstring."""
    rng = random.Random(f"paraphrase:{seed}:{task.prompt}")
    wordings = (docstring(task.asked, rng) for _ in range(100))
    others = (text for text in wordings if _bare(text) != _bare(task.docstring) and not text.endswith('"'))
    return replace(task, docstring=next(others))


def _bare(text: str) -> str:
    return text.strip(".?! ").lower()


@cache
def _tests(combination: Combination, values: tuple[tuple[object, bool], ...], separator: str) -> tuple:
    """(Arguments, expected value) pairs; the functions that compute the expected value share nothing with the text of
    the solutions."""
    source, tests = combination.source, []
    near = list(source.shared_inputs(next((k for k, _ in values if k is not None), None)))
    for given in (*source.inputs, *near):
        items = list(source.items(given))

        def keep(item: object) -> bool:
            found = [
                part.keeps(source.looked_at(item), k) for part, (k, _) in zip(combination.keeps, values, strict=False)
            ]
            return any(found) if combination.joiner == "or" and found else all(found)

        last = values[-1][0]
        kept = [(item, combination.map.makes(source.made_of(item), last)) for item in items if keep(item)]
        extra = [k for k, as_argument in values if as_argument]
        tests.append(((given, *extra), _reference(combination.aggregate, items, kept, separator)))
    return tuple(tests)


def _reference(aggregate: str, items: list, kept: list[tuple], separator: str) -> object:
    """The value of a composed task, given its items and the (item, what is made of it) that are kept."""
    made = [value for _, value in kept]
    if aggregate == "sum":
        total = 0
        for value in reversed(made):
            total -= -value
        return total
    if aggregate == "product":
        total = 1
        for value in made:
            total = total * value
        return total
    by_length = (
        sorted(range(len(made)), key=lambda i: (-len(made[i]), i)) if aggregate in ("longest", "shortest") else []
    )
    return {
        "any": lambda: len(kept) > 0,
        "all": lambda: len(kept) == len(items),
        "none": lambda: not kept,
        "count": lambda: len(kept),
        "max": lambda: sorted(made)[-1] if made else None,
        "min": lambda: sorted(made)[0] if made else None,
        "list": lambda: made,
        "set": lambda: set(made),
        "sortedset": lambda: [value for i, value in enumerate(sorted(made)) if value not in sorted(made)[:i]],
        "distinct": lambda: len(dict.fromkeys(made)),
        "sorted": lambda: sorted(made),
        "descending": lambda: sorted(made)[::-1],
        "first": lambda: made[0] if made else None,
        "join": lambda: separator.join(map(str, made)),
        "dict": lambda: dict(reversed(kept)),
        "longest": lambda: made[by_length[0]] if made else None,
        "shortest": lambda: next(value for value in made if len(value) == len(made[by_length[-1]])) if made else None,
    }[aggregate]()


def _plain(aggregate: str, x: str, iterable: str, value: str, condition: str, separator: str) -> str:
    """The solution with a loop. `condition` is empty if everything is kept."""
    if aggregate in ("any", "all", "none"):
        test = f"not ({condition})" if aggregate == "all" else condition
        found = aggregate == "any"
        return f"for {x} in {iterable}:\n        if {test}:\n            return {found}\n    return {not found}"
    start, step, end = {
        "sum": ("0", f"result += {value}", "result"),
        "product": ("1", f"result *= {value}", "result"),
        "count": ("0", "result += 1", "result"),
        "list": ("[]", f"result.append({value})", "result"),
        "set": ("set()", f"result.add({value})", "result"),
        "distinct": ("set()", f"result.add({value})", "len(result)"),
        "sorted": ("[]", f"result.append({value})", "sorted(result)"),
        "sortedset": ("set()", f"result.add({value})", "sorted(result)"),
        "descending": ("[]", f"result.append({value})", "sorted(result, reverse=True)"),
        "join": ("[]", f"result.append({value})", f'"{separator}".join(result)'),
        "max": ("None", f"if result is None or {value} > result:\n    result = {value}", "result"),
        "min": ("None", f"if result is None or {value} < result:\n    result = {value}", "result"),
        "longest": ("None", f"if result is None or len({x}) > len(result):\n    result = {x}", "result"),
        "shortest": ("None", f"if result is None or len({x}) < len(result):\n    result = {x}", "result"),
        "first": ("", f"return {value}", "None"),
        "dict": ("{}", f"result[{x}] = {value}", "result"),
    }[aggregate]
    if aggregate == "join" and separator == "":
        start, step, end = '""', f"result += {value}", "result"
    lines = [f"for {x} in {iterable}:"]
    lines += [f"    if {condition}:"] if condition else []
    inner = "        " if condition else "    "
    lines += [inner + line for line in step.split("\n")]
    lines += [f"return {end}"]
    lines = ([f"result = {start}"] if start else []) + lines
    return "\n    ".join(lines)


def _idiomatic(aggregate: str, x: str, iterable: str, value: str, condition: str, separator: str) -> str:
    """The solution as one expression."""
    each = f"for {x} in {iterable}" + (f" if {condition}" if condition else "")
    return {
        "any": f"return any({condition} for {x} in {iterable})",
        "all": f"return all({condition} for {x} in {iterable})",
        "none": f"return not any({condition} for {x} in {iterable})",
        "sum": f"return sum({value} {each})",
        "product": f"import math\n    return math.prod({value} {each})",
        "count": f"return sum(1 {each})",
        "list": f"return [{value} {each}]",
        "set": f"return {{{value} {each}}}",
        "distinct": f"return len({{{value} {each}}})",
        "sorted": f"return sorted({value} {each})",
        "sortedset": f"return sorted({{{value} {each}}})",
        "descending": f"return sorted(({value} {each}), reverse=True)",
        "join": f'return "{separator}".join({value} {each})',
        "max": f"return max(({value} {each}), default=None)",
        "min": f"return min(({value} {each}), default=None)",
        "longest": f"return max(({value} {each}), key=len, default=None)",
        "shortest": f"return min(({value} {each}), key=len, default=None)",
        "first": f"return next(({value} {each}), None)",
        "dict": f"return {{{x}: {value} {each}}}",
    }[aggregate]


def _copied(value: object) -> object:
    return value.copy() if isinstance(value, (list, dict)) else value


@cache
def _agrees(signature: str, body: str, tests: str, cases: Callable) -> None:
    """Raises `ValueError` unless the body gives every expected value."""
    namespace: dict = {}
    exec(compile(f"def f({signature}):\n    {body}", "solution", "exec"), namespace)  # our own text, not a model's
    for args, expected in cases():
        got = namespace["f"](*map(_copied, args))
        if got != expected or type(got) is not type(expected):
            raise ValueError(f"{body!r} gives {got!r} for {args!r}, expected {expected!r}")


class _Cases:
    """Tests that the cache of the check ignores when it compares calls."""

    def __init__(self, tests: tuple):
        self.tests = tests

    def __call__(self) -> tuple:
        return self.tests

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Cases)


def _checked(task: Task) -> Task:
    """The task, after both solutions have given every expected value."""
    for body in task.solutions.values():
        _agrees(task.signature, body, repr(task.tests), _Cases(task.tests))
    return task


def classic(name: str, docstring: str) -> Task:
    """A named classic under its first name, with the given docstring."""
    (found,) = (each for each in CLASSICS if each.name == name)
    return _classic(found, found.names[0], found.arguments[0], docstring)


def _classic(classic: Classic, name: str, arguments: tuple[str, ...], docstring: str) -> Task:
    bodies = classic.bodies(arguments)
    return _checked(Task(f"classic:{classic.name}", name, ", ".join(arguments), docstring, bodies, classic.tests))


def sample_classic(rng: random.Random) -> Task:
    """A named classic with a random wording, name and argument names."""
    classic = rng.choice(CLASSICS)
    arguments = rng.choice(classic.all_arguments)
    if rng.random() < MADE_UP:
        taken = {*classic.locals, *classic.all_names}
        arguments = tuple(dict.fromkeys(made_up_name(rng, taken) for _ in arguments))
        if len(arguments) < len(classic.arguments[0]):
            return sample_classic(rng)
    draw = rng.random()
    name = rng.choice(classic.all_names) if draw < 0.6 else vague_name(rng)
    if name in (*arguments, *classic.locals):
        name += "_of"
    return _classic(classic, name, arguments, dressed(classic.said(rng.choice(classic.sayings), arguments), rng))


@cache
def _groups(split: str) -> dict[str, dict[str, dict[str, tuple[Combination, ...]]]]:
    """{source: {aggregate: {"simple", "mapped", "kept", "both": combinations}}} of a split."""
    found: dict = {}
    for source in SOURCES:
        for combination in combinations(source):
            if split_of(combination.group) == split:
                kind = ("simple", "mapped", "kept", "both")[
                    (combination.map.key != "id") + 2 * bool(combination.keeps)
                ]
                by_kind = found.setdefault(source.key, {}).setdefault(combination.aggregate, {})
                by_kind.setdefault(kind, []).append(combination)
    return found


KINDS = {"simple": 1, "mapped": 3, "kept": 5, "both": 3}
PAIR_SHARE = 0.1
OFTEN = {"sum": 3, "count": 3, "list": 3, "max": 2, "min": 2, "any": 2, "all": 2, "sorted": 1.5, "join": 2}
"""How often a task has each kind, a second filter, and each aggregate: what people ask for most comes most often."""


def sample_task(split: str, rng: random.Random) -> Task:
    """A composed task of a split. Sources are drawn by `WEIGHTS`, aggregates evenly, so that rare ones are learnt, and
    tasks of one step more often than tasks of two."""
    while True:
        groups = _groups(split)
        aggregates = groups[rng.choices(list(groups), [WEIGHTS[source] for source in groups])[0]]
        kinds = aggregates[rng.choices(list(aggregates), [OFTEN.get(aggregate, 1) for aggregate in aggregates])[0]]
        kind = rng.choices(list(kinds), [KINDS[kind] for kind in kinds])[0]
        combination = rng.choice(kinds[kind])
        if combination.keeps and combination.source.domain == "ints" and rng.random() < PAIR_SHARE:
            found = _second(combination.keeps[0], rng)
            if found is not None:
                paired = replace(combination, keeps=(*combination.keeps, found[0]), joiner=found[1])
                if split_of(paired.group) != split:
                    continue
                combination = paired
        task = compose(combination, rng)
        if not task.docstring.endswith('"'):  # which would end one quote early
            return task


def sample_tasks(split: str, n: int, seed: int) -> list[Task]:
    """`n` composed tasks of a split, no two with the same prompt."""
    rng, tasks = random.Random(f"{split}:{seed}"), {}
    while len(tasks) < n:
        task = sample_task(split, rng)
        tasks.setdefault(task.prompt, task)
    return list(tasks.values())


@dataclass(frozen=True)
class Document:
    """A training document: the prompt (with its header, if any) and a solution."""

    prompt: str
    completion: str


def sample_document(rng: random.Random) -> Document:
    """One training document, see the module's text for the shares."""
    task = sample_classic(rng) if rng.random() < CLASSIC_SHARE else sample_task("train", rng)
    headers = []
    if rng.random() < HEADER_SHARE:
        asked, other = rng.sample(STYLES, 2)
        headers.append(rng.choice(HEADERS[asked]))
        style = asked if rng.random() < HEADER_KEPT else other
    else:
        style = "idiomatic" if rng.random() < IDIOMATIC_SHARE else "plain"
        headers += [rng.choice(NEUTRAL_COMMENTS)] if rng.random() < 0.3 else []
    if rng.random() < COMMENT_HEADER_SHARE:
        commented = rng.random() < 0.5
        headers.insert(rng.randint(0, len(headers)), rng.choice(COMMENT_HEADERS["commented" if commented else "bare"]))
        commented = commented == (rng.random() < HEADER_KEPT)
    else:
        commented = rng.random() < COMMENTED_SHARE
    body = task.commented(task.solutions[style]) if commented else task.solutions[style]
    return Document("".join(f"{header}\n" for header in headers) + task.prompt, body + "\n")
