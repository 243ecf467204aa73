"""Fill in a template, the Markdown file beside the code that holds the words of a card."""

from pathlib import Path

from huggingface_hub import ModelCardData
from jinja2 import Environment, StrictUndefined

from .kept_line import share
from .replace_parts import one_line, without_marks


def fill_template(template: Path, **values) -> str:
    """The text of a card. Metadata becomes YAML, and no other value can hold a mark of `replace_parts`.

    Raises:
        jinja2.UndefinedError: if the template names a value that is not there.
    """
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, finalize=_printed
    )
    environment.filters |= {"code": _code, "number": "{:g}".format, "one_line": one_line, "repr": repr, "share": share}
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)


def _printed(value) -> str:
    return value.to_yaml() if isinstance(value, ModelCardData) else without_marks(str(value))


def _code(text: str) -> str:
    """A value as code, in a line of text."""
    return f"`{one_line(text).replace('`', chr(39))}`"
