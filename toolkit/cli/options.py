"""What the commands share: options, the console, progress, loading a model. Nothing here imports torch."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..fit.settings import FitSettings
from ..foundation.files import folder_of
from ..foundation.package import ROOT
from ..foundation.settings import Placement, setting
from ..repo.settings import SMOLLM2, RunSettings
from .expand_settings import option_type


CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), 11, 12, *range(14, 32), *range(127, 160))}


class SafeConsole(Console):
    """A console that shows control characters of texts as escapes: a repo's own words could rewrite the screen."""

    def print(self, *objects, **kwargs) -> None:
        super().print(*(one.translate(CONTROLS) if isinstance(one, str) else one for one in objects), **kwargs)


console = SafeConsole(emoji=False)
"""The console for a command's messages; `--json` does not print through it."""


def be_quiet(quiet: bool) -> None:
    """Whether the commands print only errors and `--json`."""
    console.quiet = quiet


def say_next(words: str) -> None:
    """The last line of a command that was not asked for JSON: what to do next."""
    console.print(f"next: {words}", highlight=False, soft_wrap=True, markup=False)


REPO_HELP = "Hub repo or folder of a steered model"

RepoArgument = Annotated[str | None, typer.Argument(metavar="MODEL", help=REPO_HELP)]

RepoOption = Annotated[str | None, typer.Option("--model", "--repo", help=f"the same as the argument: {REPO_HELP}")]

Json = Annotated[bool, typer.Option("--json", help="print JSON instead")]

CardFile = Annotated[Path | None, typer.Option("--card", help="README.md whose table is replaced too")]

Seed = option_type(FitSettings, "seed")

Unsandboxed = option_type(RunSettings, "allow_unsandboxed")

Token = Annotated[
    str | None,
    typer.Option(envvar="HF_TOKEN", help="token with write access, for a push; by default that of `hf auth login`"),
]

Source = Annotated[str, typer.Option(help="folder with NeoCoder's files")]


def refuse_gates(value: bool | None) -> None:
    if value is not None:
        raise typer.BadParameter("is --checks now, and --no-gates is --no-checks: a gate is a part of the directions")


OldGates = Annotated[
    bool | None, typer.Option("--gates/--no-gates", hidden=True, is_eager=True, callback=refuse_gates)
]
"""The former name of `--checks`, refused."""


AnyStrength = Annotated[
    bool, typer.Option("--any-strength", help="allow strengths that were not measured too, as ITI_ANY_STRENGTH=1 does")
]


@dataclass(frozen=True)
class SteeredModel:
    """The steered model that a command loads."""

    repo: str = setting(str(ROOT), f"{REPO_HELP}; by default the bundled one", flags=("--model", "--repo"))
    revision: str | None = setting(None, "branch, tag or commit of the repo")
    placement: Placement = field(default_factory=Placement)
    trust_remote_code: bool = setting(False, "run the repo's code instead of this package's")

    @property
    def folder(self) -> str:
        """The repo's folder on this machine, "" for one on the Hub. Raises `FileNotFoundError` if it is neither."""
        return str(folder_of(self.repo) or "")

    def load(self):
        """The model and its tokenizer."""
        return load(self.repo, self.revision, self.trust_remote_code, **self.placement.kwargs)


@dataclass(frozen=True)
class Sampling:
    """How answers are written, and how long they may be."""

    max_new_tokens: int | None = setting(
        None,
        "largest number of tokens in an answer; by default those of the generation config, or 160",
        min=1,
        metavar="N",
    )
    temperature: float | None = setting(None, "sample at this temperature; greedy without it", min=0.01)
    top_p: float | None = setting(None, "for sampling: the nucleus", min=0.01, max=1)
    sample_top_k: int | None = setting(None, "for sampling: number of likeliest tokens", min=1)

    @property
    def kwargs(self) -> dict:
        """The arguments for `generate`; {} for greedy answers."""
        asked = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.sample_top_k}
        asked = {name: value for name, value in asked.items() if value is not None}
        return asked | {"do_sample": True} if asked else {}

    def room(self, model) -> int:
        """Most tokens of an answer."""
        return self.max_new_tokens or model.generation_config.max_new_tokens or 160


Repo, Revision = option_type(SteeredModel, "repo"), option_type(SteeredModel, "revision")


def one_repo(argument: str | None, option: str | None, default: str | None = None) -> str:
    """The repo, given either as an argument or as an option. Raises `ValueError` otherwise."""
    if argument is not None and option is not None:
        raise ValueError(f"the model is given twice, {argument} and --model {option}; expected one")
    repo = argument or option or default
    if repo is None:
        raise ValueError("no model: give a Hub repo or a folder")
    return repo


