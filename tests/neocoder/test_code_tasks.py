"""How Python tasks are read from their files, put to a model and judged by their tests."""

import gzip
import json
from functools import partial
from pathlib import Path

import neocoder_files
import pytest
from code_files import HUMANEVAL, write
from reference import tiny_tokenizer
from taught import TEMPLATE

from iti_llama.toolkit.foundation.tokenize import chat_prompt
from iti_llama.toolkit.measure.bundled_tasks import frozen_tasks
from iti_llama.toolkit.neocoder.code_tasks import (
    CREATIVEBENCH,
    OWN,
    code_set,
    creativebench_tasks,
    humaneval_tasks,
    kinds,
    own_tasks,
    read_tasks,
)
from iti_llama.toolkit.neocoder.code_tasks import HUMANEVAL as HUMANEVAL_SET


@pytest.fixture
def as_prompt():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return partial(chat_prompt, tokenizer)


def judged(tasks, answers, as_prompt, sandbox) -> list[bool]:
    made = code_set("x", tasks, "Do it.", as_prompt, 64)
    return [grade.correct for grade in made.grade(made.tasks, answers, sandbox)]


def test_humaneval_is_judged_by_its_tests(as_prompt, sandbox, tmp_path):
    (task, *_) = humaneval_tasks(write(tmp_path) / "HumanEval.jsonl.gz")
    right = "def doubled(numbers):\n    return [twice(n) for n in numbers]\n"  # `twice` is in the task's prompt
    answers = {
        f"Sure.\n```python\n{right}```\nIt doubles.": True,
        right: True,
        f"```python\n{right}\nprint('done')\n```": True,
        f"```python\n{right}```\n```python\ndef doubled(numbers):\n    return 0\n```": True,  # the first fence counts
        "```python\ndef doubled(numbers):\n    return numbers\n```": False,
        "```python\ndef doubled(numbers:\n    return\n```": False,
        f"```python\n{right}raise SystemExit(0)\n```": False,
        f"```python\n{right}import os\nos._exit(0)\n```": False,
        f"```python\n{right}print(input())\n```": False,
        "```python\ndef other(numbers):\n    return [2 * n for n in numbers]\n```": False,
        "I cannot.": False,
        "": False,
    }
    assert judged([task] * len(answers), list(answers), as_prompt, sandbox) == list(answers.values())


def test_creativebench_is_judged_by_its_tests_in_the_answer_s_namespace(as_prompt, sandbox, tmp_path):
    (task, other) = creativebench_tasks(write(tmp_path) / "creativebench_explore_200.jsonl")
    right = "from datetime import date\ndef next_year(day):\n    return day.replace(year=day.year + 1)\n"
    answers = {
        f"```python\n{right}```": True,
        f"```python\n{right}if __name__ == '__main__':\n    next_year(input())\n```": True,  # not run
        f"```python\nfrom __future__ import annotations\n{right}```": True,
        f"```python\n{right.replace('+ 1', '+ 2')}```": False,
        f"```python\n{right.replace('from datetime import date', '')}```": False,  # the tests need `date`
    }
    assert judged([task] * len(answers), list(answers), as_prompt, sandbox) == list(answers.values())
    assert task.request.endswith("Constraints:\n- Do not use timedelta.\n- No loops.")
    assert other.request == "Write `zero()`." and (task.group, other.group) == ("p1", "p2")


def test_the_package_s_own_tasks_are_solved_by_their_solutions(as_prompt, sandbox):
    tasks, frozen = own_tasks()[:6], frozen_tasks("test")[:6]
    for style in ("plain", "idiomatic"):
        answers = [f"```python\n{task.prompt}{task.solutions[style]}\n```" for task in frozen]
        assert judged(tasks, answers, as_prompt, sandbox) == [True] * 6
    wrong = [f"```python\n{task.prompt}return 'no'\n```" for task in frozen]
    assert judged(tasks, wrong, as_prompt, sandbox) == [False] * 6
    text = "def f():\n    return True\n"  # True is not 1
    task = tasks[0].__class__("", "g", "", "value, expected = f(), 1\nassert type(value) is type(expected)\n", "")
    assert judged([task], [text], as_prompt, sandbox) == [False]


