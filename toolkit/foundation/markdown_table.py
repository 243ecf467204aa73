"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells may hold any text of one line; a bar in a cell does not end it."""
    lines = ["|" + "".join(f" {cell} |" if cell else " |" for cell in map(_escaped, line)) for line in (heads, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]])


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