def ask_behaviour(behaviour: str | None, required: bool = False) -> str:
    """The behaviour in words; a terminal asks for it. "" means that there are no words.

    Raises:
        ValueError: if it is more than a line; if it is required and missing, and there is no terminal to ask.
    """
    if behaviour is None and sys.stdin.isatty() and sys.stderr.isatty():
        behaviour = typer.prompt('What does the steered model do? (as in "writes snake_case names")', err=True)
    if required and not (behaviour or "").strip():
        raise ValueError('--behaviour is missing; expected words, as in --behaviour "writes snake_case names"')
    if "\n" in (behaviour or ""):
        raise ValueError(f"--behaviour is {behaviour!r}; expected some words on one line")
    return (behaviour or "").strip()


MASKS = {"--token": "TOKEN", "--out": "DIR", "--cache": "DIR"}
"""Options with private values, and what replaces these in a record."""


def command_line() -> str:
    """The command that runs, for a record, with only the last part of paths, and nothing secret."""
    words, option = ["iti-llama"], ""
    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        if equals and name.startswith("--"):
            word, option = f"{name}={_recorded(name, value)}", ""
        elif word.startswith("--"):
            option = word
        else:
            word, option = _recorded(option, word), ""
        words.append(word)
    return shlex.join(words)


def _recorded(option: str, word: str) -> str:
    """A word as it is recorded: only the last part of a path, but a pattern of `--target` in full."""
    if option in MASKS:
        return MASKS[option]
    path, colon, function = word.rpartition(":")
    if colon and path.endswith(".py") and os.path.isabs(path):
        return f"{Path(path).name}:{function}"
    is_path = os.path.isabs(word) or word.startswith(("./", "../", "~"))
    return Path(word).name if is_path and option != "--target" else word


def load(repo: str, revision: str | None = None, trust_remote_code: bool = False, **placement: str):
    """A steered model and its tokenizer, on the device that accelerate chooses."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

    import iti_llama  # so that the Auto classes know it
    from iti_llama.configuration_iti_llama import pinned

    iti_llama.register()

    if repo == SMOLLM2:
        advice = f'`iti-llama run --instruction "..." --base {repo} --out DIR` makes one of it'
        raise ValueError(f"{repo} is a base, and not a steered repo; {advice}")
    folder_of(repo)
    kwargs = pinned(repo, {"revision": revision} if revision else {})
    model_type = PretrainedConfig.get_config_dict(repo, **kwargs)[0].get("model_type")
    if model_type != "iti_llama":
        raise ValueError(f"{repo}/config.json has model_type {model_type!r}; expected 'iti_llama', a steered repo")
    tokenizer = AutoTokenizer.from_pretrained(repo, trust_remote_code=False, **kwargs)  # a Llama's needs no code
    model = AutoModelForCausalLM.from_pretrained(
        repo, trust_remote_code=trust_remote_code, **Placement().kwargs | placement, **kwargs
    )
    return model.eval(), tokenizer


SECONDS_BETWEEN_LINES = 60
"""How often progress prints a line, if the output is not a terminal."""


@contextmanager
def progress_bar(total: int | None = None) -> Iterator[Callable[[str, int | None], None]]:
    """Inside the block, `advance(step, rows)` shows the step, the rows done of `total`, how many a second, and the
    time left. A step "NAME I of N" gets a separate bar, which moves with I. `advance.console` prints above the bars.
    If the output is not a terminal, a line a minute shows the same."""
    from time import monotonic

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class Rate(ProgressColumn):
        def render(self, task: Task):
            speed = task.finished_speed or task.speed
            return f"{speed:,.1f}/s" if speed and task.completed else ""

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    shown = Console(stderr=True, quiet=console.quiet, emoji=False)
    with Progress(*columns, console=shown, transient=True) as progress:
        task, counted = progress.add_task("loading", total=total), {}
        started = told = monotonic()

        def tell(step: str) -> None:
            nonlocal told
            now, bar = monotonic(), progress.tasks[task]
            if shown.is_terminal or now - told < SECONDS_BETWEEN_LINES:
                return
            told = now
            line = f"{step}, after {(now - started) / 60:.0f} minutes"
            if bar.total and bar.completed:
                left = (now - started) * max(0, bar.total / bar.completed - 1)
                line += f": {bar.completed:g} of {bar.total:g}, about {left / 60:.0f} minutes more"
            shown.print(line, markup=False, soft_wrap=True, highlight=False)

        def advance(step: str, rows: int | None = None) -> None:
            name, _, place = step.rpartition(" of ")
            kind, _, at = name.rpartition(" ")
            if rows is None and at.isdecimal() and place.isdecimal():
                counted.setdefault(kind, progress.add_task(kind, total=int(place)))
                progress.update(counted[kind], completed=int(at))
            else:
                progress.update(task, description=step, advance=rows or 0)
            tell(step)

        advance.console = shown
        yield advance


def numbers(text: str, kind: type, name: str, wanted: str = "numbers separated by commas") -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected {wanted}") from None
