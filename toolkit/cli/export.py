"""`iti-llama export` and `canary`"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shlex import quote
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
    alpha: Annotated[float | None, typer.Option(help="strength; by default the repo's")] = None,
    top_k: Annotated[int | None, typer.Option(help="number of best-ranked heads; by default the repo's")] = None,
    scope: Annotated[
        str | None,
        typer.Option(help="'all' for a repo of scope 'generated', if the prompt may be shifted too"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="one of several behaviours; by default their mix")] = None,
    into: Annotated[
        Path | None, typer.Option(help="gguf: add the steering to this GGUF of the base, in any quantisation")
    ] = None,
    quantisation: Annotated[str, typer.Option(help="gguf: f32, f16, bf16 or q8_0")] = "f32",
    canary_prompt: Annotated[
        list[str] | None, typer.Option(help="a prompt whose answer the steering changes; repeatable")
    ] = None,
    base_name: Annotated[
        str | None, typer.Option(help="peft, vllm: the base's name on the Hub, if the repo names a folder")
    ] = None,
    with_canary: Annotated[
        bool, typer.Option("--canary/--no-canary", help="write a canary; without it, the steered model is not loaded")
    ] = True,
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """Write a repo for llama.cpp, vLLM, PEFT or plain Llama.

    Example: iti-llama export REPO --to gguf --into BASE.gguf --out DIR

    It comes with a canary, a prompt that shows whether an engine steers (`iti-llama canary`).
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
    written = next(out.glob("*.gguf"), out)
    console.print(f"{to}: written to {written}", soft_wrap=True, highlight=False, markup=False)
    if canary is not None:
        out = quote(str(out))
        place = {"vllm": f"http://SERVER --model NAME --canary {out}/iti_canary.json", "peft": f"{out} --base BASE"}
        console.print(f"alpha {canary.alpha:g}, {canary.heads} heads", highlight=False)
        say_next(f"iti-llama canary {place.get(to, out)}")


AFTER = {
    "plain": "load the exported form in that engine (docs/engines.md says how), and ask again",
    "neither": "iti-llama verify REPO FORM, which says how far the form is from the repo",
}
"""The next step after a verdict of `canary`."""


@expand_settings()
def canary(
    placement: Placement,
    where: Annotated[str, typer.Argument(help="address of an OpenAI-compatible server, a folder, or a GGUF file")],
    canary_file: Annotated[
        Path | None, typer.Option("--canary", help="iti_canary.json; by default the one in the folder")
    ] = None,
    model: Annotated[str | None, typer.Option(help="model of the request; by default the server's first")] = None,
    base: Annotated[str | None, typer.Option(help="base of a PEFT adapter; by default the one that it names")] = None,
    json_: Json = False,
) -> None:
    """Ask an engine whether it steers.

    Example: iti-llama canary http://localhost:8000 --canary DIR/iti_canary.json

    Exit code 0 means steered, 3 plain, 4 neither.
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
    if repo is not None and repo.startswith("-"):  # an option of the server: the model is given by --model
        options, repo = [repo, *options], None
    name = one_repo(repo, model)
    run_server(str(folder_of(name) or name), options, any_strength)
