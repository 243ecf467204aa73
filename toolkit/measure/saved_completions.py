"""Completions on disk: a run that was killed goes on where it stopped."""

import json
import os
from pathlib import Path

from ..foundation.files import read_rows


class SavedCompletions:
    """A JSON Lines file: the settings of the run, then one row for each completion. Without a path nothing is kept.

    Raises:
        ValueError: if the file is of another run. It is not touched then.
    """

    def __init__(self, path: Path | None, settings: dict):
        self.path, self.rows = path, {}
        if path is None:
            return
        settings = json.loads(json.dumps(settings))
        kept = read_rows(path)
        if kept and kept[0].get("settings") != settings:
            raise ValueError(
                f"{path}: holds the completions of another run ({kept[0].get('settings')}); this one's settings are "
                f"{settings}. Choose another --out, or delete the file."
            )
        for row in kept[1:]:
            self.rows[row["condition"], row["index"], row["sample"]] = row["completion"]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        lines = [{"settings": settings}, *kept[1:]]
        temporary.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
        os.replace(temporary, path)  # without a line that a kill cut off

    def get(self, condition: str, index: int, sample: int) -> str | None:
        return self.rows.get((condition, index, sample))

    def add(self, rows: list[tuple[str, int, int, str]]) -> None:
        """Append (condition, index, sample, completion) rows."""
        for condition, index, sample, text in rows:
            self.rows[condition, index, sample] = text
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                for condition, index, sample, text in rows:
                    row = {"condition": condition, "index": index, "sample": sample, "completion": text}
                    file.write(json.dumps(row) + "\n")
