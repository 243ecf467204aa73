"""`iti-llama reproduce`"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..foundation.files import read_text
from ..foundation.settings import Placement
from .expand_settings import expand_settings
from .options import Json, Revision, Seed, Unsandboxed, console, progress_bar, say_next


Markdown = Annotated[
    Path | None, typer.Option(help="document that gets the tables, between its marks for this command")
]

reproduce = typer.Typer(help="Repeat published results with your weights and data.", no_args_is_help=True)


@reproduce.callback()
def of_all() -> None:
    """Repeat published results."""


def check_marks(document: Path | None, name: str) -> None:
    """Raises `ValueError` unless a document has a part of this name."""
    from ..repo.replace_parts import marked_parts

    if document is not None and not marked_parts(read_text(document, "Markdown"), [name]):
        raise ValueError(f"{document}: has no part between '<!-- {name}: begin -->' and its end")


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(padding=(0, 0))
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


@reproduce.command()
@expand_settings()
def truthfulqa(
    placement: Placement,
    base: Annotated[str, typer.Option("--model", "--base", help="Hub repo or folder of a Llama")],
    data: Annotated[Path, typer.Option(help="TruthfulQA.csv, from sylinrl/TruthfulQA on GitHub")],
    out: Annotated[Path, typer.Option(help="folder for the labelled set, directions and results")],
    top_k: Annotated[int, typer.Option(min=1, help="heads")] = 48,
    alpha: Annotated[float, typer.Option(help="strength")] = 15.0,
    primer: Annotated[
        Path | None,
        typer.Option(help="text before every question (the paper: the QA prompt); by default none"),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            help="file of rows with text or prompt, for CE and KL (the paper: OpenWebText); by default the questions "
            "with their best answers"
        ),
    ] = None,
    n: Annotated[int | None, typer.Option("--n", "--limit", min=20, help="only this many questions")] = None,
    markdown: Markdown = None,
    batch_size: Annotated[int, typer.Option(min=1, help="rows of a forward pass")] = 32,
    revision: Revision = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Repeat the paper's experiment on TruthfulQA.

    Example: iti-llama reproduce truthfulqa --model smollm2 --data TruthfulQA.csv --out tqa

    In two folds by question, it measures MC1, MC2, cross-entropy and KL at the paper's point and at each fold's own
    choice, and compares them with random directions, chance and the paper's rows (Li et al. 2023).
    """
    from iti_llama.iti_directions import check_alpha

    from ..repo.card import replace_section
    from ..repo.fit_repo import load_base
    from ..repo.settings import find_base
    from ..truthfulqa.multiple_choice import read_questions
    from ..truthfulqa.reproduce_truthfulqa import (
        COLUMNS,
        OF_CATEGORY,
        by_category,
        comparison,
        document,
        read_texts,
        words,
    )
    from ..truthfulqa.reproduce_truthfulqa import reproduce as again

    check_alpha(alpha)
    check_marks(markdown, "truthfulqa")
    base = find_base(base)
    questions = read_questions(data)[:n]
    neutral = read_texts(texts) if texts else None
    before = read_text(primer, "a text") if primer else ""
    model, tokenizer = load_base(base, {"revision": revision} if revision else {}, **placement.kwargs)
    with progress_bar() as advance:
        result = again(
            model, tokenizer, questions, out, top_k=top_k, alpha=alpha, primer=before, texts=neutral, base=base,
            batch_size=batch_size, seed=seed, progress=advance,
        )  # fmt: skip
    if markdown is not None:
        replace_section(markdown, "truthfulqa", document(result, Path(base).name))
    if json_:
        print(json.dumps(result.to_dict(), indent=1))
        return
    print_table(COLUMNS, comparison(result, Path(base).name))
    console.print(words(result), highlight=False, markup=False)
    if rows := by_category(result):
        console.print("MC2 by category:")
        print_table(OF_CATEGORY, rows)
    say_next(f"a steered repo: iti-llama fit --base {base} --data {out / 'truthfulqa.jsonl'} --out REPO")


@reproduce.command()
@expand_settings()
def creativity(
    placement: Placement,
    source: Annotated[Path, typer.Option(help="folder with NeoCoder's files")],
    data: Annotated[Path, typer.Option(help="folder with the files of HumanEval and CreativeBench-Explore")],
    out: Annotated[Path, typer.Option(help="folder for the labelled set, directions, answers and results")],
    base: Annotated[str, typer.Option("--model", "--base", help="Hub repo or folder of a Llama")] = "smollm2",
    top_k: Annotated[int, typer.Option(min=1, help="heads")] = 48,
    policy: Annotated[str, typer.Option(help="where activations are read")] = "completion-mean",
    kl_budget: Annotated[
        float, typer.Option(min=1e-6, help="the strength is the one with this KL from plain, in nats a token")
    ] = 0.2,
    n: Annotated[int, typer.Option("--n", "--limit", min=1, help="tasks of each set, from the first")] = 20,
    problems: Annotated[
        int | None, typer.Option(min=1, help="only this many of NeoCoder's problems, from the first")
    ] = None,
    permutations: Annotated[int, typer.Option(min=0, help="draws of the permutation null")] = 100,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="largest number of tokens in an answer")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="rows of a forward pass")] = 40,
    markdown: Markdown = None,
    revision: Revision = None,
    allow_unsandboxed: Unsandboxed = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Test the claims of an earlier creativity steering again.

    Example: iti-llama reproduce creativity --source NEOCODER --data CODE --out creativity

    Directions are fitted on human solutions of NeoCoder that use a rare technique. Answers to the package's own tasks,
    HumanEval and CreativeBench-Explore are judged by tests and by syntax trees: plain, told in words, steered, steered
    away, and along random directions. Each earlier number is shown with how far it can be trusted.
    """
    from ..fit.settings import FitSettings
    from ..foundation.sandbox import Limits, Sandbox
    from ..neocoder.code_tasks import read_tasks
    from ..neocoder.creativity_tables import document, tables, words
    from ..neocoder.problems import load as load_neocoder
    from ..neocoder.reproduce_creativity import reproduce as again
    from ..repo.card import replace_section
    from ..repo.fit_repo import load_base
    from ..repo.settings import find_base

    check_marks(markdown, "creativity")
    tasks = read_tasks(data, n)
    neocoder = load_neocoder(source)[:problems]
    sandbox = Sandbox(Limits(seconds=6, memory=768 << 20), allow_unsandboxed=allow_unsandboxed)
    base = find_base(base)
    model, tokenizer = load_base(base, {"revision": revision} if revision else {}, **placement.kwargs)
    settings = FitSettings(top_k=top_k, permutations=permutations, seed=seed)
    with progress_bar() as advance:
        found = again(
            model, tokenizer, neocoder, tasks, out, sandbox, settings=settings, policy=policy, kl_budget=kl_budget,
            max_new_tokens=max_new_tokens, base=base, batch_size=batch_size, progress=advance,
        )  # fmt: skip
    name = Path(base).name
    if markdown is not None:
        replace_section(markdown, "creativity", document(found, name))
    if json_:
        print(json.dumps(found.to_dict(), indent=1))
        return
    for titles, rows in tables(found):
        print_table(titles, rows)
    console.print(words(found, name), highlight=False, markup=False)
    say_next(
        f"a steered repo: iti-llama fit --base {base} --data {out / 'neocoder.jsonl'} --policy {policy} --out REPO"
    )
