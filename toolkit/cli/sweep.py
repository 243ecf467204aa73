"""`iti-llama sweep`"""

import json
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..measure.settings import SWEEP_BATCH, Grid, TaskRequest
from .expand_settings import expand_settings
from .options import Json, Source, SteeredModel, Unsandboxed, command_line, console, progress_bar, say_next


@expand_settings(n=100)
def sweep(
    steered: SteeredModel,
    request: TaskRequest,
    grid: Grid,
    batch_size: Annotated[int, typer.Option(min=1, help="rows of one batch: tasks times alphas")] = SWEEP_BATCH,
    confirm: Annotated[str | None, typer.Option(help="tasks on which the choice is confirmed, once")] = None,
    apply_: Annotated[
        bool,
        typer.Option("--apply", help="write the choice into config.json and card of the repo, which must be a folder"),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="folder for sweep.json and figures/sweep.png, from which a killed run resumes")
    ] = None,
    source: Source = "neocoder",
    allow_unsandboxed: Unsandboxed = False,
    json_: Json = False,
) -> None:
    """Choose a strength on validation tasks.

    Example: iti-llama sweep --model REPO --apply

    The tasks are answered at every strength of a grid (and for every K and scope, if you give several). The best point
    inside the guards is chosen if it beats random directions of equal norm. With --kl-budget the divergence chooses.
    """
    from ..foundation.sandbox import LateSandbox
    from ..measure.sweep import count_answers
    from ..repo.sweep_repo import sweep_model
    from .task_sets import find_tasks, name_tasks

    sandbox, folder = LateSandbox(allow_unsandboxed=allow_unsandboxed), steered.folder
    if apply_ and not folder:
        raise ValueError(f"--apply writes a config.json, but {steered.repo} is not a folder")
    request = replace(request, folder=folder, texts_alone=grid.kl_budget is not None and request.target is None)
    name_tasks(request, "validation")  # refuses before anything is loaded
    model, tokenizer = steered.load()
    with progress_bar() as advance:
        tasks = find_tasks(request, "validation", tokenizer, sandbox, advance, source)
        others = confirm and replace(request, tasks=confirm, n=2 * request.n)
        others = others and find_tasks(others, "test", tokenizer, sandbox, advance, source)
    budget_alone = grid.kl_budget is not None and request.target is None and tasks.sound != "correct"
    with progress_bar(count_answers(len(tasks), tasks.asked is not None, grid)) as advance:
        record, choice = sweep_model(
            model,
            tokenizer,
            tasks,
            grid,
            sandbox,
            budget_alone=budget_alone,
            confirm=others or None,
            out=out,
            apply_to=Path(folder) if apply_ else None,
            batch_size=batch_size,
            seed=request.seed,
            command=command_line(),
            progress=advance,
            told=lambda points: advance.console.print(sweep_plot(points, tasks.target, tasks.sound)),
        )
    if json_:
        print(json.dumps(record, indent=1))
        return
    applied = f" (applied to {steered.repo})" if apply_ else ""
    if budget_alone:
        console.print(
            f"alpha {choice.alpha:g}, {choice.top_k} heads, scope {choice.scope}: the largest inside a KL of "
            f"{choice.budget:g} nats a token on {choice.n} texts{applied}. This is a budget, not an effect: it does "
            "not show that the steering does anything.",
            highlight=False,
            markup=False,
        )
        say_next(f"iti-llama evaluate --repo {quote(steered.repo)} --target ..." if apply_ else AGAIN)
        return
    console.print(sweep_table(choice, tasks))
    if choice.why:
        console.print(choice.why, markup=False)
        say_next("the same with other --alphas, or fit again: more groups, another --policy or --top-k")
        return
    best = choice.best
    choice_line = f"chosen: K {best.top_k}, scope {best.scope}, alpha {best.alpha:g}{applied}"
    console.print(choice_line, soft_wrap=True, markup=False)
    if choice.confirmed:
        console.print(confirmed_table(choice.confirmed, others))
    say_next(f"iti-llama evaluate --repo {steered.repo} --checks --out {steered.repo}" if apply_ else AGAIN)


AGAIN = "the same command with --apply writes the choice into the repo"

PLOT_WIDTH = 30


def sweep_plot(points, target: str, sound: str) -> Table:
    """The points of one K and scope as bars: the share in the target, and next to it the loss."""
    title = f"{points[-1].top_k} heads, scope {points[-1].scope}: {escape(target)}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("alpha", "", "", *([sound] if sound else []), "KL"):
        table.add_column(column, justify="left" if column == "" else "right", no_wrap=True)
    for point in points:
        share = point.at.target.mean
        bar = "\N{FULL BLOCK}" * round(PLOT_WIDTH * share)
        cells = [f"{point.alpha:g}", f"{bar:<{PLOT_WIDTH}}", f"{share:.1%}"]
        cells += [f"{point.at.correct.mean:.1%}"] if sound else []
        table.add_row(*cells, f"{point.kl:.3f}")
    return table


def confirmed_table(rows, tasks) -> Table:
    """The choice and plain on other tasks."""
    table = Table(title=f"confirmed on {escape(tasks.name)}", title_justify="left", padding=(0, 0))
    for title in ("", "alpha", *([tasks.sound] if tasks.sound else []), escape(tasks.target), "change, points", "n"):
        table.add_column(title, overflow="fold")
    for row in rows:
        change = "" if row is rows[0] else row.target_change.points()
        cells = [row.condition, f"{row.alpha:g}", *([row.correct.percent()] if tasks.sound else [])]
        table.add_row(*cells, row.target.percent(), change, str(row.correct.n))
    return table


def sweep_table(choice, tasks) -> Table:
    """The points of a sweep in a table for 80 columns; all numbers are in sweep.json."""
    title = f"{escape(tasks.target)}; n = {len(tasks)}; -a: at minus alpha; ppl: perplexity, times plain's"
    table = Table(title=title, title_justify="left", padding=(0, 0))
    sound = [tasks.sound] if tasks.sound else []
    odds = ["log-odds"] if choice.points[0].at.odds else []
    for title in ("K", "scope", "alpha", *sound, "target", *odds, "KL", "ppl", "target -a", "KL -a"):
        table.add_column(title, justify="right", overflow="fold")
    if tasks.asked is not None:
        table.add_column("asked -a", justify="right", overflow="fold")
    for point in choice.points:
        cells = [str(point.top_k), point.scope, f"{point.alpha:g}"]
        cells += [f"{100 * point.at.correct.mean:.1f}"] if tasks.sound else []
        cells += [f"{100 * point.at.target.mean:.1f}", *([f"{point.at.odds.mean:+.1f}"] if odds else [])]
        cells += [f"{point.kl:.3f}", f"{point.perplexity:.2f}"]
        cells += [f"{100 * point.minus.target.mean:.1f}", f"{point.kl_minus:.3f}"]
        cells += [f"{100 * point.against.target.mean:.1f}"] if point.against is not None else []
        table.add_row(*cells, style="bold" if point is choice.best and not choice.why else "")
    return table
