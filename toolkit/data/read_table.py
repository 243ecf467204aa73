"""Read the rows of a file: JSON Lines, one JSON list, or CSV with a header."""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ..foundation.files import read_text


SUFFIXES = (".jsonl", ".json", ".csv")

KINDS = "JSON Lines, a JSON list, or CSV with a header"


def read_table(path: str | os.PathLike) -> Iterator[tuple[str, dict]]:
    """Each row as (file and line, fields). A file whose name ends with .csv is CSV, and its empty cells are left out;
    a file that begins with a bracket is a JSON list; every other is JSON Lines.

    Raises:
        ValueError: naming the file and the line or row, if it is not UTF-8, or not in the format that is expected.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(path)
    elif _begins_with_a_bracket(path):
        rows = _parse(read_text(path, KINDS), str(path))
        if not isinstance(rows, list):
            raise ValueError(f"{path}: {type(rows).__name__}; expected a list of objects")
        for number, row in enumerate(rows, 1):
            yield f"{path}, row {number}", _object(row, f"{path}, row {number}")
    else:
        yield from _json_lines(path)


def _begins_with_a_bracket(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    with path.open("rb") as file:  # line by line: a set may be large
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: not UTF-8 at byte {error.start}; expected {KINDS}, in UTF-8") from None
            if text.strip():
                yield where, _object(_parse(text, where), where)


def _csv_rows(path: Path) -> Iterator[tuple[str, dict]]:
    reader = csv.DictReader(io.StringIO(read_text(path, KINDS, newline=""), newline=""))
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        for row in reader:
            if not any(row.values()):  # as spreadsheets leave them
                continue
            where = f"{path}, line {reader.line_num}"
            if row.pop(None, None) is not None:
                raise ValueError(f"{where}: has more cells than the header names; expected {len(reader.fieldnames)}")
            yield where, {name: cell for name, cell in row.items() if cell}
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _parse(text: str, where: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error})") from None


def _object(row: object, where: str) -> dict:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {type(row).__name__}; expected an object")
    return row
