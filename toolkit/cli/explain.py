"""`iti-llama explain`"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..foundation.package import ROOT
from ..foundation.settings import Placement
from .expand_settings import expand_settings
from .options import Json, RepoArgument, RepoOption, Revision, console, load, one_repo, progress_bar, say_next


@expand_settings()
def explain(
    placement: Placement,
    repo: RepoArgument = None,
    model: RepoOption = None,
    revision: Revision = None,
    alpha: Annotated[float | None, typer.Option(help="strength; by default the repo's")] = None,
    beside: Annotated[
        list[str] | None, typer.Option(help="another steered repo with the same geometry, to compare with; repeatable")
    ] = None,
    json_: Json = False,
) -> None:
    """Measure what the directions of a repo do.

    Example: iti-llama explain me/brief-llama

    Prints the tokens that rise and fall, overall and by layer, answers plain and steered, and the cosine with the
    directions that are installed for the same base. --beside compares with another repo.
    """
    from ..instruct.explain_repo import ANSWERED, ASKED, explain_repo, shipped_beside
    from ..repo.steered_repo import SteeredRepo

    name = one_repo(repo, model)
    others = [SteeredRepo.open(other, framework="pt") for other in beside or ()]
    steered, tokenizer = load(name, revision, **placement.kwargs)
    if alpha is not None:
        steered.iti_alpha = alpha
    shipped = shipped_beside(steered, name)
    named = {other.folder.resolve() for other in others}
    others += [other for other in shipped if other.folder.resolve() not in named]
    with progress_bar(2 * ASKED + ANSWERED) as advance:
        told = explain_repo(steered, tokenizer, others, advance)
    if json_:
        print(json.dumps(told.to_dict(), indent=1))
        return
    title = f"mean probability as the next token, along plain answers to {told.n} requests, at alpha {told.alpha:g}"
    table = Table(title=title, title_justify="left", padding=(0, 1, 0, 0))
    for column in ("rises", "plain", "steered", "falls", "plain", "steered"):
        table.add_column(column, justify="left" if column in ("rises", "falls") else "right")
    for rise, fall in zip(told.rises, told.falls, strict=True):
        cells = [
            cell
            for one in (rise, fall)
            for cell in (escape(repr(one.token)), f"{one.plain:.4f}", f"{one.steered:.4f}")
        ]
        table.add_row(*cells)
    console.print(table)
    for row in told.layers:
        rises, falls = (" ".join(map(repr, tokens)) for tokens in (row.rises, row.falls))
        console.print(f"layer {row.layer}: up {rises}; down {falls}", markup=False, highlight=False, soft_wrap=True)
    for answer in told.answers:
        console.print(f"\n{answer['prompt']}", style="bold", markup=False, highlight=False)
        for kind in ("plain", "steered"):
            console.print(f"{kind}: {answer[kind].strip()}", markup=False, highlight=False, soft_wrap=True)
    for other, cosines in told.resembles.items():
        by_layer = ", ".join(f"layer {layer}: {cosine:+.2f}" for layer, cosine in cosines.items())
        label = "the bundled model" if Path(other).resolve() == ROOT else Path(other).name
        console.print(
            f"\n{label}: cosine of the shifts, {by_layer or 'no layer in common'}",
            markup=False,
            soft_wrap=True,
        )
    if not shipped:
        base = steered.iti_directions.base_model or "unknown"
        why = f"base {base}: this installation holds no other directions for it to compare with"
        console.print(f"\n{why}", markup=False, highlight=False, soft_wrap=True)
    if Path(name).resolve() != ROOT:
        say_next(f"iti-llama verify {name} says what code would run, iti-llama info {name} what is in it")
