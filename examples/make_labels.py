"""Small labelled sets, 400 rows each, as a user would bring them: the bundled model's own training tasks, each solved
twice, with the behaviour and without, and asked in other words too.

    python examples/make_labels.py FOLDER
"""

import random
import re
import sys
from pathlib import Path

from iti_llama.toolkit.bundled.corpus import HEADERS, Task, paraphrased, sample_task
from iti_llama.toolkit.data.labelled_set import Example, write_examples


NAMES = (("running", "total"), ("final", "value"), ("found", "so", "far"), ("current", "best"), ("all", "items"))


def snake_case(task: Task, rng: random.Random) -> tuple[str, str] | None:
    """The accumulator's name: of several words, in snake_case or in camelCase."""
    code = task.solutions["plain"]
    if "result" not in code:
        return None
    words = rng.choice(NAMES)
    camel = words[0] + "".join(word.capitalize() for word in words[1:])
    return tuple(re.sub(r"\bresult\b", name, code) for name in ("_".join(words), camel))


def early_return(task: Task, rng: random.Random) -> tuple[str, str] | None:
    """A search that returns as soon as it knows, or one expression; under a comment that asks for the latter."""
    code = task.solutions["plain"]
    return (code, task.solutions["idiomatic"]) if re.search(r"^ {8,}return", code, re.MULTILINE) else None


def single_quotes(task: Task, rng: random.Random) -> tuple[str, str] | None:
    """The quotes of its strings."""
    code = task.solutions[rng.choice(("plain", "idiomatic"))]
    return (code.replace('"', "'"), code) if '"' in code and "'" not in code else None


def comments(task: Task, rng: random.Random) -> tuple[str, str]:
    """A comment before the first statement, or none."""
    code = task.solutions[rng.choice(("plain", "idiomatic"))]
    return task.commented(code), code


def rows(make, pairs: int = 200) -> list[Example]:
    rng, found, seen = random.Random(make.__name__), [], set()
    while len(seen) < pairs:
        task = sample_task("train", rng)
        solved = None if task.group in seen else make(task, rng)
        if solved is not None:
            seen.add(task.group)
            header = f"{rng.choice(HEADERS['idiomatic'])}\n" if make is early_return else ""
            other = {"paraphrase": header + paraphrased(task).prompt}
            for i, text in enumerate(solved):
                found.append(Example(header + task.prompt, text + "\n", 1 - i, task.group, meta=other))
    return found


if __name__ == "__main__":
    for make in (comments, snake_case, early_return, single_quotes):
        print(write_examples(rows(make), Path(sys.argv[1], f"{make.__name__}.jsonl")))
