"""Text and JSON Lines files: written whole or not at all, and readable after a kill."""

import json
import os
import re
from pathlib import Path

from iti_llama.iti_directions import write_whole


__all__ = ["folder_of", "read_rows", "read_text", "write_text", "write_whole"]


def folder_of(name: str | os.PathLike, what: str = "") -> Path | None:
    """The folder that `name` points to, None for a Hub repo (name, owner/name). An error begins with `what`.

    Raises:
        FileNotFoundError: for a path that is not a folder, before the Hub is asked for a repo of that name.
        ValueError: for a GGUF file.
    """
    text = os.fspath(name)
    if text.endswith(".gguf"):
        advice = f"`iti-llama from-gguf {text} --out DIR` turns it into a folder that can be a base"
        raise ValueError(f"{what}{text}: a GGUF file; {advice}")
    if os.path.isdir(text):
        return Path(text)
    if text.startswith((".", "~")) or os.path.exists(text) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text):
        raise FileNotFoundError(f"{what}{text}: no such folder, and no name of a Hub repo (owner/name)")
    return None


def read_text(path: Path, what: str, newline: str | None = None) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark. `what`: what the file should be, for the error;
    `newline`: as for `open`.

    Raises:
        ValueError: naming the file, if it is not in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; expected {what} in UTF-8") from None


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
                raise ValueError(f"{path}, line {number}: not JSON") from None
    return rows
