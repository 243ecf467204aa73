"""`iti-llama fit`"""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..fit.settings import METHODS, RANKINGS, RANKS, WEIGHTS, FitSettings
from .options import (
    Base,
    Behaviour,
    CardFile,
    DeviceMap,
    Dtype,
    Json,
    Seed,
    ask_behaviour,
    command_line,
    console,
    progress_bar,
    say_next,
)


def fit(
    base: Base,
    data: Annotated[
        Path, typer.Option(help="labelled set: JSON Lines of prompt (or messages), completion, label, group")
    ],
    out: Annotated[Path, typer.Option(help="folder of the steered repo to write")],
    behaviour: Behaviour = None,
    language: Annotated[str | None, typer.Option(help="of the texts, as en or code, for the card")] = None,
    hub_dataset: Annotated[str | None, typer.Option(help="name of the labelled set on the Hub, for the card")] = None,
    policy: Annotated[
        str, typer.Option(help="where activations are read: last, completion-mean or 'fraction F'")
    ] = "last",
    top_k: Annotated[str, typer.Option(help="heads to steer, or 'cv' to choose by cross-validation")] = "48",
    method: Annotated[str, typer.Option(help=", ".join(METHODS))] = "mean-difference",
    rank_by: Annotated[str, typer.Option(help=", ".join(RANKINGS))] = "auc",
    rank: Annotated[str, typer.Option(help=f"heads by what they read, or do: {', '.join(RANKS)}")] = "probe",
    weights: Annotated[str, typer.Option(help=f"of heads ranked by what they do: {', '.join(WEIGHTS)}")] = "equal",
    alpha: Annotated[
        float, typer.Option(help="strength to write into the config, in sigmas; `sweep` chooses one")
    ] = 1.0,
    scope: Annotated[str, typer.Option(help="all or generated")] = "all",
    self_contained: Annotated[bool, typer.Option("--self-contained", help="write the weights too")] = False,
    folds: Annotated[int, typer.Option(help="of the cross-validation")] = 5,
    test_share: Annotated[float, typer.Option(help="share of the groups kept for the test")] = 0.2,
    permutations: Annotated[int, typer.Option(min=0, help="draws of the null; 0 leaves it out")] = 100,
    c: Annotated[float, typer.Option("--c", help="inverse L2 strength of the probes")] = 1.0,
    balanced: Annotated[bool, typer.Option("--balanced", help="weigh classes inversely to their frequency")] = False,
    seed: Seed = 0,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the base")] = None,
    dtype: Dtype = "auto",
    device_map: DeviceMap = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    cache: Annotated[Path | None, typer.Option(help="folder for activations; a killed run goes on from there")] = None,
    base_name: Annotated[str | None, typer.Option(help="what the files call the base")] = None,
    drop_long: Annotated[
        bool, typer.Option("--drop-long", help="leave out rows that the model cannot read whole")
    ] = False,
    gate: Annotated[
        Path | None,
        typer.Option(help="labelled set of prompts to act on (1) and to leave alone (0): steers only where it should"),
    ] = None,
    gate_false_fires: Annotated[float, typer.Option(help="share of the prompts to leave alone that may pass")] = 0.05,
    gate_ramp: Annotated[bool, typer.Option("--gate-ramp", help="let strength grow with the gate's score")] = False,
    name: Annotated[
        str | None, typer.Option(help="put them into the steered repo --out, as a further behaviour of this name")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is in --out")] = False,
    card_file: CardFile = None,
    json_: Json = False,
) -> None:
    """Fit directions on a labelled set and write a steered repo."""
    from rich.markdown import Markdown

    from iti_llama import ITILlamaConfig

    from ..fit.positions import Policy
    from ..fit.report_table import gate_line, report_table
    from ..repo.card import replace_section
    from ..repo.fit_repo import Gating, fit_repo, read_for, readable

    if top_k != "cv" and not top_k.isdecimal():
        raise ValueError(f"--top-k is {top_k!r}; expected a number of heads, or cv")
    settings = FitSettings(
        method=method,
        top_k=None if top_k == "cv" else int(top_k),
        rank_by=rank_by,
        folds=folds,
        test_share=test_share,
        c=c,
        balanced=balanced,
        permutations=permutations,
        seed=seed,
        rank=rank,
        weights=weights,
    )
    ITILlamaConfig(iti_alpha=alpha, iti_scope=scope)  # refuses what is wrong
    position, left_out = Policy.parse(policy), 0
    examples = read_for(base, data, revision)
    gating = None
    if gate is not None:
        gating = Gating(read_for(base, gate, revision), gate.name, gate_false_fires, gate_ramp)
    about = {"behaviour": ask_behaviour(behaviour), "language": language, "hub_dataset": hub_dataset}
    if drop_long:
        kept = readable(examples, position, base, revision)
        left_out, examples = len(examples) - len(kept), kept
        if not json_:  # there the report says so
            console.print(
                f"{left_out} of {left_out + len(kept)} rows are longer than the model reads and are left out"
            )
    with progress_bar(len(examples)) as advance:
        found = fit_repo(
            base,
            examples,
            out,
            policy=position,
            settings=settings,
            alpha=alpha,
            scope=scope,
            self_contained=self_contained,
            overwrite=overwrite,
            revision=revision,
            dtype=dtype,
            device_map=device_map,
            batch_size=batch_size,
            cache=cache,
            base_name=base_name,
            dataset=data.name,
            left_out=left_out,
            about={key: value for key, value in about.items() if value},
            record={"command": command_line()},
            gate=gating,
            name=name,
            progress=advance,
        )
    if not found:  # a process beside the main one
        return
    if card_file is not None:
        replace_section(card_file, "fit", report_table(found))
    if json_:
        print(json.dumps(found))
        return
    console.print(Markdown(report_table(found)))
    if gating is not None:
        console.print(f"gate: {gate_line(found['gate'])}", soft_wrap=True)
    console.print(f"\nwritten to {out}", soft_wrap=True)
    further = f"iti-llama info --model {out}, which tells how far its behaviours overlap"
    say_next(f"iti-llama sweep --model {out} --apply" if name is None else further)
