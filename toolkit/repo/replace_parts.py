"""A document with parts that commands write again. A part is between `<!-- NAME: begin -->` and `<!-- NAME: end -->`,
each on a line of its own. The rest belongs to the owner, and is kept."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK


def section(name: str, text: str) -> str:
    """A part that `replaced` can replace later."""
    return f"<!-- {name}: begin -->\n{without_marks(text.strip())}\n<!-- {name}: end -->"


def without_marks(text: str) -> str:
    """A text in which nothing counts as a mark of a part: an answer or a name may hold such marks."""
    return re.sub(r"<!-- ([\w-]+): (begin|end) -->", r"<!-- \1 : \2 -->", text)


def marked_parts(text: str, names: Iterable[str]) -> list[tuple[str, int, int]]:
    """(name, start, end) of each part of a document with one of these names, in their order. Text in the YAML header
    or inside another part does not count as a mark.

    Raises:
        ValueError: naming line and mark, if one has no partner, since the part's end is not known then.
    """
    header, parts, opened = REGEX_YAML_BLOCK.match(text), [], None
    pattern = rf"^<!-- ({'|'.join(map(re.escape, names))}): (begin|end) -->[ \t]*$"
    for mark in re.compile(pattern, re.MULTILINE).finditer(text, header.end() if header else 0):
        name, kind = mark.groups()
        if opened is None and kind == "begin":
            opened = mark
        elif opened is None or (name == opened[1] and kind == "begin"):
            raise _alone(text, opened or mark)
        elif name == opened[1]:
            parts.append((name, opened.start(), mark.end()))
            opened = None
    if opened is not None:
        raise _alone(text, opened)
    return parts


def _alone(text: str, mark: re.Match) -> ValueError:
    line = text.count("\n", 0, mark.start()) + 1
    return ValueError(f"line {line}: {mark[0]} has no partner; expected a begin and an end, or neither")


def replaced(text: str, parts: Mapping[str, str]) -> str | None:
    """A document with its parts of these names replaced; None if it has none of them. Raises as `marked_parts`."""
    pieces, end = [], 0
    for name, start, stop in marked_parts(text, parts):
        pieces += [text[end:start], section(name, parts[name])]
        end = stop
    return "".join([*pieces, text[end:]]) if pieces else None


def one_line(text: str) -> str:
    """A value on one line, for a title, a list or a line of code of a document."""
    return " ".join(text.split())


def read_card(path: Path) -> str:
    """The text of a model card whose header can be read.

    Raises:
        ValueError: naming the file, if it begins with a byte-order mark, is not in UTF-8, or has a header that is not
            YAML, or not that of a model card.
    """
    data = path.read_bytes()
    if data.startswith(b"\xef\xbb\xbf"):
        raise ValueError(f"{path}: begins with a byte-order mark, which hides the header; expected none")
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; expected a model card in UTF-8") from None
    try:
        ModelCard(text)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: its header cannot be read: {error}; expected that of a model card") from None
    return text
