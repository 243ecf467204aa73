"""`iti-llama evaluate`"""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..foundation.files import read_text, write_text
from ..foundation.package import ROOT
from ..measure.settings import MeasureSettings, TaskRequest
from .expand_settings import expand_settings
from .options import (
    CardFile,
    Json,
    OldGates,
    Source,
    SteeredModel,
    Unsandboxed,
    command_line,
    console,
    progress_bar,
    say_next,
)


@expand_settings(n=300)
def evaluate(
    steered: SteeredModel,
    request: TaskRequest,
    settings: MeasureSettings,
    gates: OldGates = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder for evaluation.json and completions.jsonl, from which a killed run resumes; the repo's own "
            "folder also renews its card"
        ),
    ] = None,
    card_file: CardFile = None,
    tables: Annotated[Path | None, typer.Option(help="document whose full tables are replaced too")] = None,
    source: Source = "neocoder",
    stronger: Annotated[
        bool, typer.Option("--stronger", help="NeoCoder: add tests by changing inputs where humans agree")
    ] = False,
    primer: Annotated[Path | None, typer.Option(help="multiple choice: text before every question")] = None,
    allow_unsandboxed: Unsandboxed = False,
    json_: Json = False,
) -> None:
    """Measure what a steering does and what it costs.

    Example: iti-llama evaluate --model REPO --checks --out REPO

    Every task is answered plain, steered, at minus alpha and along random directions, and also asked in words if the
    tasks have words for it. Rates come with 95% intervals.
    """
    from ..foundation.sandbox import LateSandbox
    from ..measure.checks import rephrase_tasks
    from ..measure.conditions import standard_conditions
    from ..measure.measure_steering import measure_steering
    from ..measure.summary import Summary, checks_table, summary_table
    from ..measure.tables import divergence_table, evaluation_table
    from ..repo.card import check_card, renew_card, replace_section, write_results
    from ..repo.replace_parts import read_card
    from .task_sets import find_tasks, name_tasks

    repo, folder = steered.repo, steered.folder
    request = replace(request, folder=folder)
    name_tasks(request, "test")  # refuses before anything is loaded
    if own := out is not None and folder and out.resolve() == Path(folder).resolve():
        check_card(out)
    if card_file is not None:
        read_card(card_file)
    model, tokenizer = steered.load()
    if request.tasks is not None and request.tasks.endswith(".csv"):
        strength = model.iti_alpha if settings.alpha is None else settings.alpha
        return choices(model, tokenizer, Path(request.tasks), request.n, strength, primer, json_)
    sandbox = LateSandbox(allow_unsandboxed=allow_unsandboxed)
    with progress_bar() as advance:
        tasks = find_tasks(request, "test", tokenizer, sandbox, advance, source, stronger)
    conditions = standard_conditions(model, settings.alpha, asked=tasks.asked is not None)
    rows = len(tasks) * settings.samples * len(conditions)
    rows += sum(2 * len(phrasing) for _, phrasing in rephrase_tasks(tasks)) if settings.checks else 0
    rows += sum(map(len, tasks.texts.values())) * sum(c.alpha != 0 and not c.asked for c in conditions)
    with progress_bar(rows) as advance:
        measured = measure_steering(
            model,
            tokenizer,
            tasks,
            sandbox,
            settings,
            completions=out and out / "completions.jsonl",
            progress=advance,
        )
    record = measured.record | {"command": command_line()}
    if out is not None:
        write_text(out / "evaluation.json", json.dumps(record, indent=1) + "\n")
        if own:
            renew_card(out)
    first = next(iter(tasks.texts))
    summary = summary_table([Summary.from_dict(row) for row in record["summary"]], tasks.target, tasks.sound)
    if card_file is not None:
        parts = (summary, record["how"], checks_table(record.get("checks", ())))
        replace_section(card_file, "evaluation", "\n\n".join(part for part in parts if part))
        write_results(card_file, record)
    if tables is not None:
        table = evaluation_table(measured.rows, tasks.target, measured.divergence[first], tasks.sound)
        replace_section(tables, "evaluation", f"{table}\n\n{divergence_table(measured.divergence)}\n\n{record['how']}")
    if json_:
        print(json.dumps(record, indent=1))
        return
    console.print(short_table(measured, tasks))
    for line in filter(None, (record["how"], tasks.note)):
        console.print(line, highlight=False, markup=False)
    for check in measured.checks:
        verdict = "[green]pass[/green]" if check.passed else "[red]fail[/red]"
        console.print(f"{check.name}: {verdict}: {escape(check.why)}", highlight=False)
    for row in measured.rows[1:]:
        wrong = f"{len(row.wrong_way)} out of the target ({len(row.wrong_way) / len(tasks):.1%} the wrong way)"
        moved = f"{len(row.lost)} tasks lost, {len(row.gained)} gained, {wrong}"
        console.print(f"{row.condition}: {moved}, against plain")
    if not folder:
        say_next(f"iti-llama export {quote(repo)} --to llama, gguf, peft or vllm, for other engines")
    elif Path(folder).resolve() == ROOT:
        say_next("make your own behaviour: iti-llama run DATA --base BASE --out REPO")
    else:
        into_repo = out is not None and out.resolve() == Path(folder).resolve()
        say_next(
            f"iti-llama push {quote(repo)} OWNER/NAME"
            if into_repo
            else f"the same with --out {quote(repo)}: its card says so, too"
        )


