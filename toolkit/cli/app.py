"""The command `iti-llama`: a thin face over functions that a notebook can call. Nothing heavy is imported before a
command runs."""

import atexit
import gc
import logging
import os
import sys
from typing import Annotated

import typer
from rich.markup import escape

from ..foundation.package import __version__
from ..foundation.sandbox import SandboxError
from .chat import chat
from .dataset import dataset
from .demo import demo
from .evaluate import evaluate
from .explain import explain
from .export import canary, export, serve
from .fit import fit
from .from_gguf import from_gguf
from .generate import generate
from .info import info
from .interrupt import handle_interrupt
from .lm_eval import lm_eval
from .options import SafeConsole
from .publish import convert, push, verify
from .reproduce import reproduce
from .run import run
from .space import space
from .sweep import sweep


app = typer.Typer(
    name="iti-llama",
    help="Steer a Llama at inference time: from a sentence or labelled texts to a model that you can publish.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def say_version(wanted: bool) -> None:
    if wanted:
        print(f"iti-llama {__version__}")
        raise typer.Exit


@app.callback()
def of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=say_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """The options that come before a command."""


PANELS = {
    "Make a behaviour": {"run": run, "fit": fit, "sweep": sweep, "evaluate": evaluate},
    "Try it": {"demo": demo, "chat": chat, "generate": generate, "space": space},
    "Look into a repo, and publish it": {"info": info, "explain": explain, "verify": verify, "push": push},
    "Other engines": {"export": export, "canary": canary, "serve": serve},
    "Bring what you have": {"from-gguf": from_gguf, "convert": convert},
    "Research": {"lm-eval": lm_eval},
}
"""The commands by task, in the order of the help."""

for panel, commands in PANELS.items():
    for name, command in commands.items():
        passes_on = {"allow_extra_args": True, "ignore_unknown_options": True} if command is serve else {}
        app.command(name, rich_help_panel=panel, context_settings=passes_on)(command)
app.add_typer(dataset, name="dataset", rich_help_panel="Research")
app.add_typer(reproduce, name="reproduce", rich_help_panel="Research")
for group in (app, dataset, reproduce):
    for registered in group.registered_commands:
        if registered.callback is not serve:  # the server handles Ctrl-C by itself
            registered.callback = handle_interrupt(registered.callback)


def main() -> None:
    """Run the command. Bad input ends in one clear line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    atexit.register(gc.freeze)  # otherwise the exit visits every object of torch and transformers, which takes seconds
    try:
        app()
    except (ValueError, OSError, SandboxError) as error:
        of_file = isinstance(error, OSError) and error.filename and error.strerror
        said = (
            f"{error.filename}: {error.strerror}"
            if of_file
            else " ".join(line.strip() for line in str(error).splitlines())
        )
        SafeConsole(stderr=True, emoji=False).print(
            f"[red]error:[/red] {escape(said)}", highlight=False, soft_wrap=True
        )
        sys.exit(2)