def test_a_task_is_asked_through_the_chat_template_and_the_instruction_follows_it(as_prompt, tmp_path):
    made = code_set("x", humaneval_tasks(write(tmp_path) / "HumanEval.jsonl.gz"), "Do it.", as_prompt, 64)
    task = made.tasks[0]
    code = HUMANEVAL[0]["prompt"].rstrip()
    request = "Complete this Python function. Answer with the whole function in a ```python fence."
    request += f"\n\n```python\n{code}\n```"
    assert task.prompt == f"<bos>[user]{request}\n[assistant]"
    assert made.asked(task) == f"<bos>[user]{request}\n\nDo it.\n[assistant]"
    assert made.max_new_tokens == 64 and task.group == "Own/0"


def test_the_first_rows_of_each_set_are_taken(tmp_path):
    sets = read_tasks(write(tmp_path), 2)
    assert {name: len(tasks) for name, tasks in sets.items()} == {OWN: 2, HUMANEVAL_SET: 2, CREATIVEBENCH: 2}


def test_kinds_are_those_of_python_s_own_syntax_tree():
    assert kinds("x = 1\n") == {"Module", "Assign", "Name", "Store", "Constant"}
    assert kinds("lambda: 0") == {"Module", "Expr", "Lambda", "arguments", "Constant"}
    assert kinds("x = ") is None


HUMAN = {"task_id": "a", "prompt": "", "entry_point": "f", "test": "", "canonical_solution": ""}

CREATIVE = {
    "question": "q",
    "problem_id": "p",
    "test_code": "def test(): 0",
    "reference_solution": "",
    "constraints": [],
}


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("HumanEval.jsonl.gz", HUMAN | {"prompt": 3}, "prompt is 3; expected a text"),
        ("HumanEval.jsonl.gz", HUMAN | {"test": None}, "test is None"),
        ("creativebench_explore_200.jsonl", CREATIVE | {"question": ["q"]}, "question is .*; expected a text"),
        ("creativebench_explore_200.jsonl", CREATIVE | {"test_code": "assert 1"}, "test_code is 'assert 1'"),
        ("creativebench_explore_200.jsonl", CREATIVE | {"constraints": "no"}, "constraints is 'no'; expected a list"),
    ],
)
def test_a_row_of_another_kind_is_refused(tmp_path, name, row, message):
    write(tmp_path)
    line = json.dumps(row).encode()
    (tmp_path / name).write_bytes(gzip.compress(line) if name.endswith(".gz") else line)
    with pytest.raises(ValueError, match=f"{name}, line 1: {message}"):
        read_tasks(tmp_path)


def test_a_file_that_is_missing_or_not_gzip_is_named(tmp_path):
    (write(tmp_path) / "HumanEval.jsonl.gz").write_text("{}")
    with pytest.raises(ValueError, match=r"HumanEval\.jsonl\.gz: not JSON Lines in a gzip file"):
        read_tasks(tmp_path)
    (tmp_path / "HumanEval.jsonl.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"HumanEval\.jsonl\.gz: no such file"):
        read_tasks(tmp_path)


CODE = Path(neocoder_files.REAL).parent / "code"


@pytest.mark.skipif(not CODE.is_dir(), reason="HumanEval and CreativeBench are not on this machine")
def test_the_real_files_own_solutions_are_correct(as_prompt, sandbox):
    lines = gzip.decompress((CODE / "HumanEval.jsonl.gz").read_bytes()).decode().splitlines()
    rows = [json.loads(line) for line in lines[32:42]]  # two of them need a helper of their prompt
    answers = [f"```python\n{row['prompt']}{row['canonical_solution']}```" for row in rows]
    alone = ["```python\ndef " + answer.rsplit("\ndef ", 1)[1] for answer in answers]  # the last function only
    tasks = humaneval_tasks(CODE / "HumanEval.jsonl.gz")[32:42]
    assert judged(tasks, answers, as_prompt, sandbox) == [True] * 10
    assert judged(tasks, alone, as_prompt, sandbox) == [True] * 10
    tasks = creativebench_tasks(CODE / "creativebench_explore_200.jsonl")[:20]
    solved = judged(tasks, [f"```python\n{task.solution}\n```" for task in tasks], as_prompt, sandbox)
    assert [i for i, correct in enumerate(solved) if not correct] == [0, 3, 5, 8, 15, 18]  # memory, packages, files
