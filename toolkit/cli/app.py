"""The command `iti-llama`: a thin face over functions that a notebook can call. Nothing heavy is imported before a
command runs."""

import logging
import os
import sys

import typer
from rich.console import Console
from rich.markup import escape

from ..foundation.sandbox import SandboxError
from .dataset import dataset
from .demo import demo
from .evaluate import evaluate
from .fit import fit
from .generate import generate
from .info import info
from .publish import convert, push, verify
from .run import run
from .sweep import sweep


app = typer.Typer(
    name="iti-llama",
    help="A Llama steered at inference time: use it, look into it, make directions, measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.add_typer(dataset, name="dataset")
for command in (run, demo, generate, info, fit, sweep, evaluate, convert, push, verify):
    app.command()(command)


def main() -> None:
    """Run the command. Bad input ends in one clear line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except (ValueError, OSError, SandboxError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
