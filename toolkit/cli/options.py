"""What the commands share: options, the console, progress, loading a model. Light: nothing here imports torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


console = Console()


Repo = Annotated[str, typer.Option("--repo", help="Hub repo or folder of a steered model; the bundled one by default")]


Json = Annotated[bool, typer.Option("--json", help="print JSON instead")]


CardFile = Annotated[Path | None, typer.Option("--card", help="README.md whose table is replaced as well")]


Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of the repo")]


RemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="run the repo's own code, not this package's")]


Unsandboxed = Annotated[
    bool, typer.Option("--allow-unsandboxed", help="run generated programs without a sandbox where none can be had")
]


Seed = Annotated[int, typer.Option(help="everything that is drawn depends on it")]


def load(repo: str, revision: str | None = None, trust_remote_code: bool = False):
    """A steered model and its tokenizer, on the device that accelerate chooses."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import iti_llama  # so that the Auto classes know it

    iti_llama.register()

    kwargs = {"revision": revision} if revision else {}
    tokenizer = AutoTokenizer.from_pretrained(repo, trust_remote_code=False, **kwargs)  # a Llama's needs no code
    model = AutoModelForCausalLM.from_pretrained(
        repo, device_map="auto", dtype="auto", trust_remote_code=trust_remote_code, **kwargs
    )
    return model.eval(), tokenizer


@contextmanager
def progress_bar(total: int | None = None) -> Iterator[Callable[[str, int | None], None]]:
    """Inside the block, `advance(step, rows)` shows the step, the rows done of `total`, and the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=total)

        def advance(step: str, rows: int | None = None) -> None:
            progress.update(task, description=step, advance=rows or 0)

        yield advance


def numbers(text: str, kind: type, name: str) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected numbers separated by commas") from None


Tasks = Annotated[
    str,
    typer.Option(
        help="corpus:test, corpus:validation, neocoder:STATE, neocoder158:STATE, a JSON Lines or TruthfulQA CSV file"
    ),
]

N = Annotated[int, typer.Option(min=2, help="number of tasks; NeoCoder and files: the first so many")]
