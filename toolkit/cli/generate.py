"""`iti-llama generate`"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..foundation.package import ROOT
from .options import Json, RemoteCode, Repo, Revision, console, load


def generate(
    prompt: Annotated[str | None, typer.Option(help="the text to complete")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="read it from a file; - for standard input")] = None,
    alpha: Annotated[float | None, typer.Option(help="strength; the repo's own by default")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="show the plain completion too")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 160,
    repo: Repo = str(ROOT),
    revision: Revision = None,
    trust_remote_code: RemoteCode = False,
    json_: Json = False,
) -> None:
    """Complete a prompt, greedily."""
    from ..foundation.complete import complete

    if (prompt is None) == (prompt_file is None):
        raise ValueError("give --prompt or --prompt-file, one of them")
    if prompt is None:
        prompt = sys.stdin.read() if str(prompt_file) == "-" else prompt_file.read_text(encoding="utf-8")
    if not prompt:
        raise ValueError("the prompt is empty")
    model, tokenizer = load(repo, revision, trust_remote_code)
    if alpha is not None:
        model.iti_alpha = alpha
    alphas = [0.0, model.iti_alpha] if compare else [model.iti_alpha]
    texts = complete(model, tokenizer, [prompt] * len(alphas), alphas, max_new_tokens)
    if json_:
        rows = [{"alpha": alpha, "completion": text} for alpha, text in zip(alphas, texts, strict=True)]
        print(json.dumps({"prompt": prompt, "completions": rows}, indent=2))
        return
    for alpha, text in zip(alphas, texts, strict=True):
        if compare:
            console.rule(f"alpha {alpha:g}")
        console.print(escape(prompt) + f"[bold]{escape(text)}[/bold]", highlight=False)
