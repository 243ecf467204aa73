"""Measuring: against independent computations, resumable, and honest about nothing."""

from dataclasses import replace

import neocoder_files
import pytest

from iti_llama.toolkit.neocoder.neocoder_tasks import (
    calibrated,
    human_convergent,
    human_divergent,
    neocoder_set,
    strengthened,
)
from iti_llama.toolkit.neocoder.problems import load


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return load(neocoder_files.write(tmp_path_factory.mktemp("neocoder")))


def test_neogauge_is_the_papers_product(problems, tokenizer, sandbox):
    tasks = neocoder_set(problems, 1, tokenizer)
    assert [task.constraints for task in tasks.tasks] == [frozenset({"for loop"})] * 2
    double = tasks.tasks[0]
    answers = {
        "n = int(input())\nwhile n:\n    print(2 * int(input()))\n    n -= 1": (1, 1, 0, 0),
        "for _ in range(int(input())):\n    print(2 * int(input()))": (1, 0, 0, 0),
        "n = int(input())\nq = {0: 2}\nwhile n:\n    print(q[0] * int(input()))\n    n -= 1": (1, 1, 1 / 2, 1 / 2),
        "print(1)": (0, 0, 0, 0),
        "print(": (0, 0, 0, 0),
    }
    grades = tasks.grade([double] * len(answers), list(answers), sandbox)
    for grade, (text, (correct, convergent, divergent, neogauge)) in zip(grades, answers.items(), strict=True):
        found = (grade.correct, grade.measures["convergent"], grade.measures["divergent"], grade.measures["neogauge"])
        assert found == (correct, convergent, divergent, neogauge), text


def test_human_rows_come_from_the_files_own_labels(problems):
    rows = human_convergent(problems)
    assert [(row.state, row.convergent.mean) for row in rows] == [(0, 1.0), (1, 0.0)]  # every label is 'for loop'
    assert human_divergent(problems).mean == 0.0


def test_problems_that_samples_cannot_judge_are_left_out(problems, sandbox):
    several_answers = replace(problems[0], samples=(("1\n5\n", "anything"),))
    assert [problem.id for problem in calibrated([several_answers, problems[1]], sandbox)] == ["2B"]


def test_tests_are_added_where_human_solutions_agree(problems, sandbox):
    kept = [replace(problem, humans=problem.humans[:7]) for problem in problems]
    stronger = strengthened(kept, sandbox, judges=4, mutants=6)
    for before, after in zip(kept, stronger, strict=True):
        assert after.samples[: len(before.samples)] == before.samples
        assert len(after.samples) > len(before.samples)
    for stdin, stdout in stronger[0].samples:
        numbers = stdin.split()[1:]
        assert [int(x) for x in stdout.split()] == [2 * int(x) for x in numbers][: len(stdout.split())]
