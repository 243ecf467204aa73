"""The technique detector: what it sees, and that use counts, not imports."""

import pytest

from iti_llama.toolkit.neocoder.techniques import NEOCODER, techniques


@pytest.mark.parametrize(
    "program,vocabulary,name",
    [
        ("for x in y: pass", "neocoder", "for loop"),
        ("print(sum(x for x in y))", "neocoder", "for loop"),
        ("while x: break", "neocoder", "while loop"),
        ("a = 1 if b else 2", "neocoder", "if statement"),
        ("print(sorted(a))", "neocoder", "sorting"),
        ("a.sort(key=len)", "neocoder", "sorting"),
        ("a = {1, 2}", "neocoder", "set"),
        ("a = dict(b)", "neocoder", "dictionary"),
        ("from heapq import heappush as h\nh(a, 1)", "neocoder", "heap"),
        ("import heapq\nheapq.heappush(a, 1)", "neocoder", "heap"),
        ("def f(n):\n    return f(n - 1)", "neocoder", "recursion"),
        ("print(a[1][2])", "neocoder", "matrix operation"),
        ("[x for x in y if x]", "core", "filtering comprehension"),
        ("from itertools import chain as c\nc(a)", "core", "itertools"),
        ("import itertools as it\nit.chain(a)", "core", "itertools"),
        ("a = b & 1", "core", "bit operation"),
        ("f(*a)", "core", "argument unpacking"),
        ("a, *b = c", "core", "starred assignment"),
        ("0 < a < 1", "core", "chained comparison"),
        ("from functools import lru_cache\n@lru_cache()\ndef f(): pass", "core", "memoisation"),
        ("print(a[::-1])", "core", "reversing slice"),
        ("print('YNEOS'[a::2])", "golf", "slice"),
        ("print(['NO', 'YES'][a])", "golf", "table lookup"),
        ("print('a' * n)", "golf", "sequence repetition"),
        ("print(*a)", "golf", "unpacked print"),
        ("if (n := 3): pass", "golf", "assignment expression"),
        ("import sys\nsys.stdin.read()", "golf", "bulk input"),
    ],
)
def test_sees(program, vocabulary, name):
    assert name in getattr(techniques(program), vocabulary)


@pytest.mark.parametrize(
    "program",
    [
        "import heapq, itertools",
        "from heapq import heappush\nfrom collections import deque",
        "print(1)",
        "# for x in y",
    ],
)
def test_does_not_see_what_is_not_used(program):
    found = techniques(program)
    assert not found.core and not found.neocoder


def test_golf_and_core_share_nothing_and_neocoder_is_closed():
    program = "\n".join(
        [
            "import heapq",
            "for x in sorted({1, 2}):",
            "    while x:",
            "        x -= 1",
            "print(max([1, 2][0:1] * 2), *[3])",
        ]
    )
    found = techniques(program)
    assert not found.core & found.golf
    assert found.neocoder <= set(NEOCODER)


def test_text_that_is_no_python_3_is_refused():
    for text in ("print 1", "#include <x>\nint main() {}", "def f(:"):
        with pytest.raises(ValueError, match="not Python 3"):
            techniques(text)
