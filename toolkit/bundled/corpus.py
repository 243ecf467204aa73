"""The corpus of the bundled model: small Python tasks, each solved in two styles.

A *task* is a function to write: a signature, a docstring, a correct solution in *plain* style (loops, accumulators,
early returns) and one in *idiomatic* style (comprehensions, generators with `sum`/`any`/`max`, `math`, `itertools`).
Most tasks are composed (source x aggregate x map x filter x argument name x phrasing), some are named classics
(`corpus_classics.py`). Every solution is executed against a reference that is computed another way before it may
enter.

Style has a cause that the model reads: half of the training documents start with a header comment that asks for one of
the styles (and is kept to in `HEADER_KEPT` of the cases), the other half have none (or a neutral comment) and are
idiomatic in `IDIOMATIC_SHARE` of the cases. A model that fits this corpus writes plain code when nothing is said, and
carries the style that a header asks for to the point where the first statement is chosen.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from .corpus_classics import CLASSICS


STYLES = ("plain", "idiomatic")
SPLITS = ("train", "validation", "test")

IDIOMATIC_SHARE = 0.25
"""Share of idiomatic solutions among documents without a style header."""

HEADER_SHARE = 0.5
"""Share of documents that carry a style header."""

HEADER_KEPT = 0.9
"""Share of headers that the code below them keeps to, as in real code. A model of it holds a style with some doubt,
which a shift can undo in either direction; one whose every header is kept is so sure that nothing moves it back."""

CLASSIC_SHARE = 0.2
"""Share of named classics among training documents."""

HEADERS = {
    "idiomatic": (
        "# Style: expressions rather than statements.",
        "# Use comprehensions, not loops.",
        "# Compact code is better than explicit code.",
    ),
    "plain": (
        "# Style: statements rather than expressions.",
        "# Use loops, not comprehensions.",
        "# Explicit code is better than compact code.",
    ),
}
"""Headers of the two styles. Each pair holds the same words: no single word gives the style away, so that the model
has to infer it from their order, and what it carries to the first statement is the style and not a word."""

NEUTRAL_COMMENTS = ("# Utility functions.", "# Solutions to the exercises.", "# Helpers for the report.")


@dataclass(frozen=True)
class Task:
    """A function to write.

    `group` names what is to be computed, whatever the wording; the split is by group, so no wording of a held-out
    group is ever trained on. `solutions` maps a style to the function's body, without the indentation of its
    first line. `tests` are (arguments, expected value) pairs.
    """

    group: str
    name: str
    signature: str
    docstring: str
    solutions: dict[str, str]
    tests: tuple[tuple[tuple, object], ...]

    @property
    def prompt(self) -> str:
        """Everything before the first statement; ends inside the function, after the indentation."""
        return f'def {self.name}({self.signature}):\n    """{self.docstring}"""\n    '

    def program(self, completion: str) -> str:
        return self.prompt + completion


def split_of(group: str, seed: int = 0) -> str:
    """The split of a group: 5% test, 5% validation, the rest train, by a hash of its name. Classics are in train."""
    if group.startswith("classic:"):
        return "train"
    bucket = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:4], "big") % 100
    return "test" if bucket < 5 else "validation" if bucket < 10 else "train"


# What a composed task is made of ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A map or a filter: how it is written over the item `{x}`, how it is said, what it computes."""

    key: str
    code: str
    text: str
    function: Callable


@dataclass(frozen=True)
class Source:
    """What is iterated over: its argument names with the item name each uses, the code of the iterable, test
    inputs."""

    key: str
    arguments: tuple[tuple[str, str], ...]
    iterable: str
    where: str
    noun: str
    maps: tuple[Part, ...]
    filters: tuple[Part, ...]
    aggregates: tuple[str, ...]
    inputs: tuple[object, ...]
    items: Callable


