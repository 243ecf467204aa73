"""`iti-llama lm-eval`"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..foundation.package import ROOT
from ..foundation.settings import Placement
from .expand_settings import expand_settings
from .options import Json, Repo, Revision, console, numbers, say_next


@expand_settings()
def lm_eval(
    placement: Placement,
    repo: Repo = str(ROOT),
    tasks: Annotated[str, typer.Option(help="tasks of lm-evaluation-harness, separated by commas")] = "",
    alphas: Annotated[
        str | None, typer.Option(help="strengths, separated by commas; by default 0 and the repo's")
    ] = None,
    include_path: Annotated[Path | None, typer.Option(help="folder with your own tasks")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="examples before each question; by default the task's number")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--n", "--limit", min=1, help="only this many questions of each task, from the first")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="rows of a forward pass")] = 16,
    out: Annotated[Path | None, typer.Option(help="JSON file for everything that the harness reports")] = None,
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """Run lm-evaluation-harness at several strengths.

    Example: iti-llama lm-eval --model REPO --tasks truthfulqa_mc1 --alphas 0,0.5,1

    Needs `pip install lm_eval`. Likelihoods are shifted from the answer's first token on.
    """
    from ..foundation.files import folder_of, write_text

    if not tasks:
        raise ValueError("--tasks is missing; expected names of tasks, as in --tasks truthfulqa_mc1,truthfulqa_mc2")
    folder_of(repo)
    try:
        from ..measure.harness import ITILlamaLM, evaluate_at
    except ImportError as error:
        raise ValueError(f"lm-evaluation-harness cannot be loaded ({error}); pip install lm_eval") from None

    lm = ITILlamaLM(repo, revision=revision, **placement.kwargs, batch_size=batch_size)
    strengths = [0.0, lm.model.iti_alpha] if alphas is None else numbers(alphas, float, "--alphas")
    try:
        results = evaluate_at(
            lm, tasks.split(","), strengths, include_path and str(include_path), num_fewshot=num_fewshot, limit=limit
        )
    except KeyError as error:
        raise ValueError(f"--tasks {tasks}: the harness does not know it: {error.args[0]}") from error
    record = {
        "tasks": tasks,
        "limit": limit,
        "num_fewshot": num_fewshot,
        "results": {f"{a:g}": r for a, r in results.items()},
    }
    if out is not None:
        write_text(out, json.dumps(record, indent=1, default=str) + "\n")
    if json_:
        print(json.dumps(record, indent=1, default=str))
        return
    table = Table(padding=(0, 0))
    for title in ("task", "metric", *(f"alpha {alpha:g}" for alpha in results)):
        table.add_column(title, overflow="fold")
    first = next(iter(results.values()))
    for task, metrics in first.items():
        for key in (key for key, value in metrics.items() if isinstance(value, float) and "_stderr" not in key):
            name, _, kind = key.partition(",")
            table.add_row(
                task,
                name,
                *(with_error(of_alpha[task], key, f"{name}_stderr,{kind}") for of_alpha in results.values()),
            )
    console.print(table)
    if out is None:
        say_next("the same with --out FILE.json, which keeps everything that the harness reports")


def with_error(results: dict, key: str, error: str) -> str:
    """A metric and its standard error, which the harness does not have for every metric."""
    spread = results.get(error)
    return f"{results[key]:.4f} ± {spread:.4f}" if isinstance(spread, float) else f"{results[key]:.4f}"
