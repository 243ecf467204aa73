"""Tasks in other people's words: sixty which nothing was trained or chosen on, and 150 that choices were made on. Each
can be solved."""

import json

from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.tasks import file_set


PATH = ROOT / "examples" / "bundled_model" / "own_words.jsonl"


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


def test_validation_words_are_solved_and_are_no_test_words(sandbox):
    path = PATH.with_name("validation_words.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    tasks = file_set(path, None)
    assert len({row["prompt"] for row in rows}) == len({row["group"] for row in rows}) == len(tasks) == 150
    grades = tasks.grade(tasks.tasks, [row["solution"] + "\n" for row in rows], sandbox)
    assert [row["group"] for row, grade in zip(rows, grades, strict=True) if not grade.correct] == []
    assert not {row["prompt"] for row in rows} & {json.loads(line)["prompt"] for line in PATH.read_text().splitlines()}
