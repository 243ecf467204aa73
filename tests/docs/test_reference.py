"""docs/reference.md says what the code says: `make reference` would change nothing."""

import json
import shutil

import pytest
from typer.main import get_command

from iti_llama import ITILlamaConfig
from iti_llama.examples.write_reference import PAGE, sections, write_reference
from iti_llama.toolkit.cli import app
from iti_llama.toolkit.repo.replace_parts import marked_parts


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_is_as_the_code_would_write_it(page, tmp_path):
    copy = shutil.copyfile(PAGE, tmp_path / "reference.md")
    write_reference(copy)
    assert copy.read_text(encoding="utf-8") == page, "run `make reference`"


def test_every_part_stands_once(page):
    assert sorted(name for name, _, _ in marked_parts(page, sections())) == sorted(sections())


def rows(page: str, name: str) -> list[list[str]]:
    """The cells of a part's table, without its head."""
    ((_, start, end),) = marked_parts(page, [name])
    lines = page[start:end].split("\n")[3:-1]
    return [[cell.strip() for cell in line.replace(r"\|", "").strip("|").split(" | ")] for line in lines]


def test_a_field_has_the_default_of_a_new_config(page):
    config = ITILlamaConfig()
    for field, _, default, _ in rows(page, "config"):
        assert json.loads(default.strip("`")) == getattr(config, field.strip("`"))


def test_every_command_has_a_row(page):
    listed = {command.strip("`") for _, command, _, _ in rows(page, "commands")}
    for name, command in get_command(app).commands.items():
        inner = getattr(command, "commands", None) or {"": command}
        assert {f"{name} {word}".strip() for word in inner} <= listed