def short_table(measured, tasks) -> Table:
    """Every condition in a table for 80 columns; all numbers are in evaluation.json."""
    table = Table(padding=(0, 0))
    texts = next(iter(tasks.texts))
    for title in ("condition", "alpha", *([tasks.sound] if tasks.sound else []), escape(tasks.target), "KL", "n"):
        table.add_column(title, overflow="fold")
    for row in measured.rows:
        moved = measured.divergence[texts].get(row.condition)
        cells = [row.condition, f"{row.alpha:g}", *([row.correct.percent()] if tasks.sound else [])]
        table.add_row(*cells, row.target.percent(), f"{moved.kl.mean:.3f}" if moved else "", str(row.correct.n))
    return table


def short_summary(record: dict) -> Table:
    """The four rows that the card shows."""
    from ..measure.summary import Summary

    table, sound = Table(padding=(0, 0)), record["sound"]
    rows = list(map(Summary.from_dict, record["summary"]))
    odds = ["log-odds, change"] if rows[0].odds_change else []
    for title in ("", "alpha", *([sound] if sound else []), escape(record["target"]), *odds, "KL", "n"):
        table.add_column(title, overflow="fold")
    for row in rows:
        cells = [row.name, f"{row.alpha:g}", *([row.sound.percent()] if sound else []), row.target.percent()]
        cells += [row.odds_change.plain() if row.name != "plain" else ""] if odds else []
        table.add_row(*cells, "" if row.kl is None else f"{row.kl:.3f}", str(row.target.n))
    return table


def choices(model, tokenizer, path: Path, n: int, alpha: float, primer: Path | None, json_: bool) -> None:
    """MC1 and MC2 of a TruthfulQA CSV at alpha 0, alpha and minus alpha."""
    from ..truthfulqa.multiple_choice import multiple_choice, read_questions

    questions = read_questions(path)[:n]
    text = read_text(primer, "a text") if primer else ""
    with progress_bar(len(questions)) as advance:
        ask = partial(advance, "questions")
        scores = multiple_choice(model, tokenizer, questions, [alpha, -alpha], text, ask)
    if json_:
        print(
            json.dumps({"tasks": str(path), "n": len(questions), "choices": [asdict(row) for row in scores]}, indent=1)
        )
        return
    table = Table(padding=(0, 0))
    for title in ("alpha", "MC1", "change, points", "MC2", "change, points", "n"):
        table.add_column(title, overflow="fold")
    for row in scores:
        change = (row.mc1_change.points(), row.mc2_change.points()) if row is not scores[0] else ("", "")
        table.add_row(f"{row.alpha:g}", row.mc1.percent(), change[0], row.mc2.percent(), change[1], str(row.mc1.n))
    console.print(table)
