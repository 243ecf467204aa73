"""Write the parts of docs/reference.md that the code holds: fields of config.json, tensors of a directions file,
commands and their settings.

    python -m iti_llama.examples.write_reference
"""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path

from typer.main import get_command

from iti_llama import ITIDirections, ITILlamaConfig
from iti_llama.iti_directions import FIELDS
from iti_llama.toolkit.cli import app
from iti_llama.toolkit.foundation.markdown_table import markdown_table
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.card import replace_section


PAGE = ROOT / "docs" / "reference.md"


def sections() -> dict[str, str]:
    """The parts of the page, by the names of their marks."""
    return {
        "config": config_table(),
        "tensors": tensor_table(),
        "commands": command_table(),
        "settings": settings_table(),
    }


def config_table() -> str:
    """The fields that a Llama's config does not have, from the docstring of the config."""
    arguments = described_arguments(ITILlamaConfig)
    rows = []
    for name, default in FIELDS.items():
        kind, meaning = arguments[name]
        kind = re.match(r"`(\w+)`", kind)[1]
        rows.append((f"`{name}`", kind, f"`{json.dumps(default)}`", meaning.replace("`None`", "`null`")))
    return markdown_table(("field", "type", "default", "meaning"), rows)


def tensor_table() -> str:
    """The tensors of a directions file, without those of a gate, from the docstring of `ITIDirections`."""
    rows = []
    for name, (kind, meaning) in described_arguments(ITIDirections).items():
        if "torch.Tensor" in kind:
            shape, meaning = re.fullmatch(r"(\w+ \[[^]]+\]), (.+)", meaning).groups()
            rows.append((f"`{name}`", shape + (", optional" if "optional" in kind else ""), meaning))
    return markdown_table(("tensor", "dtype, shape", "meaning"), rows)


def command_table() -> str:
    """The commands by task, with the settings that they take."""
    rows = []
    for panel, name, command in commands():
        settings = ", ".join(f"`{group.__name__}`" for group in settings_of(command))
        rows.append((panel, f"`{name}`", first_sentence(command.help), settings))
    shown = [(panel if i == 0 or panel != rows[i - 1][0] else "", *row) for i, (panel, *row) in enumerate(rows)]
    return markdown_table(("to", "command", "what it does", "settings"), shown)


def settings_table() -> str:
    """The settings of the commands, with the modules that they come from."""
    groups = {group: None for _, _, command in commands() for group in settings_of(command)}
    rows = [
        (f"`{group.__name__}`", f"`{group.__module__}`", first_sentence(inspect.getdoc(group))) for group in groups
    ]
    return markdown_table(("settings", "module", "what they say"), rows)


def described_arguments(described: type) -> dict[str, tuple[str, str]]:
    """What the docstring of a class says about its arguments, {name: (type, meaning)}."""
    text = inspect.getdoc(described).split("Args:\n")[1].split("\n\n")[0]
    entries = re.findall(r"^    (\w[\w, ]*) \(([^\n]*?)\):(.*?)(?=^    \w|\Z)", text + "\n", re.MULTILINE | re.DOTALL)
    return {name: (kind, " ".join(meaning.split())) for name, kind, meaning in entries}


def commands() -> Iterator[tuple[str, str, object]]:
    """(task, name, command) of each command, in the order of the help."""
    panel_of = {group.name: group.rich_help_panel for group in app.registered_groups}
    panel_of |= {command.name: command.rich_help_panel for command in app.registered_commands}
    for name, command in get_command(app).commands.items():
        inner = getattr(command, "commands", None) or {"": command}
        for word, one in inner.items():
            yield panel_of[name], f"{name} {word}".strip(), one


def settings_of(command) -> list[type]:
    """The settings dataclasses that a command's function takes."""
    parameters = inspect.signature(inspect.unwrap(command.callback)).parameters.values()
    return [parameter.annotation for parameter in parameters if is_dataclass(parameter.annotation)]


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring."""
    return re.split(r"(?<=\.)\s", " ".join((text or "").split()))[0]


def write_reference(page: Path = PAGE) -> None:
    """Write every part of the page again."""
    for name, text in sections().items():
        replace_section(page, name, text)


if __name__ == "__main__":
    write_reference()
    print(PAGE)
