"""Sixty tasks in other people's words, which nothing was trained or chosen on: each can be solved, in both styles."""

import json

from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.tasks import file_set


PATH = ROOT / "toolkit" / "bundled" / "own_words.jsonl"


def test_every_task_is_solved_by_its_two_solutions(sandbox):
    rows = [json.loads(line) for line in PATH.read_text().splitlines()]
    tasks = file_set(PATH, None)
    assert len({row["prompt"] for row in rows}) == len({row["group"] for row in rows}) == len(tasks) == 60
    for style in ("plain", "idiomatic"):
        grades = tasks.grade(tasks.tasks, [row["solutions"][style] + "\n" for row in rows], sandbox)
        wrong = [row["group"] for row, grade in zip(rows, grades, strict=True) if not grade.correct]
        assert not wrong, (style, wrong)
        if style == "idiomatic":
            assert all(grade.target for grade in grades)


def test_a_wrong_solution_fails(sandbox):
    tasks = file_set(PATH, None)
    assert not any(grade.correct for grade in tasks.grade(tasks.tasks, ["return [0]\n"] * 60, sandbox))