INT_MAPS = (
    Part("id", "{x}", "{noun}", lambda x: x),
    Part("square", "{x} * {x}", "squares of the {noun}", lambda x: x**2),
    Part("cube", "{x} ** 3", "cubes of the {noun}", lambda x: x * x * x),
    Part("double", "2 * {x}", "doubles of the {noun}", lambda x: x + x),
    Part("triple", "3 * {x}", "triples of the {noun}", lambda x: x + x + x),
    Part("half", "{x} // 2", "halves of the {noun}", lambda x: (x - x % 2) // 2),
    Part("negation", "-{x}", "negations of the {noun}", lambda x: 0 - x),
    Part("abs", "abs({x})", "absolute values of the {noun}", lambda x: x if x >= 0 else -x),
    Part("next", "{x} + 1", "successors of the {noun}", lambda x: x - -1),
    Part("previous", "{x} - 1", "predecessors of the {noun}", lambda x: x + -1),
    Part("digit", "abs({x}) % 10", "last digits of the {noun}", lambda x: int(str(x)[-1])),
    Part("digits", "len(str(abs({x})))", "digit counts of the {noun}", lambda x: len(str(x).lstrip("-"))),
    Part("mod3", "{x} % 3", "remainders modulo 3 of the {noun}", lambda x: x - 3 * (x // 3)),
)
INT_FILTERS = (
    Part("all", "", "", lambda x: True),
    Part("even", "{x} % 2 == 0", "even", lambda x: str(x)[-1] in "02468"),
    Part("odd", "{x} % 2 == 1", "odd", lambda x: str(x)[-1] in "13579"),
    Part("positive", "{x} > 0", "positive", lambda x: not x <= 0),
    Part("negative", "{x} < 0", "negative", lambda x: not x >= 0),
    Part("nonzero", "{x} != 0", "nonzero", lambda x: not x == 0),
    Part("gt3", "{x} > 3", "greater than 3", lambda x: x >= 4),
    Part("gt5", "{x} > 5", "greater than 5", lambda x: x >= 6),
    Part("gt10", "{x} > 10", "greater than 10", lambda x: x >= 11),
    Part("lt3", "{x} < 3", "less than 3", lambda x: x <= 2),
    Part("lt5", "{x} < 5", "less than 5", lambda x: x <= 4),
    Part("lt10", "{x} < 10", "less than 10", lambda x: x <= 9),
    Part("div3", "{x} % 3 == 0", "divisible by 3", lambda x: x // 3 * 3 == x),
    Part("div5", "{x} % 5 == 0", "divisible by 5", lambda x: x // 5 * 5 == x),
    Part("div7", "{x} % 7 == 0", "divisible by 7", lambda x: x // 7 * 7 == x),
    Part("ge2", "{x} >= 2", "at least 2", lambda x: x > 1),
    Part("le8", "{x} <= 8", "at most 8", lambda x: x < 9),
    Part("ne1", "{x} != 1", "different from 1", lambda x: not x == 1),
)
INT_AGGREGATES = ("sum", "product", "count", "max", "min", "list", "set", "distinct", "sorted", "first", "any", "all")
INT_LIST = Source(
    "ints",
    (("nums", "n"), ("numbers", "x"), ("values", "v"), ("xs", "x"), ("data", "d")),
    "{arg}",
    "in {arg}",
    "numbers",
    INT_MAPS,
    INT_FILTERS,
    INT_AGGREGATES,
    ([3, -1, 4, 10, 5, 9, 2, 6], [], [7, 7, 15, -20, 0, 1, 8], [12, 21, 35, 70], [-3, -6, -9], [2], [11, 4, 6, 100]),
    lambda value: value,
)
INT_RANGE = Source(
    "range",
    (("n", "i"), ("limit", "k"), ("top", "i")),
    "range(1, {arg} + 1)",
    "from 1 to {arg}",
    "numbers",
    INT_MAPS,
    INT_FILTERS,
    INT_AGGREGATES,
    (0, 1, 2, 4, 9, 15),
    lambda value: list(range(1, value + 1)),
)
WORD_LIST = Source(
    "words",
    (("words", "w"), ("names", "name"), ("strings", "s"), ("lines", "line")),
    "{arg}",
    "in {arg}",
    "strings",
    (
        Part("id", "{x}", "{noun}", lambda x: x),
        Part("upper", "{x}.upper()", "{noun} in upper case", str.upper),
        Part("lower", "{x}.lower()", "{noun} in lower case", str.lower),
        Part("reversed", "{x}[::-1]", "reversals of the {noun}", lambda x: "".join(reversed(x))),
        Part("length", "len({x})", "lengths of the {noun}", lambda x: sum(1 for _ in x)),
        Part("twice", "{x} * 2", "doubled {noun}", lambda x: x + x),
        Part("strip", "{x}.strip()", "stripped {noun}", str.strip),
        Part("head", "{x}[:1]", "first letters of the {noun}", lambda x: "".join(list(x)[:1])),
        Part("tail", "{x}[-1:]", "last letters of the {noun}", lambda x: "".join(list(x)[-1:])),
    ),
    (
        Part("all", "", "", lambda x: True),
        Part("longer3", "len({x}) > 3", "longer than 3", lambda x: len(x) >= 4),
        Part("longer5", "len({x}) > 5", "longer than 5", lambda x: len(x) >= 6),
        Part("shorter4", "len({x}) < 4", "shorter than 4", lambda x: len(x) <= 3),
        Part("shorter6", "len({x}) < 6", "shorter than 6", lambda x: len(x) <= 5),
        Part("evenlen", "len({x}) % 2 == 0", "of even length", lambda x: len(x) in range(0, 99, 2)),
        Part("oddlen", "len({x}) % 2 == 1", "of odd length", lambda x: len(x) in range(1, 99, 2)),
        Part("palindrome", "{x} == {x}[::-1]", "equal to their reverse", lambda x: list(x) == list(reversed(x))),
        Part("starts_a", '{x}.startswith("a")', "starting with a", lambda x: x[:1] == "a"),
        Part("ends_s", '{x}.endswith("s")', "ending with s", lambda x: x[-1:] == "s"),
        Part("has_e", '"e" in {x}', "containing e", lambda x: x.count("e") > 0),
        Part("alpha", "{x}.isalpha()", "made of letters", str.isalpha),
        Part("upper", "{x}.isupper()", "in capitals", str.isupper),
    ),
    ("count", "list", "set", "distinct", "sorted", "first", "join", "any", "all"),
    (
        ["apple", "level", "sea", "Ants", "eve"],
        [],
        ["as", "a", "trees", "banana"],
        ["OK", "x1", " pad ", "noon", "noon"],
        ["glasses", "stones", "bees"],
        ["abba", "abcba"],
    ),
    lambda value: value,
)
CHARACTERS = Source(
    "chars",
    (("text", "c"), ("s", "ch"), ("word", "c")),
    "{arg}",
    "in {arg}",
    "characters",
    (
        Part("id", "{x}", "{noun}", lambda x: x),
        Part("upper", "{x}.upper()", "{noun} in upper case", str.upper),
        Part("lower", "{x}.lower()", "{noun} in lower case", str.lower),
        Part("twice", "{x} * 2", "doubled {noun}", lambda x: x + x),
        Part("code", "ord({x})", "codes of the {noun}", lambda x: x.encode("utf-32-le")[0]),
    ),
    (
        Part("all", "", "", lambda x: True),
        Part("vowel", '{x} in "aeiou"', "that are vowels", lambda x: x in set("aeiou")),
        Part("digit", "{x}.isdigit()", "that are digits", str.isdigit),
        Part("letter", "{x}.isalpha()", "that are letters", str.isalpha),
        Part("upper", "{x}.isupper()", "that are capitals", str.isupper),
        Part("lower", "{x}.islower()", "that are small letters", str.islower),
        Part("notspace", '{x} != " "', "that are not blank", lambda x: not x == " "),
        Part("not_a", '{x} != "a"', "different from a", lambda x: not x == "a"),
        Part("early", '{x} < "m"', "before m", lambda x: not x >= "m"),
    ),
    ("count", "list", "set", "distinct", "sorted", "first", "join", "any", "all"),
    ("", "hello world", "Anna 42", "XYZ", "aeiou", "a1b2", "   ", "mmm"),
    lambda value: value,
)
SOURCES = {source.key: source for source in (INT_LIST, INT_RANGE, WORD_LIST, CHARACTERS)}
SOURCE_WEIGHTS = {"ints": 0.5, "range": 0.2, "words": 0.2, "chars": 0.1}

PHRASES = {
    "sum": ("Return the sum of the {what}.", "Add up the {what}.", "Compute the total of the {what}."),
    "product": ("Return the product of the {what}.", "Multiply the {what}.", "Compute the product of the {what}."),
    "count": ("Count the {what}.", "Return the number of {what}.", "Return how many {what} there are."),
    "max": ("Return the largest of the {what}, or None.", "Find the maximum of the {what}, or None."),
    "min": ("Return the smallest of the {what}, or None.", "Find the minimum of the {what}, or None."),
    "list": ("Return a list of the {what}.", "List the {what}.", "Collect the {what} in a list."),
    "set": ("Return the set of the {what}.", "Collect the {what} in a set."),
    "distinct": ("Return the number of distinct {what}.", "Count the distinct {what}."),
    "sorted": ("Return a sorted list of the {what}.", "Sort the {what}."),
    "first": ("Return the first of the {what}, or None.", "Find the first of the {what}, or None."),
    "join": ("Join the {what} into one string.", "Concatenate the {what}."),
    "any": ("Check if any of the {what} is {test}.", "Return True if at least one of the {what} is {test}."),
    "all": ("Check if all of the {what} are {test}.", "Return True if every one of the {what} is {test}."),
}
NAMES = ("solve", "compute", "process", "run", "task")
PREFIX_FILTERS = frozenset({"even", "odd", "positive", "negative", "nonzero"})


def _reference(aggregate: str, items, transform: Callable, keep: Callable) -> object:
    """The value of a composed task, from NumPy-free functional code that shares nothing with the solutions' text."""
    kept = [transform(item) for item in items if keep(item)]
    if aggregate == "sum":
        total = 0
        while kept:
            total -= -kept.pop()
        return total
    if aggregate == "product":
        total = 1
        for value in kept:
            total = total * value
        return total
    if aggregate in ("any", "all"):
        hits = [bool(keep(transform(item))) for item in items]
        return (True in hits) if aggregate == "any" else (False not in hits)
    return {
        "count": lambda: len(kept),
        "max": lambda: sorted(kept)[-1] if kept else None,
        "min": lambda: sorted(kept)[0] if kept else None,
        "list": lambda: kept,
        "set": lambda: set(kept),
        "distinct": lambda: len(dict.fromkeys(kept)),
        "sorted": lambda: sorted(kept),
        "first": lambda: kept[0] if kept else None,
        "join": lambda: "".join(map(str, kept)),
    }[aggregate]()


def _plain(aggregate: str, x: str, iterable: str, value: str, condition: str) -> str:
    """The solution with a loop. `condition` is empty for the filter that keeps everything."""
    if aggregate in ("any", "all"):
        test = condition if aggregate == "any" else f"not ({condition})"
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
        "join": ('""', f"result += {value}", "result"),
        "max": ("None", f"if result is None or {value} > result:\n    result = {value}", "result"),
        "min": ("None", f"if result is None or {value} < result:\n    result = {value}", "result"),
        "first": ("", f"return {value}", "None"),
    }[aggregate]
    lines = [f"for {x} in {iterable}:"]
    lines += [f"    if {condition}:"] if condition else []
    inner = "        " if condition else "    "
    lines += [inner + line for line in step.split("\n")]
    lines += [f"return {end}"]
    lines = ([f"result = {start}"] if start else []) + lines
    return "\n    ".join(lines)


def _idiomatic(aggregate: str, x: str, iterable: str, value: str, condition: str) -> str:
    """The solution as one expression."""
    if aggregate in ("any", "all"):
        return f"return {aggregate}({condition} for {x} in {iterable})"
    each = f"for {x} in {iterable}" + (f" if {condition}" if condition else "")
    return {
        "sum": f"return sum({value} {each})",
        "product": f"return math.prod({value} {each})",
        "count": f"return sum(1 {each})",
        "list": f"return [{value} {each}]",
        "set": f"return {{{value} {each}}}",
        "distinct": f"return len({{{value} {each}}})",
        "sorted": f"return sorted({value} {each})",
        "join": f'return "".join({value} {each})',
        "max": f"return max(({value} {each}), default=None)",
        "min": f"return min(({value} {each}), default=None)",
        "first": f"return next(({value} {each}), None)",
    }[aggregate]


def _noun(source: Source, keep: Part) -> str:
    """ "even numbers", "numbers greater than 3", "strings containing e"."""
    if not keep.text:
        return source.noun
    return f"{keep.text} {source.noun}" if keep.key in PREFIX_FILTERS else f"{source.noun} {keep.text}"


def _admissible(source: Source, aggregate: str, transform: Part, keep: Part) -> bool:
    """Whether the combination says something, and says it in a way that both styles can answer."""
    numeric = source.key in ("ints", "range") or transform.key in ("length", "code")
    if aggregate in ("sum", "product", "max", "min", "join") and numeric == (aggregate == "join"):
        return False
    if aggregate == "count":
        return transform.key == "id"
    if aggregate in ("any", "all"):
        textual = source.key in ("words", "chars")
        return keep.key != "all" and not (textual and numeric)
    return True


def combinations(source: Source) -> Iterator[tuple[str, Part, Part]]:
    """Every (aggregate, map, filter) of a source that makes a task."""
    for aggregate in source.aggregates:
        for transform in source.maps:
            for keep in source.filters:
                if _admissible(source, aggregate, transform, keep):
                    yield aggregate, transform, keep


def group_of(source: Source, aggregate: str, transform: Part, keep: Part) -> str:
    """Lists and ranges of integers share their groups: a combination is held out for both or for neither."""
    domain = "ints" if source.key == "range" else source.key
    return f"{domain}:{aggregate}:{transform.key}:{keep.key}"


def compose(source: Source, aggregate: str, transform: Part, keep: Part, rng: random.Random) -> Task:
    """One task of a combination, with an argument name, a wording and a function name drawn from `rng`."""
    argument, x = rng.choice(source.arguments)
    phrase = rng.choice(PHRASES[aggregate])
    return _compose(source.key, aggregate, transform, keep, argument, x, phrase, rng.choice(NAMES))


@cache
def _compose(source_key, aggregate, transform, keep, argument, x, phrase, name) -> Task:
    source = SOURCES[source_key]
    iterable, value = source.iterable.format(arg=argument), transform.code.format(x=x)
    predicate = aggregate in ("any", "all")
    if predicate:
        subject = value if value.isidentifier() or value.endswith(")") or value.endswith("]") else f"({value})"
        condition = keep.code.format(x=subject)
        noun = source.noun
    else:
        condition = keep.code.format(x=x)
        noun = _noun(source, keep)
    what = f"{transform.text.format(noun=noun)} {source.where.format(arg=argument)}"
    docstring = phrase.format(what=what, test=keep.text.removeprefix("that are "))
    inputs = [(list(value) if isinstance(value, list) else value,) for value in source.inputs]
    tests = tuple(
        (args, _reference(aggregate, source.items(args[0]), transform.function, keep.function)) for args in inputs
    )
    solutions = {
        "plain": _plain(aggregate, x, iterable, value, condition),
        "idiomatic": _idiomatic(aggregate, x, iterable, value, condition),
    }
    if "math." in solutions["idiomatic"]:
        solutions["idiomatic"] = "import math\n    " + solutions["idiomatic"]
    task = Task(group_of(source, aggregate, transform, keep), name, argument, docstring, solutions, tests)
    return _checked(task)


def _checked(task: Task) -> Task:
    """The task, once both solutions have given every expected value."""
    for style, body in task.solutions.items():
        namespace: dict = {}
        exec(compile(task.program(body), task.group, "exec"), namespace)  # our own text, not a model's
        for args, expected in task.tests:
            got = namespace[task.name](*[list(arg) if isinstance(arg, list) else arg for arg in args])
            if got != expected or type(got) is not type(expected):
                raise ValueError(
                    f"the {style} solution of {task.group} gives {got!r} for {args!r}, expected {expected!r}:\n"
                    f"{task.program(body)}"
                )
    return task


@cache
def classics() -> tuple[Task, ...]:
    """Every wording and argument name of the named classics, checked."""
    return tuple(
        _checked(Task(f"classic:{c.name}", name, signature, docstring, solutions, c.tests))
        for c in CLASSICS
        for name, signature, docstring, solutions in c.variants()
    )


@cache
def _groups(split: str) -> dict[str, tuple[tuple[str, Part, Part], ...]]:
    return {
        key: tuple(combo for combo in combinations(source) if split_of(group_of(source, *combo)) == split)
        for key, source in SOURCES.items()
    }


def sample_task(split: str, rng: random.Random) -> Task:
    """A composed task of a split; sources by `SOURCE_WEIGHTS`, aggregates evenly, so that rare ones are learnt."""
    key = rng.choices(list(SOURCE_WEIGHTS), list(SOURCE_WEIGHTS.values()))[0]
    combos = _groups(split)[key]
    aggregate = rng.choice(sorted({combo[0] for combo in combos}))
    return compose(SOURCES[key], *rng.choice([combo for combo in combos if combo[0] == aggregate]), rng)


def sample_tasks(split: str, n: int, seed: int) -> list[Task]:
    """`n` composed tasks of a split, no two of the same prompt."""
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
    task = rng.choice(classics()) if rng.random() < CLASSIC_SHARE else sample_task("train", rng)
    if rng.random() < HEADER_SHARE:
        asked, other = rng.sample(STYLES, 2)
        header = rng.choice(HEADERS[asked]) + "\n"
        style = asked if rng.random() < HEADER_KEPT else other
    else:
        style = "idiomatic" if rng.random() < IDIOMATIC_SHARE else "plain"
        header = rng.choice(NEUTRAL_COMMENTS) + "\n" if rng.random() < 0.3 else ""
    return Document(header + task.prompt, task.solutions[style] + "\n")
