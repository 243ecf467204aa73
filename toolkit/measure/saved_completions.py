"""Completions on disk: a killed run goes on where it stopped."""

import json
from pathlib import Path

from ..foundation.files import read_rows, write_text


class SavedCompletions:
    """A JSON Lines file: the settings of the run, then one row for each completion. Without a path nothing is kept.

    Raises:
        ValueError: if the file belongs to another run. It is not touched then.
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
        # Write the file again, without a line that a kill or a full disk cut off.
        write_text(path, json.dumps({"settings": settings}) + "\n" + self._lines(self.rows))

    def get(self, condition: str, index: int, sample: int) -> str | None:
        return self.rows.get((condition, index, sample))

    def add(self, rows: list[tuple[str, int, int, str]]) -> None:
        """Append (condition, index, sample, completion) rows; rows that exist already stay as they are."""
        new = {(condition, index, sample): text for condition, index, sample, text in rows}
        new = {key: text for key, text in new.items() if key not in self.rows}
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._lines(new))
        self.rows |= new

    @staticmethod
    def _lines(rows: dict[tuple[str, int, int], str]) -> str:
        keys = ("condition", "index", "sample", "completion")
        return "".join(json.dumps(dict(zip(keys, (*key, text), strict=True))) + "\n" for key, text in rows.items())
