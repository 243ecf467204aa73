"""`iti-llama reproduce`"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..foundation.files import read_text
from ..foundation.settings import Placement
from .expand_settings import expand_settings
from .options import Json, Revision, Seed, console, progress_bar, say_next


reproduce = typer.Typer(help="Repeat published results with your weights and data.", no_args_is_help=True)


@reproduce.callback()
def of_all() -> None:
    """Repeat published results."""


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

    from ..repo.fit_repo import load_base
    from ..repo.settings import find_base
    from ..truthfulqa.multiple_choice import read_questions
    from ..truthfulqa.reproduce_truthfulqa import comparison, read_texts
    from ..truthfulqa.reproduce_truthfulqa import reproduce as again

    check_alpha(alpha)
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
    if json_:
        print(json.dumps(result.to_dict(), indent=1))
        return
    table = Table(padding=(0, 0))
    for title in ("", "MC1", "MC2", "change", "CE", "KL"):
        table.add_column(title, overflow="fold")
    for row in comparison(result, Path(base).name):
        table.add_row(*map(escape, row))
    console.print(table)
    best = ", ".join(f"{fold.accuracy:.1%}" for fold in result.folds)
    console.print(
        f"{result.questions} questions, {result.top_k} heads, alpha {result.alpha:g}; in brackets 95% intervals, "
        f"bootstrapped by question. Accuracy of the best head's probe in each fold: {best} (the paper's: 83.3%). "
        f"CE and KL of each fold on {result.texts}.",
        highlight=False,
        markup=False,
    )
    say_next(f"a steered repo: iti-llama fit --base {base} --data {out / 'truthfulqa.jsonl'} --out REPO")
