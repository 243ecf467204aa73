"""The labelled sets that the bundled model's directions are fitted on."""

import random
from collections.abc import Iterator

from iti_llama.toolkit.data.labelled_set import Example

from .corpus import COMMENT_HEADERS, HEADERS, IDIOMATIC_SHARE, STYLES, Task, sample_classic, sample_task


def _tasks(groups: int, rng: random.Random) -> Iterator[Task]:
    """Training tasks of the corpus, each from a different group."""
    seen: set[str] = set()
    while len(seen) < groups:
        task = sample_classic(rng) if rng.random() < 0.1 else sample_task("train", rng)
        if task.group not in seen:
            seen.add(task.group)
            yield task


def style_pairs(groups: int, seed: int = 0) -> list[Example]:
    """Two rows for each of `groups` training tasks of the corpus: the prompt under a header that asks for the
    idiomatic style, solved in it (label 1), and under one that asks for the plain style (label 0)."""
    rng, rows = random.Random(f"pairs:{seed}"), []
    for task in _tasks(groups, rng):
        for label, style in enumerate(STYLES):
            prompt = f"{rng.choice(HEADERS[style])}\n{task.prompt}"
            rows.append(Example(prompt, task.solutions[style] + "\n", label, task.group, id=f"{task.group}:{style}"))
    return rows


def comment_pairs(groups: int, seed: int = 0) -> list[Example]:
    """The same for the second behaviour: a solution with a comment before its first statement (label 1), and one
    without (label 0), in the same style."""
    rng, rows = random.Random(f"comments:{seed}"), []
    for task in _tasks(groups, rng):
        body = task.solutions["idiomatic" if rng.random() < IDIOMATIC_SHARE else "plain"]
        for label, (kind, solution) in enumerate((("bare", body), ("commented", task.commented(body)))):
            prompt = f"{rng.choice(COMMENT_HEADERS[kind])}\n{task.prompt}"
            rows.append(Example(prompt, solution + "\n", label, task.group, id=f"{task.group}:{kind}"))
    return rows
