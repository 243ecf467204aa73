"""Write the part of the corpus that the package keeps, `toolkit/measure/bundled/`: `make freeze`."""

import json
from collections.abc import Iterable
from dataclasses import replace

from iti_llama.toolkit.foundation.files import write_text
from iti_llama.toolkit.measure.bundled_tasks import FOLDER, BundledTask, frozen_pairs, frozen_row

from .corpus import Task, classic, paraphrased, sample_tasks
from .pairs import comment_pairs, style_pairs


TASKS = 300
"""Tasks of each held-out split."""

GROUPS = 300
"""Groups of labelled pairs, for each behaviour."""


def _held_out(task: Task) -> BundledTask:
    return replace(task, paraphrase=paraphrased(task).docstring)


def frozen_files() -> dict[str, str]:
    """The text of each file, by its name."""
    files = {split: map(frozen_row, map(_held_out, sample_tasks(split, TASKS, 0))) for split in ("test", "validation")}
    files["classic"] = [frozen_row(classic("prime", "Check if a number is prime."))]
    files["pairs_idiomatic"] = frozen_pairs(style_pairs(GROUPS))
    files["pairs_commented"] = frozen_pairs(comment_pairs(GROUPS))
    return {f"{name}.jsonl": _json_lines(rows) for name, rows in files.items()}


def _json_lines(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    for name, text in frozen_files().items():
        print(write_text(FOLDER / name, text))
