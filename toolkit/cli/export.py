"""`iti-llama export` and `canary`"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..foundation.files import folder_of
from ..foundation.settings import Placement
from .expand_settings import expand_settings
from .options import (
    AnyStrength,
    Json,
    RepoArgument,
    RepoOption,
    Revision,
    console,
    one_repo,
    progress_bar,
    say_next,
)


@expand_settings()
def export(
    placement: Placement,
    repo: RepoArgument = None,
    to: Annotated[str, typer.Option(help="llama, gguf, peft or vllm")] = "llama",
    out: Annotated[Path, typer.Option(help="new folder")] = Path("export"),
    model: RepoOption = None,
    alpha: Annotated[float | None, typer.Option(help="strength; the repo's own by default")] = None,
    top_k: Annotated[int | None, typer.Option(help="so many of the best-ranked heads; the repo's own")] = None,
    scope: Annotated[
        str | None,
        typer.Option(help="where the repo says 'generated': 'all', if the prompt may be shifted too"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="of several behaviours this one; their mix by default")] = None,
    into: Annotated[
        Path | None, typer.Option(help="gguf: add the steering to this GGUF of the base, of any quantisation")
    ] = None,
    quantisation: Annotated[str, typer.Option(help="gguf: f32, f16, bf16 or q8_0")] = "f32",
    canary_prompt: Annotated[
        list[str] | None, typer.Option(help="a prompt whose answer the steering changes; may be given again")
    ] = None,
    base_name: Annotated[
        str | None, typer.Option(help="peft, vllm: the base's name on the Hub, where the repo says a folder")
    ] = None,
    with_canary: Annotated[
        bool, typer.Option("--canary/--no-canary", help="without, the steered model is not loaded")
    ] = True,
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """Write a repo for llama.cpp, vLLM, PEFT or plain Llama.

    Example: iti-llama export REPO --to gguf --into BASE.gguf --out STEERED.gguf

    Beside the export lies a canary: a prompt that tells whether an engine steers (`iti-llama canary`).
    """
    from ..export.export import export as export_repo

    source = one_repo(repo, model)
    with progress_bar() as advance:
        step = partial(advance, rows=None)
        canary, notes = export_repo(
            source, to, out, alpha=alpha, top_k=top_k, scope=scope, name=name, into=into, quantisation=quantisation,
            prompts=canary_prompt or (), revision=revision, with_canary=with_canary, base_name=base_name,
            progress=step, **placement.kwargs,
        )  # fmt: skip
    if json_:
        print(json.dumps({"out": str(out), "to": to, "said": notes, "canary": canary and asdict(canary)}))
        return
    for line in notes:
        console.print(f"[yellow]note:[/yellow] {escape(line)}", soft_wrap=True, highlight=False)
    console.print(f"{to}: written to {out}", soft_wrap=True, highlight=False)
    if canary is not None:
        place = {"vllm": f"http://SERVER --model NAME --canary {out}/iti_canary.json", "peft": f"{out} --base BASE"}
        console.print(f"alpha {canary.alpha:g}, {canary.heads} heads", highlight=False)
        say_next(f"iti-llama canary {place.get(to, out)}")


AFTER = {
    "plain": "load the exported form in that engine (docs/engines.md says how), and ask again",
    "neither": "iti-llama verify REPO FORM, which says how far the form is from the repo",
}
"""What to do after a verdict of `canary`."""


@expand_settings()
def canary(
    placement: Placement,
    where: Annotated[str, typer.Argument(help="address of an OpenAI-compatible server, a folder, or a GGUF file")],
    canary_file: Annotated[
        Path | None, typer.Option("--canary", help="iti_canary.json; beside the folder's files by default")
    ] = None,
    model: Annotated[str | None, typer.Option(help="model of the request; the server's first by default")] = None,
    base: Annotated[str | None, typer.Option(help="of a PEFT adapter; what it names by default")] = None,
    json_: Json = False,
) -> None:
    """Ask an engine whether it steers.

    Example: iti-llama canary http://localhost:8000 --canary DIR/iti_canary.json

    Exit code 0 says steered, 3 plain, 4 neither.
    """
    from ..export.canary import FILE, VERDICTS, ask_server, read_canary

    url = where.startswith(("http://", "https://"))
    place = Path(where)
    if canary_file is None and url:
        raise ValueError(f"--canary is missing: which {FILE} is {where} asked with?")
    held = read_canary(canary_file or (place if place.is_dir() else place.parent) / FILE)
    if url:
        answer = ask_server(where, model)(held)
    else:
        from ..export.forms import load_form

        files = sorted(place.glob("*.gguf")) if place.is_dir() and not (place / "config.json").is_file() else []
        form = load_form(files[0] if files else where, base, **placement.kwargs)
        answer = form.continues(held.prompt_ids, len(held.steered.ids))
    verdict = held.verdict(answer)
    if json_:
        print(json.dumps({"verdict": verdict, "answer": answer, "canary": asdict(held)}))
    else:
        console.print(f"[bold]{verdict}[/bold]", highlight=False)
        if verdict == "neither":
            console.print(f"answered: {escape(repr(answer[:200]))}", highlight=False, soft_wrap=True)
        if verdict in AFTER:
            say_next(AFTER[verdict])
    raise typer.Exit(VERDICTS[verdict])


def serve(
    context: typer.Context, repo: RepoArgument = None, model: RepoOption = None, any_strength: AnyStrength = False
) -> None:
    """Serve a steered model, OpenAI-compatible.

    Example: iti-llama serve me/brief-llama --port 8000

    This is transformers' own server. Further options are the server's: --port, --device, --dtype,
    --continuous-batching (scope all) and so on. A request's `generation_config` may hold `iti_alpha`,
    and each answer says what steered it.
    """
    from ..export.serve import serve as run_server

    options = list(context.args)
    if repo is not None and repo.startswith("-"):  # one of the server's, where the model is an option
        options, repo = [repo, *options], None
    name = one_repo(repo, model)
    run_server(str(folder_of(name) or name), options, any_strength)
