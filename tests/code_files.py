"""Small files of our own in the schemas of HumanEval and CreativeBench-Explore."""

import gzip
import json
from pathlib import Path


HUMANEVAL = [
    {
        "task_id": "Own/0",
        "prompt": 'def twice(n):\n    return 2 * n\n\n\ndef doubled(numbers):\n    """ Each number twice.\n    """\n',
        "entry_point": "doubled",
        "canonical_solution": "    return [twice(n) for n in numbers]\n",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n    assert candidate([]) == []\n",
    },
    {
        "task_id": "Own/1",
        "prompt": 'def largest(numbers):\n    """ The largest.\n    """\n',
        "entry_point": "largest",
        "canonical_solution": "    return max(numbers)\n",
        "test": "def check(candidate):\n    assert candidate([1, 5, 2]) == 5\n",
    },
]

CREATIVEBENCH = [
    {
        "id": "p1_L2",
        "problem_id": "p1",
        "level": 2,
        "language": "python",
        "question": "Write `next_year(day)`.",
        "constraints": ["Do not use timedelta.", "No loops."],
        "test_code": "def test():\n    assert next_year(date(2023, 1, 2)) == date(2024, 1, 2)\n\n"
        "if __name__ == '__main__':\n    test()\n",
        "reference_solution": "from datetime import date\n\n\n"
        "def next_year(day):\n    return day.replace(day.year + 1)\n",
    },
    {
        "id": "p2_L0",
        "problem_id": "p2",
        "level": 0,
        "language": "python",
        "question": "Write `zero()`.",
        "constraints": [],
        "test_code": "def test():\n    assert zero() == 0\n",
        "reference_solution": "def zero():\n    return 0\n",
    },
]


def write(folder: Path) -> Path:
    """Write both files and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    humaneval, creativebench = ("".join(json.dumps(row) + "\n" for row in rows) for rows in (HUMANEVAL, CREATIVEBENCH))
    (folder / "HumanEval.jsonl.gz").write_bytes(gzip.compress(humaneval.encode()))
    (folder / "creativebench_explore_200.jsonl").write_text(creativebench)
    return folder
