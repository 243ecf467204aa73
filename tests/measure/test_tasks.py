"""Measuring: against independent computations, resumable, and honest about nothing."""

import json

import pytest

from iti_llama.toolkit.measure.tasks import file_set


def test_tasks_of_a_file_are_run_by_call_or_as_programs(tmp_path, sandbox):
    path = tmp_path / "tasks.jsonl"
    rows = [
        {"prompt": "def f(x):\n    ", "tests": [{"call": "f(2)", "value": 4}, {"call": "f(3)", "value": 6}]},
        {"prompt": "Print the double.\n", "tests": [{"input": "4\n", "output": "8"}], "group": "g"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = file_set(path, "# Be brief.\n")
    assert [task.group for task in tasks.tasks] == ["1", "g"]
    right = tasks.grade(tasks.tasks, ["return 2 * x\n", "```python\nprint(2 * int(input()))\n```"], sandbox)
    wrong = tasks.grade(tasks.tasks, ["return x + 2\n", "print(4)"], sandbox)
    fooled = tasks.grade(
        tasks.tasks, ["return x\n\nprint = lambda *a, **k: None\n", "import os; os._exit(0)"], sandbox
    )
    assert [g.correct for g in right] == [True, True]
    assert not any(g.correct for g in wrong + fooled)


@pytest.mark.parametrize(
    "row,said",
    [
        ({"tests": []}, "prompt is None"),
        ({"prompt": 7}, "prompt is 7"),
        ({"prompt": "p", "tests": [{"call": "f()"}]}, "a test is"),
        ({"prompt": "p", "tests": [{"call": "f()", "value": 1}, {"input": "", "output": ""}]}, "mix call and input"),
    ],
)
def test_bad_tasks_are_named(tmp_path, row, said):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="line 1") as error:
        file_set(path, "# Be brief.\n")
    assert said in str(error.value)
