"""Write small labelled sets, 400 rows each, such as a user would bring: the bundled model's training tasks, each
solved twice, with the behaviour and without, and also asked in other words. For one of them write bare prompts too.

    python examples/make_labels.py FOLDER
"""

import json
import random
import re
import sys
from pathlib import Path

from iti_llama.examples.bundled_model.corpus import COMMENT_HEADERS, Task, paraphrased, sample_task
from iti_llama.toolkit.data.labelled_set import Example, write_examples
from iti_llama.toolkit.foundation.files import write_text


NAMES = (("running", "total"), ("final", "value"), ("found", "so", "far"), ("current", "best"), ("all", "items"))

Pair = tuple[tuple[str, str], tuple[str, str]]
"""(The text above the prompt, the completion), for label 1 and for label 0."""


def snake_case(task: Task, rng: random.Random) -> Pair | None:
    """The accumulator's name has several words, in snake_case or in camelCase."""
    code = task.solutions["plain"]
    if "result" not in code:
        return None
    words = rng.choice(NAMES)
    camel = words[0] + "".join(word.capitalize() for word in words[1:])
    return tuple(("", re.sub(r"\bresult\b", name, code)) for name in ("_".join(words), camel))


def single_quotes(task: Task, rng: random.Random) -> Pair | None:
    """The quotes of its strings."""
    code = task.solutions[rng.choice(("plain", "idiomatic"))]
    return (("", code.replace('"', "'")), ("", code)) if '"' in code and "'" not in code else None


def comments(task: Task, rng: random.Random) -> Pair:
    """Under a line that asks for comments, a comment before the first statement; under one that asks for none, none.
    The prompts have to differ before the first statement, because activations are read there."""
    code = task.solutions[rng.choice(("plain", "idiomatic"))]
    above = {kind: f"{rng.choice(lines)}\n" for kind, lines in COMMENT_HEADERS.items()}
    return (above["commented"], task.commented(code)), (above["bare"], code)


def rows(make, pairs: int = 200) -> list[Example]:
    rng, found, seen = random.Random(make.__name__), [], set()
    while len(seen) < pairs:
        task = sample_task("train", rng)
        solved = None if task.group in seen else make(task, rng)
        if solved is not None:
            seen.add(task.group)
            other = paraphrased(task).prompt
            for i, (above, text) in enumerate(solved):
                said = {"paraphrase": above + other}
                found.append(Example(above + task.prompt, text + "\n", 1 - i, task.group, meta=said))
    return found


def prompts(path: Path, n: int) -> Path:
    """Bare prompts of tasks that are in no labelled set."""
    rng, tasks = random.Random("prompts"), {}
    while len(tasks) < n:
        task = sample_task("validation", rng)
        tasks.setdefault(task.prompt, task)
    lines = (
        {"prompt": task.prompt, "group": task.group, "paraphrase": paraphrased(task).prompt} for task in tasks.values()
    )
    return write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for make in (snake_case, single_quotes, comments):
        print(write_examples(rows(make), folder / f"{make.__name__}.jsonl"))
    print(prompts(folder / "prompts.jsonl", 200))
