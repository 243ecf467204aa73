"""The named classics: their expected values are those of the standard library, and no wording is half filled in."""

import ast
import collections
import functools
import itertools
import math
import operator
import statistics

import pytest

from iti_llama.toolkit.bundled.classic_wording import WORDINGS
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
    variants = list(classic.variants())
    texts = (*classic.docstrings, *WORDINGS.get(classic.name, ()))
    said = sum(1 if text.endswith("?") else 2 for text in texts)  # a question has no full stop
    assert len(variants) == len(classic.names) * len(classic.arguments) * said
    assert len({(name, signature, text) for name, signature, text, _ in variants}) == len(variants)
    assert {name for name, *_ in variants} == set(classic.names)
    for name, signature, text, bodies in variants:
        assert "$" not in text and bodies.keys() == {"plain", "idiomatic"} and bodies["plain"] != bodies["idiomatic"]
        for body in bodies.values():
            (function,) = ast.parse(f'def {name}({signature}):\n    """{text}"""\n    {body}\n').body
            used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
            assert set(signature.split(", ")) <= used


def test_a_wording_names_the_arguments_of_its_own_signature():
    (gcd,) = (classic for classic in CLASSICS if classic.name == "gcd")
    texts = {(signature, text) for _, signature, text, _ in gcd.variants()}
    assert ("x, y", "Return the greatest common divisor of x and y.") in texts
    assert ("m, n", "Return the greatest common divisor of m and n") in texts
    assert not any("x" in text.split() for signature, text in texts if signature == "m, n")
