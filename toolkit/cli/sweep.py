"""`iti-llama sweep`"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..foundation.package import ROOT
from .options import (
    Json,
    N,
    RemoteCode,
    Repo,
    Revision,
    Seed,
    Tasks,
    Unsandboxed,
    console,
    load,
    numbers,
    progress_bar,
)


def sweep(
    repo: Repo = str(ROOT),
    tasks: Tasks = "corpus:validation",
    n: N = 100,
    alphas: Annotated[
        str, typer.Option(help="strengths, separated by commas; each is tried with both signs")
    ] = "0.25,0.5,0.75,1,1.25,1.5",
    top_ks: Annotated[
        str | None, typer.Option(help="numbers of heads, separated by commas; the repo's by default")
    ] = None,
    scopes: Annotated[str, typer.Option(help="all, generated, or both")] = "all",
    guard: Annotated[float, typer.Option(help="pass@1 that may be lost, as a share")] = 0.05,
    kl_guard: Annotated[float | None, typer.Option(help="largest mean KL, in nats a token")] = None,
    kl_budget: Annotated[
        float | None, typer.Option(help="no grid of alphas: the largest whose mean KL is this")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="rows of one batch: tasks times alphas")] = 256,
    confirm: Annotated[str | None, typer.Option(help="tasks that the choice is confirmed on, once")] = None,
    apply_: Annotated[
        bool, typer.Option("--apply", help="write the choice into the repo's config.json (a folder)")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="folder for sweep.json and figures/sweep.png")] = None,
    source: Annotated[str, typer.Option(help="folder with NeoCoder's files")] = "neocoder",
    revision: Revision = None,
    trust_remote_code: RemoteCode = False,
    allow_unsandboxed: Unsandboxed = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Answer validation tasks over a grid of alpha, K and scope; choose by a stated rule, against random
    directions."""
    from rich.markdown import Markdown

    from iti_llama.configuration_iti_llama import check_scope

    from ..foundation.files import write_text
    from ..foundation.sandbox import Sandbox
    from ..measure.choose_strength import Grid, choose_strength
    from ..measure.sweep import apply
    from ..measure.sweep_figure import sweep_figure
    from ..measure.tables import evaluation_table
    from .task_sets import task_set_of

    sandbox = Sandbox(allow_unsandboxed=allow_unsandboxed)
    grid = Grid(
        alphas=numbers(alphas, float, "--alphas"),
        top_ks=numbers(top_ks, int, "--top-ks") if top_ks else None,
        scopes=["all", "generated"] if scopes == "both" else [check_scope(scopes)],
        guard=guard,
        kl_guard=kl_guard,
        kl_budget=kl_budget,
    )
    if apply_ and not Path(repo).is_dir():
        raise ValueError(f"--apply writes a config.json, but {repo} is no folder")
    model, tokenizer = load(repo, revision, trust_remote_code)
    with progress_bar() as advance:
        chosen = task_set_of(tasks, n, seed, tokenizer, source, False, sandbox, advance)
        checked = confirm and task_set_of(confirm, 2 * n, seed, tokenizer, source, False, sandbox, advance)
    tried = 1 if kl_budget is not None else len(grid.alphas)
    rows = 3 * len(chosen) * (1 + tried * len(grid.top_ks or (0,)) * len(grid.scopes)) + 6 * len(chosen) * tried
    with progress_bar(rows) as advance:
        choice = choose_strength(
            model, tokenizer, chosen, grid, sandbox, checked or None, batch_size, seed, progress=advance
        )
    best, why = choice.best, choice.why
    found = {"tasks": chosen.name, "n": len(chosen), "seed": seed} | choice.to_dict()
    if choice.confirmed:
        rows_of = [row.to_dict() for row in choice.confirmed]
        found["confirmed"] = {"tasks": checked.name, "conditions": rows_of}
    if apply_ and not why:
        apply(repo, best, len(model.iti_directions))
    if out is not None:
        write_text(out / "sweep.json", json.dumps(found, indent=1) + "\n")
        if best is not None:
            picture = out / "figures" / "sweep.png"
            sweep_figure(choice.points, best, choice.alphas, choice.random, chosen.target, picture)
    if json_:
        print(json.dumps(found, indent=1))
        return
    titles = ("K", "scope", "alpha", "correct", chosen.target, "both", "KL", "-alpha: correct", chosen.target, "KL")
    table = Table(*titles, f"asked, -alpha: {chosen.target}", "correct")
    for point in choice.points:
        cells = [f"{100 * rate.mean:.1f}" for rate in (point.at.correct, point.at.target, point.at.both)]
        cells += [f"{point.kl:.3f}", f"{100 * point.minus.correct.mean:.1f}", f"{100 * point.minus.target.mean:.1f}"]
        cells += [f"{point.kl_minus:.3f}", f"{100 * point.against.target.mean:.1f}"]
        cells += [f"{100 * point.against.correct.mean:.1f}"]
        table.add_row(str(point.top_k), point.scope, f"{point.alpha:g}", *cells, style="bold" if point is best else "")
    console.print(table)
    if why:
        console.print(why)
        return
    applied = " (applied)" if apply_ else ""
    console.print(f"chosen: K {best.top_k}, scope {best.scope}, alpha {best.alpha:g}{applied}")
    if choice.confirmed:
        console.print(Markdown(evaluation_table(choice.confirmed, checked.target)))
