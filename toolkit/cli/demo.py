"""`iti-llama demo`"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..foundation.package import ROOT
from .demo_chat import show_chat
from .expand_settings import expand_settings
from .options import Json, SteeredModel, Unsandboxed, console


@expand_settings()
def demo(
    steered: SteeredModel,
    n: Annotated[
        int,
        typer.Option(
            "--n", "--limit", min=1, help="prompts: first 'check if a number is prime', then held-out tasks by index"
        ),
    ] = 3,
    markdown: Annotated[Path | None, typer.Option(help="write the answers to this file too")] = None,
    json_: Json = False,
    allow_unsandboxed: Unsandboxed = False,
) -> None:
    """See steering at work.

    Example: iti-llama demo

    If SmolLM2, a real Llama, is installed, it answers questions plain and steered. Then the bundled model writes
    Python functions, and their tests run.
    """
    from rich.syntax import Syntax
    from rich.table import Table

    from ..foundation.complete import complete, function_body
    from ..foundation.files import write_text
    from ..foundation.sandbox import Sandbox
    from ..measure.bundled_tasks import demo_tasks
    from ..measure.grade import grade

    origins, tasks = zip(*demo_tasks(n), strict=True)
    sandbox = Sandbox(allow_unsandboxed=allow_unsandboxed)
    bundled = steered.repo == str(ROOT)  # its code is this package's
    if bundled and markdown is None and not json_ and not console.quiet:
        show_chat()
    model, tokenizer = replace(steered, trust_remote_code=steered.trust_remote_code or bundled).load()
    answers = {}
    for name, alpha in (("plain", 0.0), ("steered", model.iti_alpha)):
        completions = complete(model, tokenizer, [task.prompt for task in tasks], [alpha] * len(tasks))
        answers[name] = list(zip(completions, grade(tasks, completions, sandbox), strict=True))
    rows = [
        {
            "prompt": task.prompt,
            "asked": task.docstring,
            "origin": origin,
            "tests": len(task.tests),
            "alpha": model.iti_alpha,
        }
        | {
            name: {"program": task.program(function_body(text)), "style": verdict.style, "correct": verdict.correct}
            for name, (text, verdict) in ((name, given[i]) for name, given in answers.items())
        }
        for i, (origin, task) in enumerate(zip(origins, tasks, strict=True))
    ]
    if markdown is not None:
        write_text(markdown, before_and_after(rows))
    if json_:
        print(json.dumps(rows, indent=2))
        return
    heads = f"{len(model.iti_directions.top(model.iti_top_k))} heads"
    where = escape(str(model.name_or_path))
    console.print(f"\n[bold]{where}[/bold]: {heads}, alpha {model.iti_alpha:g}, scope {model.iti_scope}\n")
    for row in rows:
        table = Table(
            title=escape(f"{row['asked']} ({row['origin']}; {row['tests']} tests)"), title_justify="left", expand=True
        )
        cells = []
        for name, alpha in (("plain", 0.0), ("steered", row["alpha"])):
            answer = row[name]
            passed = "[green]passes its tests[/green]" if answer["correct"] else "[red]fails its tests[/red]"
            table.add_column(f"{name}, alpha {alpha:g}: {answer['style']}, {passed}", ratio=1, overflow="fold")
            cells.append(Syntax(answer["program"], "python", word_wrap=True, background_color="default"))
        table.add_row(*cells)
        console.print(table)


def before_and_after(rows: list[dict]) -> str:
    """The answers of `iti-llama demo` as a document."""
    parts = [
        "# Before and after",
        "",
        f"Made by `iti-llama demo --n {len(rows)} --markdown FILE`: the demo's own prompt, then the first "
        f"{len(rows) - 1} held-out tasks by "
        "index, good and bad alike. Greedy.",
    ]
    for row in rows:
        parts += ["", f"## {row['asked']}", "", f"{row['origin'].capitalize()}; {row['tests']} tests."]
        for name, alpha in (("plain", 0), ("steered", row["alpha"])):
            answer = row[name]
            passed = "passes" if answer["correct"] else "**fails**"
            parts += ["", f"{name.capitalize()} (alpha {alpha:g}): {answer['style']}, {passed} its tests.", ""]
            parts += ["```python", answer["program"].rstrip(), "```"]
    return "\n".join(parts) + "\n"
