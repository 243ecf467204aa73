"""The labelled set that the bundled model's directions are fitted on."""

import random

from ..data.labelled_set import Example
from .corpus import HEADERS, sample_classic, sample_task


def style_pairs(groups: int, seed: int = 0) -> list[Example]:
    """Two rows for each of `groups` training tasks of the corpus: its prompt under a header that asks for the
    idiomatic style, solved so (label 1), and under one that asks for the plain style (label 0)."""
    rng, rows, seen = random.Random(f"pairs:{seed}"), [], set()
    while len(seen) < groups:
        task = sample_classic(rng) if rng.random() < 0.1 else sample_task("train", rng)
        if task.group in seen:
            continue
        seen.add(task.group)
        for label, style in enumerate(("plain", "idiomatic")):
            prompt = f"{rng.choice(HEADERS[style])}\n{task.prompt}"
            rows.append(Example(prompt, task.solutions[style] + "\n", label, task.group, id=f"{task.group}:{style}"))
    return rows
