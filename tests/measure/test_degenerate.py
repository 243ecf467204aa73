"""Measuring: against independent computations, resumable, and honest about nothing."""

import pytest

from iti_llama.toolkit.measure.degenerate import degenerate


@pytest.mark.parametrize(
    "text,why",
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("return x " * 3, ""),
        ("a b c " * 4, "loop"),
        ("start here " + "one two three four " * 5 + "end", "loop"),
        ("x = 1\n" * 12, "loop"),
        ("\n".join(f"x{i} = {i}" for i in range(30)), ""),
        ("for x in xs:\n    total += x\nreturn total", ""),
    ],
)
def test_degenerate_outputs_are_told_apart(text, why):
    assert degenerate(text) == why
