"""The named classics: their expected values are those of the standard library, and no wording is half filled in."""

import ast
import collections
import functools
import itertools
import math
import operator
import random
import statistics

import pytest

from iti_llama.toolkit.bundled.corpus import sample_classic
from iti_llama.toolkit.bundled.corpus_classics import CLASSICS


STANDARD = {
    "factorial": math.factorial,
    "gcd": math.gcd,
    "lcm": math.lcm,
    "flatten": lambda rows: functools.reduce(operator.add, rows, []),
    "frequencies": lambda items: dict(collections.Counter(items)),
    "most_common": statistics.mode,
    "average": lambda values: statistics.fmean(values) if values else 0,
    "power": pow,
    "running": lambda values: list(itertools.accumulate(values)),
    "binary": lambda n: bin(n).removeprefix("0b"),
    "power_of_two": lambda n: bin(n).count("1") == 1,
    "palindrome": lambda value: str(value) == "".join(reversed(str(value))),
    "squares": lambda n: [math.prod((i, i)) for i in range(n)],
    "prime": lambda n: n > 1 and math.factorial(n - 1) % n == n - 1,  # Wilson's theorem
    "perfect": lambda n: n in (6, 28, 496),
    "dot": lambda xs, ys: sum(map(operator.mul, xs, ys)),
}


@pytest.mark.parametrize("name", STANDARD)
def test_expected_values_are_those_of_the_standard_library(name):
    (found,) = (classic for classic in CLASSICS if classic.name == name)
    for arguments, expected in found.tests:
        assert STANDARD[name](*arguments) == expected, arguments


def test_names_are_used_once():
    assert len({classic.name for classic in CLASSICS}) == len(CLASSICS) > 30


@pytest.mark.parametrize("classic", CLASSICS, ids=lambda classic: classic.name)
def test_no_constant_passes_the_tests_and_no_two_tests_are_the_same(classic):
    assert len({repr(expected) for _, expected in classic.tests}) > 1
    assert len({repr(arguments) for arguments, _ in classic.tests}) == len(classic.tests)


@pytest.mark.parametrize("classic", CLASSICS, ids=lambda classic: classic.name)
def test_every_name_argument_and_wording_gives_a_whole_function(classic):
    assert len(set(classic.sayings)) == len(classic.sayings) > 10
    for arguments in classic.all_arguments:
        bodies = classic.bodies(arguments)
        assert bodies.keys() == {"plain", "idiomatic"} and bodies["plain"] != bodies["idiomatic"]
        assert not any("$" in classic.said(wording, arguments) for wording in classic.sayings)
        for name, body in itertools.product(classic.all_names, bodies.values()):
            (function,) = ast.parse(f"def {name}({', '.join(arguments)}):\n    {body}\n").body
            used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
            assert set(arguments) <= used


def test_a_wording_names_the_arguments_of_its_own_signature():
    (gcd,) = (classic for classic in CLASSICS if classic.name == "gcd")
    wording = "Return the greatest common divisor of $a and $b"
    assert gcd.said(wording, ("m", "n")) == "Return the greatest common divisor of m and n"


def test_a_drawn_classic_never_names_an_argument_as_a_local_or_as_itself():
    rng = random.Random(3)
    for task in (sample_classic(rng) for _ in range(500)):
        (classic,) = (each for each in CLASSICS if f"classic:{each.name}" == task.group)
        arguments = task.signature.split(", ")
        assert len(set(arguments)) == len(arguments) == len(classic.arguments[0])
        assert task.name not in (*arguments, *classic.locals)
