"""`iti-llama fit`"""

import json
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from ..fit.settings import FALSE_FIRES
from ..repo.settings import Gating, RepoSettings, RunSettings
from .expand_settings import expand_settings, option_type
from .options import CardFile, Json, ask_behaviour, command_line, console, progress_bar, say_next


@expand_settings()
def fit(
    settings: RepoSettings,
    data: Annotated[
        Path,
        typer.Option(help="labelled set: JSON Lines, a JSON list or CSV of prompts with completions, or with pairs"),
    ],
    out: Annotated[Path, typer.Option(help="folder of the steered repo to write")],
    mapping: option_type(RunSettings, "mapping") = None,
    raw: option_type(RunSettings, "raw") = False,
    system: option_type(RunSettings, "system") = None,
    drop_long: Annotated[
        bool, typer.Option("--drop-long", help="leave out rows that the model cannot read whole")
    ] = False,
    gate: Annotated[
        Path | None,
        typer.Option(help="labelled set of prompts to act on (1) and to leave alone (0): steers only where it should"),
    ] = None,
    gate_false_fires: Annotated[
        float, typer.Option(help="share of the prompts to leave alone that the gate may let through")
    ] = FALSE_FIRES,
    name: Annotated[
        str | None, typer.Option(help="add the directions to the steered repo --out, as a behaviour of this name")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is in --out")] = False,
    card_file: CardFile = None,
    json_: Json = False,
) -> None:
    """Fit directions on labelled texts.

    Example: iti-llama fit --base smollm2 --data labels.jsonl --out REPO

    Writes a steered repo with report, figures and card. `iti-llama run` also chooses a strength and measures it.
    """
    from rich.markdown import Markdown

    from ..fit.report_table import gate_line, report_table
    from ..repo import fit_repo as fitting
    from ..repo.card import replace_section

    examples = fitting.read_for(settings.base, data, settings.revision, mapping, raw, system)
    if not json_:
        console.print(f"{data}: {examples.understood}", highlight=False, soft_wrap=True, markup=False)
    gating = None
    if gate is not None:
        to_act_on = fitting.read_for(settings.base, gate, settings.revision, raw=raw, system=system)
        gating = Gating(to_act_on, gate.name, gate_false_fires)
    settings, rows = replace(settings, behaviour=ask_behaviour(settings.behaviour)), len(examples)
    if drop_long:
        examples = fitting.drop_long(settings, examples)
        if not json_:  # the JSON has it in the report
            console.print(f"{rows - len(examples)} of {rows} rows are longer than the model reads and are left out")
    with progress_bar(len(examples)) as advance:
        report = fitting.fit_repo(
            settings,
            examples,
            out,
            overwrite=overwrite,
            dataset=data.name,
            left_out=rows - len(examples),
            record={"command": command_line()},
            gate=gating,
            name=name,
            progress=advance,
        )
    if not report:  # a process beside the main one
        return
    fitted = f"{report_table(report)}\n\n{report['verdict']}"
    if card_file is not None:
        replace_section(card_file, "fit", fitted)
    if json_:
        print(json.dumps(report))
        return
    console.print(Markdown(fitted))
    if gating is not None:
        console.print(f"gate: {gate_line(report['gate'])}", soft_wrap=True)
    console.print(f"\nwritten to {out}", soft_wrap=True)
    further = f"iti-llama info --model {out}, which shows how far its behaviours overlap"
    say_next(f"iti-llama sweep --model {quote(str(out))} --apply" if name is None else further)
