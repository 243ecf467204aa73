"""A small data set of our own in NeoCoder's schema: two problems, ten solutions each, in the forms that the real files
hold."""

import json
from pathlib import Path

import pytest


DOUBLE = {
    "id": "1A",
    "title": "A. Double",
    "text": "Print twice each number.",
    "sample": ("3\n1\n2\n5\n", "2\n4\n10"),
    "common": [
        "for _ in range(int(input())):\n    print(2 * int(input()))",
        "for i in range(int(input())):\n    n = int(input())\n    print(n + n)",
        "t = int(input())\nfor i in range(t):\n    x = int(input())\n    print(x * 2)",
        "for _ in range(int(input())):\n    value = int(input())\n    print(value * 2)",
        "n = int(input())\nfor j in range(n):\n    k = int(input())\n    print(2 * k)",
        "for _ in range(int(input())):\n    a = int(input())\n    b = a\n    print(a + b)",
        "t = int(input())\nfor t in range(t):\n    y = int(input())\n    print(y + y)",
    ],
    "rare": [
        "n = int(input())\nwhile n:\n    print(2 * int(input()))\n    n -= 1",
        "print(*[2 * int(input()) for _ in range(int(input()))], sep='\\n')",
    ],
    "other": [
        "#include <iostream>\nint main() { return 0; }",  # another language
        "for _ in range(int(input())):\n    print(3 * int(input()))",  # wrong
        "for _ in range(int(input())):\r\n    print(2  *  int(input()))",  # a duplicate but for white space
    ],
}
PARITY = {
    "id": "2B",
    "title": "B. Parity",
    "text": "Print YES for even numbers, NO for odd ones.",
    "sample": ("2\n3\n4\n", "NO\nYES"),
    "common": [
        f"for _ in range(int(input())):\n    {name} = int(input())\n    if {name} % 2 == 0:\n        "
        f"print('{yes}')\n    else:\n        print('{no}')"
        for name, yes, no in (
            ("a", "YES", "NO"),
            ("bb", "Yes", "No"),
            ("c", "yes", "no"),
            ("dd", "YES", "NO"),
            ("e", "YES", "NO"),
        )
    ]
    + [
        "t = int(input())\nfor _ in range(t):\n    x = int(input())\n    if x % 2 == 1:\n        print('NO')\n    "
        "else:\n        print('YES')"
    ],
    "rare": [
        "for _ in range(int(input())):\n    print('YES' if int(input()) % 2 == 0 else 'NO')",
        "for _ in range(int(input())):\n    answer = 'NO' if int(input()) & 1 else 'YES'\n    print(answer)",
        "answer = lambda n: {0: 'YES', 1: 'NO'}[n % 2]\nfor _ in range(int(input())):\n    "
        "print(answer(int(input())))",
    ],
    "other": ["import sys\nraise SystemExit(1)"],
}


def write(folder: Path, copies: int = 1) -> Path:
    """Write the four files and return the folder. Copies of the problems have other ids and titles."""
    problems, humans, labels, cases = [], {}, {}, []
    further = [
        entry | {"id": f"{entry['id']}{i}", "title": f"{entry['title']} {i}"}
        for i in range(1, copies)
        for entry in (DOUBLE, PARITY)
    ]
    for entry in (DOUBLE, PARITY, *further):
        stdin, stdout = entry["sample"]
        raw = f"{entry['text']}\nExample\nInput\n{stdin.strip()}\nOutput\n{stdout}\nNote\nNothing."
        constrained = (
            f"{entry['title']}\nProgramming constraints: DO NOT use the following techniques\n- for loop\n{raw}"
        )
        repeated = (
            f"{entry['title']}\nProgramming constraints: DO NOT use the following techniques\n- \n- for loop\n{raw}"
        )
        problems.append(
            {
                "problem_id": entry["id"],
                "problem_statements": [f"{entry['title']}\n{raw}", constrained, repeated],
                "constraints_list": [["this is the og problem"], ["for loop"], ["for loop"]],
                "codes": [None, "", ""],
            }
        )
        humans[entry["id"]] = entry["common"] + entry["rare"] + entry["other"]
        labels[entry["id"]] = [["for loop"] for _ in humans[entry["id"]]]
        cases.append({"problem_id": entry["id"], "problem_statement": raw, "input": [], "output": []})
    names = ("NeoCoder.json", "human_solutions.json", "human_solution_techniques.json", "test_cases_annotated.json")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, (problems, humans, labels, cases), strict=True):
        (folder / name).write_text(json.dumps(content))
    return folder


REAL = Path(__file__).parents[2] / "shared" / "data" / "neocoder"

real = pytest.mark.skipif(not REAL.is_dir(), reason=f"NeoCoder's own files are not in {REAL.parent.name}/{REAL.name}")
