"""The command `iti-llama`: a thin face over functions that a notebook can call."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from .bundled import ROOT, demo_tasks
from .completion import complete, function_body
from .grading import grade
from .inspection import inspect
from .sandbox import Sandbox, SandboxError


app = typer.Typer(
    name="iti-llama",
    help="A Llama steered at inference time: use it, look into it, make directions, measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Repo = Annotated[str, typer.Option("--repo", help="Hub repo or folder of a steered model; the bundled one by default")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead")]
Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of the repo")]
RemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="run the repo's own code, not this package's")]
Unsandboxed = Annotated[
    bool, typer.Option("--allow-unsandboxed", help="run generated programs without a sandbox where none can be had")
]


def load(repo: str, revision: str | None = None, trust_remote_code: bool = False):
    """A steered model and its tokenizer, on the device that accelerate chooses."""
    kwargs = {"revision": revision} if revision else {}
    kwargs["trust_remote_code"] = trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(repo, **kwargs)
    model = AutoModelForCausalLM.from_pretrained(repo, device_map="auto", dtype="auto", **kwargs)
    return model.eval(), tokenizer


@app.command()
def demo(json_: Json = False, allow_unsandboxed: Unsandboxed = False) -> None:
    """Answer three prompts with the bundled model, plain and steered, and run the answers' tests."""
    sandbox = Sandbox(allow_unsandboxed=allow_unsandboxed)
    model, tokenizer = load(str(ROOT), trust_remote_code=True)
    origins, tasks = zip(*demo_tasks(), strict=True)
    answers = {}
    for name, alpha in (("plain", 0.0), ("steered", model.iti_alpha)):
        completions = complete(model, tokenizer, [task.prompt for task in tasks], [alpha] * len(tasks))
        answers[name] = list(zip(completions, grade(tasks, completions, sandbox), strict=True))
    if json_:
        rows = [
            {"prompt": task.prompt, "origin": origin, "alpha": model.iti_alpha}
            | {
                name: {"completion": texts[i][0], "style": texts[i][1].style, "correct": texts[i][1].correct}
                for name, texts in answers.items()
            }
            for i, (origin, task) in enumerate(zip(origins, tasks, strict=True))
        ]
        print(json.dumps(rows, indent=2))
        return
    heads = f"{len(model.iti_directions.top(model.iti_top_k))} heads"
    console.print(f"\n[bold]{escape(str(model.name_or_path))}[/bold]: {heads}, alpha {model.iti_alpha:g}, scope {model.iti_scope}\n")
    for i, (origin, task) in enumerate(zip(origins, tasks, strict=True)):
        table = Table(title=f"{task.docstring} ({origin}; {len(task.tests)} tests)", title_justify="left", expand=True)
        cells = []
        for name, alpha in (("plain", 0.0), ("steered", model.iti_alpha)):
            text, verdict = answers[name][i]
            passed = "[green]passes its tests[/green]" if verdict.correct else "[red]fails its tests[/red]"
            table.add_column(f"{name}, alpha {alpha:g}: {verdict.style}, {passed}", ratio=1)
            cells.append(Syntax(task.program(function_body(text)), "python", word_wrap=True, background_color="default"))
        table.add_row(*cells)
        console.print(table)


@app.command()
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


@app.command()
def info(
    repo: Annotated[str, typer.Argument(help="Hub repo or folder; the bundled model by default")] = str(ROOT),
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """What is in a steered repo: base, heads by layer, alpha, scope, site, provenance. Loads no weights, runs no code."""
    found = inspect(repo, **({"revision": revision} if revision else {}))
    if json_:
        print(json.dumps(found.to_dict(), indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "repo": found.repo,
        "form": found.form,
        "base": " ".join(part for part in (found.base, found.base_revision) if part) or "not recorded",
        "geometry": found.geometry,
        "alpha": f"{found.alpha:g} sigma",
        "scope": found.scope,
        "site": found.site,
        "heads": f"{found.heads_in_use} of {found.heads_in_file} in the file ({found.directions_bytes:,} bytes)",
        "best head": found.top_head,
    }
    rows |= {f"layer {layer}": f"heads {', '.join(map(str, heads))}" for layer, heads in found.heads_by_layer.items()}
    rows |= found.provenance
    for name, value in rows.items():
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(str(value)))
    console.print(table)


def main() -> None:
    """Run the command. Bad input ends in one clear line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        app()
    except (ValueError, OSError, SandboxError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
