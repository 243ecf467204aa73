"""README and docs as a reader uses them: links lead somewhere, commands and their options exist, pages stay short."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from iti_llama.toolkit.cli import app
from iti_llama.toolkit.foundation.package import ROOT


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
PAGES += [ROOT / "examples" / "quickstart.ipynb"]
GUIDES = [path for path in PAGES if path.parent == ROOT / "docs" and path.name != "CHANGELOG.md"]
COMMANDS = get_command(app).commands
OTHERS_OPTIONS = {"serve"}
"""Commands that pass further options on."""


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and the Hub make of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def command_lines(text: str) -> list[list[str]]:
    """Every `iti-llama ...` of a page, as words; continued lines are one."""
    text = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"(?:^|`|\$ |\()iti-llama ([a-z][^`\n#|]*)", text, re.MULTILINE)
    return [line.split() for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_their_options_exist(page):
    for words in command_lines(page.read_text(encoding="utf-8")):
        name = words[0].strip(".,;:")
        assert name in COMMANDS, f"{page.name}: iti-llama {name}"
        command = COMMANDS[name]
        while getattr(command, "commands", None) and len(words) > 1 and words[1] in command.commands:
            command, words = command.commands[words[1]], words[1:]
        if name in OTHERS_OPTIONS or getattr(command, "commands", None):
            continue
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            option = re.match(r"--[a-z][a-z-]*", word)
            assert option is None or option.group() in options | {"--help"}, f"{page.name}: {name} {word}"


def test_there_are_few_guides_and_the_readme_is_read_to_its_end():
    assert len(GUIDES) <= 9
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("\n---\n", 1)[1]
    assert len(text.split("\n## Evidence\n")[0].split()) <= 600
    text = re.sub(r"```.*?```|^\|.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert len(text.split()) <= 750
