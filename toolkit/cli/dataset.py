"""`iti-llama dataset ...`"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..foundation.settings import Placement
from ..neocoder.problems import REPOSITORY
from .expand_settings import expand_settings
from .options import Json, Seed, Unsandboxed, console, progress_bar, say_next


dataset = typer.Typer(help="Make a labelled set.", no_args_is_help=True)

Source = Annotated[
    str, typer.Option(help="folder with NeoCoder's files, or the address of one", show_default="NeoCoder's own")
]

FIT = "iti-llama fit --base BASE --data {data} --out REPO"


@dataset.command()
def pairs(
    out: Annotated[Path, typer.Option(help="JSON Lines file to write")],
    groups: Annotated[int, typer.Option(min=2, help="number of tasks; each gives a row for each label")] = 300,
    behaviour: Annotated[str, typer.Option(help="meaning of label 1: idiomatic or commented")] = "idiomatic",
    json_: Json = False,
) -> None:
    """Write tasks of the bundled corpus, solved with a behaviour and without, under headers that ask for it."""
    from ..data.labelled_set import write_examples
    from ..measure.bundled_tasks import PAIRS, labelled_pairs

    if behaviour not in PAIRS:
        raise typer.BadParameter(f"is {behaviour!r}; expected one of {', '.join(PAIRS)}", param_hint="--behaviour")
    rows = labelled_pairs(behaviour, groups)
    write_examples(rows, out)
    if json_:
        print(json.dumps({"out": str(out), "rows": len(rows), "groups": groups, "behaviour": behaviour}))
        return
    summary = f"{out}: {len(rows)} rows, {groups} groups, half of label 1 ({behaviour})"
    console.print(summary, soft_wrap=True, markup=False)
    say_next(FIT.format(data=quote(str(out))))


@dataset.command()
def neocoder(
    out: Annotated[Path, typer.Option(help="JSON Lines file to write")],
    source: Source = REPOSITORY,
    machine: Annotated[
        Path | None, typer.Option(help="label these samples of a model instead of the human solutions")
    ] = None,
    prompt: Annotated[str, typer.Option(help="statement, or title for models with a short context")] = "statement",
    rare: Annotated[int, typer.Option(min=0, help="a technique is novel if at most this many others use it")] = 1,
    chat_template: Annotated[str | None, typer.Option(help="repo whose chat template wraps the prompts")] = None,
    download_to: Annotated[Path, typer.Option(help="folder for downloaded files")] = Path("neocoder"),
    sha256: Annotated[list[str] | None, typer.Option(help="NAME=HEX that a downloaded file must have")] = None,
    allow_unsandboxed: Unsandboxed = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Label solutions of NeoCoder's problems, human ones or a model's samples, as novel or ordinary."""
    from transformers import AutoTokenizer

    from ..data.labelled_set import write_examples
    from ..foundation.files import read_rows
    from ..foundation.sandbox import Limits, Sandbox
    from ..neocoder.label_solutions import build_from_humans, build_from_samples
    from ..neocoder.problems import Problem
    from ..neocoder.problems import load as load_neocoder
    from ..neocoder.sample_solutions import prompt_for

    problems = load_neocoder(neocoder_folder(source, download_to, sha256))
    if prompt not in ("statement", "title"):
        raise ValueError(f"--prompt is {prompt!r}; expected statement or title")
    sandbox = Sandbox(Limits(seconds=6, memory=768 << 20), allow_unsandboxed=allow_unsandboxed)
    tokenizer = AutoTokenizer.from_pretrained(chat_template, trust_remote_code=False) if chat_template else None
    fenced = tokenizer is not None and tokenizer.chat_template

    def prompt_of(problem: Problem) -> str:
        return prompt_for(problem.statements[0] if prompt == "statement" else problem.title, tokenizer)

    def completion_of(code: str) -> str:
        return f"```python\n{code.rstrip()}\n```" if fenced else code.rstrip() + "\n"

    with progress_bar() as advance:
        ran = partial(advance, "run programs")
        if machine is not None:
            built = build_from_samples(problems, read_rows(machine), sandbox, seed, ran)
        else:
            built = build_from_humans(problems, sandbox, prompt_of, completion_of, rare, seed, ran)
    if not built.examples:
        raise ValueError(f"no row is left of {built.counts[0][1]} {built.counts[0][0]}: {dict(built.counts)}")
    write_examples(built.examples, out)
    if json_:
        print(json.dumps({"counts": dict(built.counts), "text_auc": built.text_auc, "length_auc": built.length_auc}))
        return
    table = Table(show_header=False, box=None)
    for name, count in built.counts:
        table.add_row(name, f"{count:,}")
    table.add_row("AUC of the text alone (TF-IDF, length), folds without common problems", f"{built.text_auc:.3f}")
    table.add_row("AUC of the length alone", f"{built.length_auc:.3f}")
    console.print(table)
    console.print(f"written to {out}", soft_wrap=True, markup=False)
    console.print("Probes that do not beat the text's AUC have found nothing beyond the letters of the text.")
    say_next(FIT.format(data=quote(str(out))))


