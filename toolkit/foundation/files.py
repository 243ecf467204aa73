"""Text and JSON Lines files: written whole or not at all, read also after a kill."""

import json
import os
from pathlib import Path

from iti_llama.iti_directions import write_whole


__all__ = ["read_rows", "write_text", "write_whole"]


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text file, whole or not at all."""
    return write_whole(path, text.encode())


def read_rows(path: Path) -> list[dict]:
    """The whole rows of a JSON Lines file; a last line that a kill cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: no JSON") from None
    return rows
