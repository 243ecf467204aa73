"""Open a GGUF file, once it is known to be a whole Llama in one file."""

from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from gguf import GGUFReader


ARCHITECTURE = "llama"


def open_gguf(path: Path) -> "GGUFReader":
    """A `gguf.GGUFReader` of a Llama in one file.

    Raises:
        ValueError: if it is not a GGUF file, is cut off, has another architecture, or is one part of several; if the
            package gguf is not installed.
        FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        import gguf
    except ImportError:
        raise ValueError(f"{path}: reading a GGUF file needs the package gguf (`pip install gguf`)") from None
    try:
        reader = gguf.GGUFReader(path)
        known = {name: reader.fields[name].contents() for name in ("general.architecture", "split.count")
                 if name in reader.fields}  # fmt: skip
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise ValueError(f"{path}: not a GGUF file, or not a whole one ({error})") from None
    if (architecture := known.get("general.architecture")) != ARCHITECTURE:
        raise ValueError(f"{path}: architecture is {architecture!r}; expected {ARCHITECTURE!r}")
    parts = known.get("split.count", 1)
    if not isinstance(parts, int):
        raise ValueError(f"{path}: split.count is {parts!r}; expected a number")
    if parts > 1:
        raise ValueError(
            f"{path}: is one of {parts} parts; expected one file: `llama-gguf-split --merge {path.name} WHOLE.gguf`"
        )
    return reader
