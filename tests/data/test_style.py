"""Plain or idiomatic, by the syntax tree."""

import pytest

from iti_llama.toolkit.data.style import style_of


@pytest.mark.parametrize(
    "program,style",
    [
        ("def f(xs):\n    return sum(x for x in xs)", "idiomatic"),
        ("def f(xs):\n    for x in xs:\n        return x", "plain"),
        ("def f(n):\n    n += 1\n    return n", "plain"),
        ("def f(n):\n    pass", "neither"),
        ("def f(n:", "unparsable"),
    ],
)
def test_the_style_of_a_program(program, style):
    assert style_of(program) == style
