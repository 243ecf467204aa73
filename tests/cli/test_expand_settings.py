"""Options that are made of settings: their names, defaults and words, and how they are refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from iti_llama.toolkit.cli.expand_settings import expand_settings
from iti_llama.toolkit.foundation.settings import like, setting


@dataclass(frozen=True)
class Inner:
    seed: int = setting(3, "drawn from it")
    speed: float = setting(1.5, "how fast", min=1)


@dataclass(frozen=True)
class Outer:
    name: str = setting(help="what it is called", flags=("--name", "--called"))
    inner: Inner = field(default_factory=Inner)
    count: int | None = setting(4, "how many, or 'all'", words={"all": None})
    sizes: Sequence[float] | None = setting(None, "sizes", words={"even": None})
    loud: bool = setting(False, "say more")
    careful: bool = setting(True, "look twice")
    hidden: str = "not asked for"


@dataclass(frozen=True)
class Other:
    seed: int = like(Inner, "seed", 9)
    path: Path | None = setting(None, "a file")


@pytest.fixture
def invoke():
    """A function: a command of the three settings, invoked with these words; (exit code, settings, output)."""
    given = []
    app = typer.Typer()

    @app.command()
    @expand_settings(speed=2.5)
    def command(outer: Outer, other: Other, extra: int = 1) -> None:
        """A command."""
        given.append((outer, other, extra))

    def call(*words: str):
        result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
        return result.exit_code, given[-1] if given else None, result

    return call


def test_without_options_the_settings_are_their_defaults_but_for_the_commands_own(invoke):
    code, (outer, other, extra), _ = invoke("--name", "x")
    assert code == 0 and outer == Outer("x", Inner(9, 2.5)) and (other, extra) == (Other(), 1)
    assert Other().seed == 9 and Inner().seed == 3


def test_each_field_is_an_option_and_one_name_in_two_settings_is_one_option(invoke):
    words = ["--called", "y", "--seed", "7", "--speed", "1.25", "--count", "12", "--sizes", "1,2.5", "--loud"]
    code, (outer, other, extra), _ = invoke(*words, "--no-careful", "--path", "a.txt", "--extra", "5")
    wanted = Outer("y", Inner(7, 1.25), count=12, sizes=(1.0, 2.5), loud=True, careful=False)
    assert code == 0 and outer == wanted and (other, extra) == (Other(7, Path("a.txt")), 5)


def test_a_word_stands_for_a_value(invoke):
    _, (outer, *_), _ = invoke("--name", "x", "--count", "all", "--sizes", "even")
    assert outer.count is None and outer.sizes is None


@pytest.mark.parametrize(
    "words,said",
    [
        (["--count", "many"], "--count is 'many'; expected a number, or all"),
        (["--sizes", "1,x"], "--sizes is '1,x'; expected numbers separated by commas, or even"),
    ],
)
def test_what_is_no_value_is_refused_by_the_name_of_the_option(invoke, words, said):
    code, given, result = invoke("--name", "x", *words)
    assert code == 1 and given is None and str(result.exception) == said


def test_help_shows_what_the_settings_say(invoke):
    _, _, result = invoke("--help")
    for words in ("drawn from it", "default: 2.5", "x>=1", "default: even", "--no-careful", "how many, or 'all'"):
        assert words in result.output
    assert "hidden" not in result.output and "--no-loud" not in result.output
