"""`iti-llama evaluate`"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..foundation.package import ROOT
from .options import (
    CardFile,
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
    progress_bar,
)


def evaluate(
    repo: Repo = str(ROOT),
    tasks: Tasks = "corpus:test",
    n: N = 300,
    samples: Annotated[int, typer.Option(min=1, help="of each task; 1 is greedy")] = 1,
    temperature: Annotated[float, typer.Option(min=0.01, help="for more than one sample")] = 1.0,
    alpha: Annotated[float | None, typer.Option(help="strength; the repo's own by default")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for evaluation.json and completions.jsonl; a killed run goes on")
    ] = None,
    card_file: CardFile = None,
    tables: Annotated[Path | None, typer.Option(help="document whose full tables are replaced as well")] = None,
    source: Annotated[str, typer.Option(help="folder with NeoCoder's files")] = "neocoder",
    stronger: Annotated[
        bool, typer.Option("--stronger", help="NeoCoder: add tests by changing inputs where humans agree")
    ] = False,
    primer: Annotated[Path | None, typer.Option(help="multiple choice: text before every question")] = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = False,
    allow_unsandboxed: Unsandboxed = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Run tasks plain, steered, at minus alpha, along random directions and asked in words; print rates with
    intervals."""
    from rich.markdown import Markdown

    from iti_llama.configuration_iti_llama import check_alpha

    from ..foundation.files import write_text
    from ..foundation.sandbox import Sandbox
    from ..measure.conditions import standard_conditions
    from ..measure.evaluate import divergence_of, settings_of
    from ..measure.evaluate import evaluate as measure_all
    from ..measure.saved_completions import SavedCompletions
    from ..measure.tables import divergence_table, evaluation_table, summary_table
    from ..repo.card import replace_section, write_results
    from .task_sets import task_set_of

    model, tokenizer = load(repo, revision, trust_remote_code)
    if tasks.endswith(".csv"):
        strength = model.iti_alpha if alpha is None else check_alpha(alpha)
        return choices(model, tokenizer, Path(tasks), n, strength, primer, json_)
    sandbox = Sandbox(allow_unsandboxed=allow_unsandboxed)
    with progress_bar() as advance:
        chosen = task_set_of(tasks, n, seed, tokenizer, source, stronger, sandbox, advance)
    conditions = standard_conditions(model, alpha)
    settings = settings_of(model, chosen, conditions[1].alpha, samples, temperature, seed)
    store = SavedCompletions(out and out / "completions.jsonl", settings)
    with progress_bar(len(chosen) * samples * len(conditions)) as advance:
        rows, answers = measure_all(
            model, tokenizer, chosen, conditions, sandbox, samples, temperature, store, seed, progress=advance
        )
    steering = sum(c.alpha != 0 and not c.asked for c in conditions)
    with progress_bar(sum(map(len, chosen.texts.values())) * steering) as advance:
        divergence = {
            name: divergence_of(model, tokenizer, own, conditions, partial(advance, f"divergence to {name}"))
            for name, own in chosen.texts.items()
        }
    found = settings | {"target": chosen.target, "conditions": [row.to_dict() for row in rows]}
    found["divergence"] = {name: {c: d.to_dict() for c, d in own.items()} for name, own in divergence.items()}
    if out is not None:
        write_text(out / "evaluation.json", json.dumps(found, indent=1) + "\n")
    first = next(iter(chosen.texts))
    table = f"{evaluation_table(rows, chosen.target, divergence[first])}\n\n{divergence_table(divergence)}"
    how = "greedy" if samples == 1 else f"{samples} samples a task at temperature {temperature:g}"
    asked = (
        f"{chosen.name}, {len(chosen)} tasks (seed {seed}), {how}, {settings['heads']} heads, scope {model.iti_scope}"
    )
    note = f"{asked}. In brackets 95% intervals, bootstrapped by problem; KL on {first}."
    if card_file is not None:
        replace_section(
            card_file, "evaluation", f"{summary_table(rows, answers, chosen, divergence[first])}\n\n{note}"
        )
        write_results(card_file, chosen.name, chosen.target, rows)
    if tables is not None:
        replace_section(tables, "evaluation", f"{table}\n\n{note}")
    if json_:
        print(json.dumps(found, indent=1))
    else:
        console.print(Markdown(table))
        for row in rows[1:]:
            moved = f"{len(row.lost)} tasks lost, {len(row.gained)} gained, {len(row.wrong_way)} out of the target"
            console.print(f"{row.condition}: {moved}, against plain")


def choices(model, tokenizer, path: Path, n: int, alpha: float, primer: Path | None, json_: bool) -> None:
    """MC1 and MC2 of a TruthfulQA CSV at alpha 0, alpha and minus alpha."""
    from ..measure.multiple_choice import multiple_choice, read_questions

    questions = read_questions(path)[:n]
    text = primer.read_text(encoding="utf-8") if primer else ""
    with progress_bar(len(questions)) as advance:
        ask = partial(advance, "questions")
        found = multiple_choice(model, tokenizer, questions, [alpha, -alpha], text, ask)
    if json_:
        print(
            json.dumps({"tasks": str(path), "n": len(questions), "choices": [asdict(one) for one in found]}, indent=1)
        )
        return
    table = Table("alpha", "MC1", "change, points", "MC2", "change, points", "n")
    for one in found:
        change = (one.mc1_change.points(), one.mc2_change.points()) if one is not found[0] else ("", "")
        table.add_row(f"{one.alpha:g}", one.mc1.percent(), change[0], one.mc2.percent(), change[1], str(one.mc1.n))
    console.print(table)
