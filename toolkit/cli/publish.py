"""`iti-llama convert`, `push` and `verify`"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.markup import escape

from ..foundation.settings import Placement
from ..repo.settings import RepoSettings
from .expand_settings import expand_settings, option_type
from .options import (
    Json,
    RepoArgument,
    RepoOption,
    Revision,
    Token,
    ask_behaviour,
    console,
    one_repo,
    progress_bar,
    say_next,
)


@expand_settings(device_map="cpu")
def convert(
    placement: Placement,
    source: Annotated[str, typer.Argument(help="folder, file or Hub repo: older ITI files, or a baked checkpoint")],
    base: Annotated[str, typer.Option(help="Hub repo or folder of the plain Llama that it steers")],
    out: Annotated[Path, typer.Option(help="folder of the steered repo to write")],
    behaviour: option_type(RepoSettings, "behaviour") = None,
    language: option_type(RepoSettings, "language") = None,
    hub_dataset: option_type(RepoSettings, "hub_dataset") = None,
    site: Annotated[str | None, typer.Option(help="head or residual; by default what the files show")] = None,
    alpha: Annotated[float | None, typer.Option(help="strength; by default the source's")] = None,
    scope: Annotated[str | None, typer.Option(help="all or generated; by default what the source does")] = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the source")] = None,
    base_revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the base")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is in --out")] = False,
    json_: Json = False,
) -> None:
    """Turn older ITI files into a steered repo.

    Example: iti-llama convert OLD_FOLDER --base LLAMA --out REPO

    It reads pickles (without running them), JSON and baked checkpoints, and adds exactly what the older code added.
    """
    from ..convert.convert import convert as convert_source

    about = {"behaviour": ask_behaviour(behaviour), "language": language, "hub_dataset": hub_dataset}
    about = {key: value for key, value in about.items() if value}
    with progress_bar() as advance:
        advance("converting")
        conversion = convert_source(
            source, base, out, site, alpha, scope, revision, base_revision, overwrite, about=about,
            progress=advance, **placement.kwargs,
        )  # fmt: skip
    if json_:
        record = {
            "heads": len(conversion.directions),
            "site": conversion.directions.site,
            "alpha": conversion.alpha,
            "scope": conversion.scope,
        }
        print(json.dumps(record | {"said": conversion.said}))
        return
    for line in conversion.said:
        console.print(escape(line), highlight=False)
    console.print(f"{len(conversion.directions)} heads, written to {out}", highlight=False)
    say_next(
        f"iti-llama info {quote(str(out))}, then iti-llama evaluate --repo {quote(str(out))} --tasks ... --target ..."
    )


def push(
    places: Annotated[
        list[str], typer.Argument(metavar="FOLDER REPO", help="the steered repo on disk, and its name on the Hub")
    ],
    model: Annotated[str | None, typer.Option("--model", help="the steered repo on disk, instead of FOLDER")] = None,
    private: Annotated[bool, typer.Option("--private", help="only you see the repo, if it is new")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="open a pull request, change nothing else")] = False,
    commit_message: Annotated[str | None, typer.Option(help="first line of the commit")] = None,
    revision: Annotated[str | None, typer.Option(help="branch to push to; made if it does not exist")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="push even if the steering failed a check")] = False,
    token: Token = None,
    json_: Json = False,
) -> None:
    """Publish a steered repo on the Hub.

    Example: iti-llama push REPO me/brief-llama

    Sends code, config, directions, tokenizer, card, report and figures, and the weights only in self-contained form.
    """
    if not json_ and not console.quiet:
        os.environ.pop(
            "HF_HUB_DISABLE_PROGRESS_BARS", None
        )  # huggingface_hub shows what it uploads, rate and time left
    from ..repo.push import push as push_folder

    *folders, repo = places
    if len(folders) + (model is not None) != 1:
        raise ValueError(
            f"{len(folders) + (model is not None)} folders; expected one: iti-llama push FOLDER OWNER/NAME"
        )
    folder = Path(model or folders[0])

    def announce(names: Sequence[str]) -> None:
        for name in names:
            console.print(escape(name), highlight=False, soft_wrap=True)

    pushed = push_folder(
        folder,
        repo,
        private=private,
        create_pr=create_pr,
        message=commit_message,
        revision=revision,
        token=token,
        anyway=anyway,
        **({} if json_ else {"announce": announce}),
    )
    if json_:
        record = {
            "repo": pushed.repo,
            "commit": pushed.commit,
            "pull_request": pushed.pull_request,
            "files": pushed.files,
        }
        print(json.dumps(record))
        return
    console.print(f"{pushed.repo} at {pushed.commit}: {len(pushed.files)} files", highlight=False)
    if pushed.pull_request:
        console.print(pushed.pull_request, highlight=False)
        return
    say_next(f'AutoModelForCausalLM.from_pretrained("{pushed.repo}", trust_remote_code=True, device_map="auto")')


@expand_settings()
def verify(
    placement: Placement,
    repo: RepoArgument = None,
    other: Annotated[
        str | None, typer.Argument(help="another form of it, to compare: a folder, a PEFT adapter or a GGUF file")
    ] = None,
    model: RepoOption = None,
    base: Annotated[str | None, typer.Option(help="base of a PEFT adapter that is compared")] = None,
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """Check whose code a repo would run.

    Example: iti-llama verify me/brief-llama

    Compares its files with this package's and runs none of them; exit code 2 means that something is wrong. With a
    second form (verify A B) it loads both and shows how far their answers differ.
    """
    from ..repo.verify import verify as verify_repo

    if other is not None:
        return compare_forms(one_repo(repo, model), other, base, json_, **placement.kwargs)
    verdict = verify_repo(one_repo(repo, model), revision)
    if json_:
        print(json.dumps(asdict(verdict), indent=1))
    else:
        words = {"ours": "this package's own", "changed": "[red]changed[/red]", "unknown": "[red]unknown[/red]"}
        for file in verdict.code:
            console.print(
                f"{file.sha256}  {escape(file.name)}  {words.get(file.status, file.status)}",
                highlight=False,
                soft_wrap=True,
            )
        for note in verdict.notes:
            console.print(escape(note), highlight=False, soft_wrap=True)
        for problem in verdict.problems:
            console.print(f"[red]problem:[/red] {escape(problem)}", highlight=False, soft_wrap=True)
        if not verdict.problems:
            console.print("no problems found")
    if verdict.problems:
        raise typer.Exit(2)


def compare_forms(repo: str, other: str, base: str | None, json_: bool, **kwargs) -> None:
    from ..export.compare import compare

    difference = compare(repo, other, base, **kwargs)
    if json_:
        print(json.dumps(asdict(difference)))
        return
    rows = {
        f"largest difference, {difference.places} places": difference.between,
        "for comparison: the steering (the repo, on and off)": difference.steering,
        "for comparison: rounding (first, two attentions)": difference.rounding,
    }
    for name, value in rows.items():
        console.print(f"{name}: {'not known' if value is None else f'{value:.2g}'}", highlight=False)
