"""NeoCoder: reading its files, running its solutions, labelling them."""

import pytest
from neocoder_files import REAL, real

from iti_llama.toolkit.data.run_programs import extract_code, run_samples, runnable
from iti_llama.toolkit.neocoder.problems import load, python_solutions


def test_solutions_are_run_and_compared_by_tokens(problems, sandbox):
    double = problems[0]
    programs = [*double.humans, "print(2)\nprint(4)", "for _ in range(int(input())): print(2 * int(input()), end=' ')"]
    outcomes = run_samples(programs, [double.samples] * len(programs), sandbox)
    passed = [outcome.passed for outcome in outcomes]
    assert passed == [True] * 9 + [False, False, True] + [False, True]


def test_a_solve_that_is_never_called_is_called():
    assert runnable("def solve():\n    print(1)\n").endswith("solve()\n")
    for text in ("def solve():\n    print(1)\nsolve()\n", "def solve(n):\n    print(n)\n", "print(", "print(1)\n"):
        assert runnable(text) == text


@pytest.mark.parametrize(
    "answer,code",
    [
        ("Sure:\n```python\nprint(1)\n```\nand\n```python\nprint(2)\n```", "print(1)\n"),
        ("```\nprint(1)\n```", "print(1)\n"),
        ("```Python\nprint(1)", "print(1)\n"),
        ("The program:\nimport sys\nprint(1)", "import sys\nprint(1)\n"),
        ("print(1)", "print(1)\n"),
    ],
)
def test_the_program_is_taken_out_of_an_answer(answer, code):
    assert extract_code(answer) == code


@real
def test_accepted_solutions_of_problems_with_one_answer_pass(sandbox):
    for problem in (problem for problem in load(REAL) if problem.id in ("1901A", "1899A")):
        programs = python_solutions(problem)
        outcomes = run_samples(programs, [problem.samples] * len(programs), sandbox)
        assert sum(outcome.passed for outcome in outcomes) >= 0.9 * len(outcomes) > 5
