"""`iti-llama run`"""

import json
from dataclasses import replace
from shlex import quote
from typing import Annotated

import typer
from rich.table import Table

from ..instruct.settings import Instruction
from ..repo.settings import RunSettings
from .evaluate import short_summary
from .expand_settings import expand_settings
from .options import Json, OldGates, Token, ask_behaviour, command_line, console, progress_bar


@expand_settings(data=None)
def run(
    context: typer.Context,
    settings: RunSettings,
    wanted: Instruction,
    name: Annotated[
        str | None,
        typer.Option(
            help="with --instruction: add the sentence to the finished repo --out, as a second behaviour of this name"
        ),
    ] = None,
    push: Annotated[str | None, typer.Option(help="Hub repo to push to at the end")] = None,
    private: Annotated[bool, typer.Option("--private", help="make a new Hub repo private")] = False,
    token: Token = None,
    gates: OldGates = None,
    json_: Json = False,
) -> None:
    """Make a steered model from a sentence or labelled texts.

    Example: iti-llama run --instruction "Answer in one short sentence." --base smollm2 --out brief

    Example: iti-llama run labels.jsonl --base smollm2 --behaviour "answers briefly" --out brief

    Fits directions, chooses a strength on data that they were not fitted on, measures it once on other data, and
    writes a repo with its card. A killed run resumes where it stopped. With --name a sentence is added to a repo that
    was made from one; the card then has a row for each alone and for both.
    """
    from ..instruct.add_instruction import add_instruction
    from ..instruct.run_instruction import run_instruction
    from ..repo.folder import only_run
    from ..repo.push import check_push
    from ..repo.push import push as push_folder
    from ..repo.run_pipeline import run as run_pipeline

    if push is not None:
        check_push(push, settings.base, settings.self_contained, token)
    if wanted.instruction is None:
        if name is not None:
            raise ValueError("--name is given without --instruction; expected both, or `iti-llama fit --name`")
        if settings.data is None:
            raise ValueError('no data; expected a labelled file, or --instruction "..."')
        settings = replace(settings, behaviour=ask_behaviour(settings.behaviour, required=True))
    else:
        refuse_unused(context)

    def say(line: str) -> None:
        if not json_:
            console.print(line, highlight=False, soft_wrap=True, markup=False)

    with only_run(settings.out):
        if wanted.instruction is None:
            result = run_pipeline(settings, progress_bar, say, command_line())
        elif name is not None:
            result = add_instruction(settings, wanted, name, progress_bar, say, command_line())
        else:
            result = run_instruction(settings, wanted, progress_bar, say, command_line())
    if json_:
        print(json.dumps({"sweep": result.sweep, "evaluation": result.evaluation}, indent=1))
    elif name is not None and "together" in result.evaluation:
        console.print(short_together(result.evaluation["together"]))
        say(f"the repo with its card: {settings.out}")
    else:
        console.print(short_summary(result.evaluation))
        for check in result.evaluation.get("checks", ()):
            say(f"{check['name']}: {'pass' if check['passed'] else 'FAIL'}: {check['why']}")
        say(f"the repo with its card: {settings.out}")
    if push is None:
        out = quote(str(settings.out))
        say(f"next: iti-llama push {out} OWNER/NAME, or look at it: iti-llama space --repo {out}")
        return
    pushed = push_folder(settings.out, push, private=private, token=token)
    say(f"{pushed.repo} at {pushed.commit}: {len(pushed.files)} files")


def short_together(together: dict) -> Table:
    """A row for each of two behaviours alone and for both."""
    from ..repo.kept_line import together_cells

    heads, *rows = together_cells(together)
    table = Table(title=f"n = {together['n']}", title_justify="left", padding=(0, 0))
    for title in heads:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


UNUSED = ("data", "tasks", "header", "kl_guard", "policy", "top_k", "test_share", "hub_dataset")
"""Settings of a labelled file that do not apply to a sentence: there their values are chosen or made."""


def refuse_unused(context: typer.Context) -> None:
    """Raises `ValueError`, naming the option, if one is given that --instruction does not use."""
    given = [name for name in UNUSED if context.get_parameter_source(name).name == "COMMANDLINE"]
    if given:
        option = "a labelled file" if given[0] == "data" else f"--{given[0].replace('_', '-')}"
        raise ValueError(f"{option} is given with --instruction, which does not use it; expected one of the two")
