"""The labelled set that a repo keeps beside it: which groups were fitted on, which strengths are chosen on, and which
they are measured on. It stays on this machine: `push` leaves it out, and `hf upload` by the .gitignore beside it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.labelled_set import Example, read_examples, write_examples
from ..data.splits import halves
from ..foundation.files import write_text


FILE = "labelled_set.jsonl"

PARTS = ("fit", "validation", "test")


def keep_labelled_set(examples: Sequence[Example], held_out: np.ndarray, seed: int, folder: Path) -> Path:
    """Write the set, each row with its part: the rows `held_out` from fitting are halved by group into validation and
    test."""
    groups = {examples[row].group for row in held_out}
    validation, _ = halves(sorted(groups), seed) if len(groups) > 1 else (set(), groups)
    rows = set(held_out.tolist())

    def part(row: int) -> str:
        if row not in rows:
            return "fit"
        return "validation" if examples[row].group in validation else "test"

    write_text(folder / ".gitignore", "".join(f"{name}\n" for name in (FILE, "*completions*.jsonl", "*.cache")))
    marked = [replace(example, meta=example.meta | {"part": part(row)}) for row, example in enumerate(examples)]
    return write_examples(marked, folder / FILE)


def read_parts(folder: Path, *parts: str) -> list[Example]:
    """The rows of some parts.

    Raises:
        ValueError: if there are none.
    """
    rows = [example for example in read_examples(folder / FILE) if example.meta.get("part") in parts]
    if not rows:
        raise ValueError(f"{folder / FILE}: no rows of {' or '.join(parts)}; expected some: add groups, and fit again")
    return rows