@dataset.command(name="generate")
@expand_settings()
def generate_samples(
    placement: Placement,
    model: Annotated[str, typer.Option(help="Hub repo or folder of any causal model")],
    out: Annotated[Path, typer.Option(help="JSON Lines file; its rows are kept, missing ones are added")],
    source: Source = REPOSITORY,
    n: Annotated[int, typer.Option(min=1, help="samples of each problem")] = 50,
    problems: Annotated[
        int | None, typer.Option("--problems", "--limit", min=1, help="only this many problems, from the first")
    ] = None,
    state: Annotated[int, typer.Option(min=0, max=5, help="constraint state of the prompt")] = 0,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 1024,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    download_to: Annotated[Path, typer.Option(help="folder for downloaded files")] = Path("neocoder"),
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Sample a model's solutions to NeoCoder's problems."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from iti_llama.configuration_iti_llama import pinned

    from ..foundation.files import read_rows
    from ..neocoder.problems import load as load_neocoder
    from ..neocoder.sample_solutions import draw

    chosen = load_neocoder(neocoder_folder(source, download_to, None))[:problems]
    hub = pinned(model, {})
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False, **hub)
    loaded = AutoModelForCausalLM.from_pretrained(model, **placement.kwargs, **hub).eval()
    with progress_bar(len(chosen) * n) as advance:
        kwargs = {"state": state, "temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed}
        draw(loaded, tokenizer, chosen, out, n, batch_size=batch_size, progress=partial(advance, "sample"), **kwargs)
    rows = len(read_rows(out))
    if json_:
        print(json.dumps({"out": str(out), "rows": rows, "problems": len(chosen)}))
        return
    console.print(f"{out}: {rows} rows", soft_wrap=True, markup=False)
    where = "" if source == REPOSITORY else f" --source {source}"
    say_next(f"iti-llama dataset neocoder --machine {out}{where} --out LABELLED.jsonl")


@dataset.command(name="neocoder-humans")
def neocoder_humans(
    source: Source = REPOSITORY,
    download_to: Annotated[Path, typer.Option(help="folder for downloaded files")] = Path("neocoder"),
    json_: Json = False,
) -> None:
    """Compute NeoGauge's human rows from the techniques in NeoCoder's files, and show the published ones with them."""
    from ..neocoder.neocoder_tasks import human_convergent, human_divergent
    from ..neocoder.problems import load as load_neocoder

    problems = load_neocoder(neocoder_folder(source, download_to, None))
    rows, divergent = human_convergent(problems), human_divergent(problems)
    if json_:
        print(json.dumps({"convergent": [asdict(row) for row in rows], "divergent": asdict(divergent)}, indent=1))
        return
    table = Table("state", "convergent (human)", "published", "problems", "solutions")
    for row in rows:
        cells = (row.convergent.percent(), f"{100 * row.published:.1f}%", str(row.problems), str(row.convergent.n))
        table.add_row(str(row.state), *cells)
    console.print(table)
    console.print(f"divergent (human, leave one out): {divergent.percent()}, n = {divergent.n}; published about 2%")


def neocoder_folder(source: str, download_to: Path, sha256: list[str] | None) -> Path:
    """The folder of NeoCoder's files, downloaded first if `source` is an address."""
    from ..neocoder.problems import FILES, fetch

    if "://" not in source:
        return Path(source)
    wanted = dict(entry.split("=", 1) if "=" in entry else (entry, "") for entry in sha256 or [])
    unknown = sorted(set(wanted) - set(FILES))
    if unknown:
        raise ValueError(f"--sha256 names {unknown[0]!r}; expected NAME=HEX with one of {', '.join(FILES)}")
    for name, value in fetch(source, download_to, wanted).items():
        Console(stderr=True).print(f"{name}: SHA-256 {value}", highlight=False, soft_wrap=True)
    return download_to
