"""`--quiet` on every command, and what Ctrl-C leaves behind."""

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .options import be_quiet


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress, no tables: only errors and --json")]

NOTHING = "nothing was written, and nothing is half written"


def _kept_fit(given: dict) -> str:
    if given.get("cache"):
        return f"activations read so far are in {given['cache']}: the same command goes on from there"
    return f"{NOTHING}; with --cache DIR the activations read so far are kept"


def _kept_answers(given: dict) -> str:
    if given.get("out"):
        return f"answers given so far are in {given['out']}: the same command goes on from there"
    return f"{NOTHING}; with --out DIR the answers given so far are kept"


def _kept_run(given: dict) -> str:
    out = Path(given["out"])
    if not out.exists() and not out.with_name(f"{out.name}.cache").exists():
        return NOTHING
    return f"what is done is in {out}: the same command goes on from there"


KEPT: dict[str, Callable[[dict], str]] = {
    "fit": _kept_fit,
    "run": _kept_run,
    "sweep": _kept_answers,
    "evaluate": _kept_answers,
    "convert": lambda given: f"{given['out']} is as it was before; run the command again",
    "export": lambda given: f"{given['out']} is as it was before; run the command again",
    "generate_samples": lambda given: (
        f"samples drawn so far are in {given['out']}: the same command goes on from there"
    ),
    "truthfulqa": lambda given: f"{given['out']} is not complete: run the command again",
    "creativity": lambda given: f"what is done is in {given['out']}: the same command goes on from there",
    "push": lambda given: "a push is one commit: unless the commit was reported, the Hub is as it was; run it again",
}
"""For each command, from its arguments: what an interruption leaves, and how to go on."""


def handle_interrupt(command: Callable) -> Callable:
    """The command with `--quiet`, and with a message instead of a traceback at Ctrl-C (exit code 130)."""
    signature = inspect.signature(command)

    @functools.wraps(command)
    def run(*args, quiet: bool = False, **kwargs):
        be_quiet(quiet)
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            given = signature.bind_partial(*args, **kwargs).arguments
            kept = KEPT.get(command.__name__, lambda given: NOTHING)(given)
            Console(stderr=True, emoji=False).print(f"interrupted: {escape(kept)}", highlight=False, soft_wrap=True)
            sys.exit(130)

    option = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])
    run.__annotations__ = command.__annotations__ | {"quiet": Quiet}
    return run
