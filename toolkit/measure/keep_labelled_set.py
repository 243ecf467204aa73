"""The labelled set that a repo keeps, split into groups to fit on, to choose a strength on and to measure it on. It
stays on this machine: `push` leaves it out, and so does `hf upload`, because of the .gitignore beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.labelled_set import Example, read_examples, write_examples
from ..data.splits import halves
from ..foundation.files import write_text


FILE = "labelled_set.jsonl"

PARTS = ("fit", "validation", "test")


def keep_labelled_set(examples: Sequence[Example], held_out: np.ndarray, seed: int, folder: Path) -> Path:
    """Write the set, each row with its part. The rows `held_out` from fitting are halved by group into validation and
    test."""
    groups = {examples[row].group for row in held_out}
    validation, _ = halves(sorted(groups), seed) if len(groups) > 1 else (set(), groups)
    rows = set(held_out.tolist())

    def part(row: int) -> str:
        if row not in rows:
            return "fit"
        return "validation" if examples[row].group in validation else "test"

    return write_parts([(part(row), example) for row, example in enumerate(examples)], folder)


def write_parts(rows: Iterable[tuple[str, Example]], folder: Path) -> Path:
    """Write rows with the part of each, and a .gitignore that names the file."""
    write_text(folder / ".gitignore", "".join(f"{name}\n" for name in (FILE, "*completions*.jsonl", "*.cache")))
    marked = [replace(example, meta=example.meta | {"part": part}) for part, example in rows]
    return write_examples(marked, folder / FILE)


def read_parts(folder: Path, *parts: str) -> list[Example]:
    """The rows of these parts.

    Raises:
        ValueError: if there are none.
    """
    rows = [example for example in read_examples(folder / FILE) if example.meta.get("part") in parts]
    if not rows:
        raise ValueError(f"{folder / FILE}: no rows of {' or '.join(parts)}; add groups to the set, and fit again")
    return rows
