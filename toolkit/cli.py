"""The command `iti-llama`: a thin face over functions that a notebook can call."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from decimal import ROUND_DOWN, Context
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.syntax import Syntax
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from iti_llama.configuration_iti_llama import check_alpha, check_scope

from .build import fit_repo, readable
from .bundled import ROOT, demo_tasks
from .capture import Policy
from .card import before_and_after, replace_section, write_results
from .completion import complete, function_body
from .convert import convert as convert_source
from .evaluate import Condition, damage_of, damage_table, settings_of, standard_conditions
from .evaluate import evaluate as measure_all
from .evaluate import markdown as evaluation_table
from .examples import read_examples, style_pairs, write_examples, write_text
from .fit import METHODS, RANKINGS, FitSettings
from .grading import grade
from .inspection import inspect
from .multiple_choice import multiple_choice, read_questions
from .neocoder import FILES as NEOCODER_FILES
from .neocoder import REPOSITORY, Problem, build_from_humans, build_from_samples, fetch
from .neocoder import load as load_neocoder
from .publish import push as push_folder
from .report import markdown as report_table
from .samples import draw, prompt_for, read_rows
from .sandbox import Limits, Sandbox, SandboxError
from .store import Store
from .sweep import alpha_of_kl, beats_control, choose, control
from .sweep import apply as apply_choice
from .sweep import figure as sweep_figure
from .sweep import sweep as sweep_grid
from .tasksets import (
    TaskSet,
    calibrated,
    corpus_set,
    file_set,
    human_convergent,
    human_divergent,
    neocoder_set,
    strengthened,
)
from .verify import verify as verify_repo


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
CardFile = Annotated[Path | None, typer.Option("--card", help="README.md whose table is replaced as well")]
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
def demo(
    n: Annotated[
        int, typer.Option(min=1, help="prompts: 'check if a number is prime', then held-out tasks by index")
    ] = 3,
    markdown: Annotated[Path | None, typer.Option(help="write the answers to this file as well")] = None,
    json_: Json = False,
    allow_unsandboxed: Unsandboxed = False,
) -> None:
    """Answer prompts with the bundled model, plain and steered, and run the answers' tests."""
    sandbox = Sandbox(allow_unsandboxed=allow_unsandboxed)
    model, tokenizer = load(str(ROOT), trust_remote_code=True)
    origins, tasks = zip(*demo_tasks(n), strict=True)
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
            for name, (text, verdict) in ((name, own[i]) for name, own in answers.items())
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
            title=f"{row['asked']} ({row['origin']}; {row['tests']} tests)", title_justify="left", expand=True
        )
        cells = []
        for name, alpha in (("plain", 0.0), ("steered", row["alpha"])):
            own = row[name]
            passed = "[green]passes its tests[/green]" if own["correct"] else "[red]fails its tests[/red]"
            table.add_column(f"{name}, alpha {alpha:g}: {own['style']}, {passed}", ratio=1)
            cells.append(Syntax(own["program"], "python", word_wrap=True, background_color="default"))
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


dataset = typer.Typer(help="Make a labelled set.", no_args_is_help=True)
app.add_typer(dataset, name="dataset")
Seed = Annotated[int, typer.Option(help="everything that is drawn depends on it")]


@contextmanager
def progress_bar(total: int | None = None) -> Iterator[Callable[[str, int | None], None]]:
    """Inside the block, `advance(step, rows)` shows the step, the rows done of `total`, and the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=total)

        def advance(step: str, rows: int | None = None) -> None:
            progress.update(task, description=step, advance=rows or 0)

        yield advance


@dataset.command()
def pairs(
    out: Annotated[Path, typer.Option(help="JSON Lines file to write")],
    groups: Annotated[int, typer.Option(min=2, help="tasks; each gives a row of either label")] = 300,
    seed: Seed = 0,
) -> None:
    """Plain and idiomatic solutions of the bundled corpus's training tasks, under headers that ask for them."""
    rows = style_pairs(groups, seed)
    write_examples(rows, out)
    console.print(f"{out}: {len(rows)} rows, {groups} groups, half of label 1 (idiomatic)")


@dataset.command()
def neocoder(
    out: Annotated[Path, typer.Option(help="JSON Lines file to write")],
    source: Annotated[str, typer.Option(help="folder with NeoCoder's files, or the address of one")] = REPOSITORY,
    machine: Annotated[
        Path | None, typer.Option(help="label these samples of a model, not the human solutions")
    ] = None,
    prompt: Annotated[str, typer.Option(help="statement, or title for models of a short context")] = "statement",
    rare: Annotated[int, typer.Option(min=0, help="a technique is novel if at most so many others use it")] = 1,
    chat_template: Annotated[str | None, typer.Option(help="repo whose chat template wraps the prompts")] = None,
    download_to: Annotated[Path, typer.Option(help="where downloaded files are kept")] = Path("neocoder"),
    sha256: Annotated[list[str] | None, typer.Option(help="NAME=HEX that a downloaded file must have")] = None,
    allow_unsandboxed: Unsandboxed = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Novel and ordinary solutions of NeoCoder's problems, from its human solutions or from a model's samples."""
    problems = load_neocoder(neocoder_folder(source, download_to, sha256))
    if prompt not in ("statement", "title"):
        raise ValueError(f"--prompt is {prompt!r}; expected statement or title")
    sandbox = Sandbox(Limits(seconds=6, memory=768 << 20), allow_unsandboxed=allow_unsandboxed)
    tokenizer = AutoTokenizer.from_pretrained(chat_template) if chat_template else None
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
    console.print(
        f"written to {out}. Probes that do not beat the text's AUC have found nothing that the letters do not say."
    )


@dataset.command(name="generate")
def generate_samples(
    model: Annotated[str, typer.Option(help="Hub repo or folder of any causal model")],
    out: Annotated[Path, typer.Option(help="JSON Lines file; rows that are there are kept, missing ones are added")],
    source: Annotated[str, typer.Option(help="folder with NeoCoder's files, or the address of one")] = REPOSITORY,
    n: Annotated[int, typer.Option(min=1, help="samples of each problem")] = 50,
    problems: Annotated[int | None, typer.Option(min=1, help="only the first so many problems")] = None,
    state: Annotated[int, typer.Option(min=0, max=5, help="constraint state of the prompt")] = 0,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 1024,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    download_to: Annotated[Path, typer.Option(help="where downloaded files are kept")] = Path("neocoder"),
    seed: Seed = 0,
) -> None:
    """Sample a model's own solutions to NeoCoder's problems."""
    chosen = load_neocoder(neocoder_folder(source, download_to, None))[:problems]
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, device_map="auto", dtype="auto").eval()
    with progress_bar(len(chosen) * n) as advance:
        kwargs = {"state": state, "temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed}
        draw(loaded, tokenizer, chosen, out, n, batch_size=batch_size, progress=partial(advance, "sample"), **kwargs)
    console.print(f"{out}: {len(read_rows(out))} rows")


@dataset.command(name="neocoder-humans")
def neocoder_humans(
    source: Annotated[str, typer.Option(help="folder with NeoCoder's files, or the address of one")] = REPOSITORY,
    download_to: Annotated[Path, typer.Option(help="where downloaded files are kept")] = Path("neocoder"),
    json_: Json = False,
) -> None:
    """NeoGauge's human rows, from the techniques that NeoCoder's own files give, beside the published ones."""
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
    if "://" not in source:
        return Path(source)
    wanted = dict(entry.split("=", 1) if "=" in entry else (entry, "") for entry in sha256 or [])
    unknown = sorted(set(wanted) - set(NEOCODER_FILES))
    if unknown:
        raise ValueError(f"--sha256 names {unknown[0]!r}; expected NAME=HEX with one of {', '.join(NEOCODER_FILES)}")
    for name, value in fetch(source, download_to, wanted).items():
        Console(stderr=True).print(f"{name}: SHA-256 {value}", highlight=False, soft_wrap=True)
    return download_to


@app.command()
def fit(
    base: Annotated[str, typer.Option(help="Hub repo or folder of a Llama")],
    data: Annotated[Path, typer.Option(help="labelled set: JSON Lines of prompt, completion, label, group")],
    out: Annotated[Path, typer.Option(help="folder of the steered repo to write")],
    policy: Annotated[
        str, typer.Option(help="where activations are read: last, completion-mean or 'fraction F'")
    ] = "last",
    top_k: Annotated[str, typer.Option(help="heads to steer, or 'cv' to choose by cross-validation")] = "48",
    method: Annotated[str, typer.Option(help=", ".join(METHODS))] = "mean-difference",
    rank_by: Annotated[str, typer.Option(help=", ".join(RANKINGS))] = "auc",
    alpha: Annotated[
        float, typer.Option(help="strength to write into the config, in sigmas; `sweep` chooses one")
    ] = 1.0,
    scope: Annotated[str, typer.Option(help="all or generated")] = "all",
    self_contained: Annotated[bool, typer.Option("--self-contained", help="write the weights too")] = False,
    folds: Annotated[int, typer.Option(help="of the cross-validation")] = 5,
    test_share: Annotated[float, typer.Option(help="share of the groups kept for the test")] = 0.2,
    permutations: Annotated[int, typer.Option(min=0, help="draws of the null; 0 leaves it out")] = 100,
    c: Annotated[float, typer.Option("--c", help="inverse L2 strength of the probes")] = 1.0,
    balanced: Annotated[bool, typer.Option("--balanced", help="weigh classes inversely to their frequency")] = False,
    seed: Seed = 0,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the base")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
    device_map: Annotated[str, typer.Option(help="as in from_pretrained")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    cache: Annotated[Path | None, typer.Option(help="folder for activations; a killed run goes on from there")] = None,
    base_name: Annotated[str | None, typer.Option(help="what the files call the base")] = None,
    drop_long: Annotated[
        bool, typer.Option("--drop-long", help="leave out rows that the model cannot read whole")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is in --out")] = False,
    card_file: CardFile = None,
    json_: Json = False,
) -> None:
    """Fit directions on a labelled set and write a steered repo."""
    examples = read_examples(data)
    if top_k != "cv" and not top_k.isdecimal():
        raise ValueError(f"--top-k is {top_k!r}; expected a number of heads, or cv")
    settings = FitSettings(
        method=method,
        top_k=None if top_k == "cv" else int(top_k),
        rank_by=rank_by,
        folds=folds,
        test_share=test_share,
        c=c,
        balanced=balanced,
        permutations=permutations,
        seed=seed,
    )
    check_alpha(alpha)
    check_scope(scope)
    position, left_out = Policy.parse(policy), 0
    if drop_long:
        kept = readable(examples, position, base, revision)
        left_out, examples = len(examples) - len(kept), kept
        if not json_:  # there the report says so
            console.print(
                f"{left_out} of {left_out + len(kept)} rows are longer than the model reads and are left out"
            )
    with progress_bar(len(examples)) as advance:
        found = fit_repo(
            base,
            examples,
            out,
            policy=position,
            settings=settings,
            alpha=alpha,
            scope=scope,
            self_contained=self_contained,
            overwrite=overwrite,
            revision=revision,
            dtype=dtype,
            device_map=device_map,
            batch_size=batch_size,
            cache=cache,
            base_name=base_name,
            dataset=data.name,
            left_out=left_out,
            progress=advance,
        )
    if not found:  # a process beside the main one
        return
    if card_file is not None:
        replace_section(card_file, "fit", report_table(found))
    if json_:
        print(json.dumps(found))
        return
    console.print(Markdown(report_table(found)))
    console.print(f"\nwritten to {out}")


Tasks = Annotated[
    str,
    typer.Option(
        help="corpus:test, corpus:validation, neocoder:STATE, neocoder158:STATE, a JSON Lines or TruthfulQA CSV file"
    ),
]
N = Annotated[int, typer.Option(min=2, help="number of tasks; NeoCoder and files: the first so many")]


def task_set_of(
    name: str, n: int, seed: int, tokenizer, source: str, stronger: bool, sandbox: Sandbox, advance
) -> TaskSet:
    """The tasks that a name stands for."""
    kind, _, part = name.partition(":")
    if kind == "corpus" and part in ("test", "validation"):
        return corpus_set(part, n, seed)
    if kind in ("neocoder", "neocoder158") and part.isdecimal():
        problems = load_neocoder(Path(source))
        if kind == "neocoder158":
            problems = calibrated(problems, sandbox, partial(advance, "calibrate"))
        problems = problems[:n]
        if stronger:
            problems = strengthened(problems, sandbox, seed=seed, progress=partial(advance, "make tests"))
        return neocoder_set(problems, int(part), tokenizer, kind)
    if name.endswith(".jsonl"):
        found = file_set(Path(name))
        return replace(found, tasks=found.tasks[:n])
    raise ValueError(
        f"--tasks is {name!r}; expected corpus:test, corpus:validation, neocoder:STATE, neocoder158:STATE, or a .jsonl file"
    )


@app.command()
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
    """Run tasks plain, steered, at minus alpha, along random directions and asked in words; print rates with intervals."""
    model, tokenizer = load(repo, revision, trust_remote_code)
    if tasks.endswith(".csv"):
        strength = model.iti_alpha if alpha is None else check_alpha(alpha)
        return choices(model, tokenizer, Path(tasks), n, strength, primer, json_)
    sandbox = Sandbox(allow_unsandboxed=allow_unsandboxed)
    with progress_bar() as advance:
        chosen = task_set_of(tasks, n, seed, tokenizer, source, stronger, sandbox, advance)
    conditions = standard_conditions(model, alpha)
    settings = settings_of(model, chosen, conditions[1].alpha, samples, temperature, seed)
    store = Store(out and out / "completions.jsonl", settings)
    with progress_bar(len(chosen) * samples * len(conditions)) as advance:
        rows, _ = measure_all(
            model, tokenizer, chosen, conditions, sandbox, samples, temperature, store, seed, progress=advance
        )
    steering = sum(c.alpha != 0 and not c.asked for c in conditions)
    with progress_bar(sum(map(len, chosen.texts.values())) * steering) as advance:
        damage = {
            name: damage_of(model, tokenizer, own, conditions, partial(advance, f"damage to {name}"))
            for name, own in chosen.texts.items()
        }
    found = settings | {"target": chosen.target, "conditions": [row.to_dict() for row in rows]}
    found["damage"] = {name: {c: d.to_dict() for c, d in own.items()} for name, own in damage.items()}
    if out is not None:
        write_text(out / "evaluation.json", json.dumps(found, indent=1) + "\n")
    first = next(iter(chosen.texts))
    table = f"{evaluation_table(rows, chosen.target, damage[first])}\n\n{damage_table(damage)}"
    if card_file is not None:
        how = "greedy" if samples == 1 else f"{samples} samples a task at temperature {temperature:g}"
        note = (
            f"{chosen.name}, {len(chosen)} tasks (seed {seed}), {how}, {settings['heads']} heads, scope {model.iti_scope}. In brackets 95% "
            f"intervals, bootstrapped by problem. KL in the first table: from the plain to the steered model, on {first}."
        )
        replace_section(card_file, "evaluation", f"{table}\n\n{note}")
        write_results(card_file, chosen.name, chosen.target, rows)
    if json_:
        print(json.dumps(found, indent=1))
    else:
        console.print(Markdown(table))
        for row in rows[1:]:
            moved = f"{len(row.lost)} tasks lost, {len(row.gained)} gained, {len(row.wrong_way)} out of the target"
            console.print(f"{row.condition}: {moved}, against plain")


def choices(model, tokenizer, path: Path, n: int, alpha: float, primer: Path | None, json_: bool) -> None:
    """MC1 and MC2 of a TruthfulQA CSV at alpha 0, alpha and minus alpha."""
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


@app.command()
def sweep(
    repo: Repo = str(ROOT),
    tasks: Tasks = "corpus:validation",
    n: N = 100,
    alphas: Annotated[
        str, typer.Option(help="strengths, separated by commas; each is tried with both signs")
    ] = "0.25,0.5,0.75,1,1.25,1.5",
    top_ks: Annotated[
        str | None, typer.Option(help="numbers of heads, separated by commas; the repo's by default")
    ] = None,
    scopes: Annotated[str, typer.Option(help="all, generated, or both")] = "all",
    guard: Annotated[float, typer.Option(help="pass@1 that may be lost, as a share")] = 0.05,
    kl_guard: Annotated[float | None, typer.Option(help="largest mean KL, in nats a token")] = None,
    kl_budget: Annotated[
        float | None, typer.Option(help="no grid of alphas: the largest whose mean KL is this")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="rows of one batch: tasks times alphas")] = 256,
    confirm: Annotated[str | None, typer.Option(help="tasks that the choice is confirmed on, once")] = None,
    apply_: Annotated[
        bool, typer.Option("--apply", help="write the choice into the repo's config.json (a folder)")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="folder for sweep.json and figures/sweep.png")] = None,
    source: Annotated[str, typer.Option(help="folder with NeoCoder's files")] = "neocoder",
    revision: Revision = None,
    trust_remote_code: RemoteCode = False,
    allow_unsandboxed: Unsandboxed = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Answer validation tasks over a grid of alpha, K and scope; choose by a stated rule, against random directions."""
    sandbox = Sandbox(allow_unsandboxed=allow_unsandboxed)
    strengths = numbers(alphas, float, "--alphas")
    if any(not alpha > 0 for alpha in strengths):
        raise ValueError(f"--alphas is {alphas!r}; expected positive numbers, each is tried with both signs")
    if apply_ and not Path(repo).is_dir():
        raise ValueError(f"--apply writes a config.json, but {repo} is no folder")
    where = ["all", "generated"] if scopes == "both" else [check_scope(scopes)]
    model, tokenizer = load(repo, revision, trust_remote_code)
    with progress_bar() as advance:
        chosen = task_set_of(tasks, n, seed, tokenizer, source, False, sandbox, advance)
        checked = confirm and task_set_of(confirm, 2 * n, seed, tokenizer, source, False, sandbox, advance)
    heads = len(model.iti_directions)
    ks = numbers(top_ks, int, "--top-ks") if top_ks else [len(model.iti_directions.top(model.iti_top_k))]
    if kl_budget is not None:
        if len(ks) * len(where) > 1:
            raise ValueError("--kl-budget finds one alpha; give it one K and one scope")
        model.iti_top_k, model.iti_scope = ks[0], where[0]
        texts = next(iter(chosen.texts.values()))
        exact, _ = alpha_of_kl(model, tokenizer, texts, kl_budget)
        strengths = [float(Context(prec=3, rounding=ROUND_DOWN).create_decimal_from_float(exact))]  # inside the budget
    rows = 3 * len(chosen) * (1 + len(strengths) * len(ks) * len(where))
    with progress_bar(rows + 6 * len(chosen) * len(strengths)) as advance:
        generate = partial(advance, "generate")
        points = sweep_grid(model, tokenizer, chosen, ks, strengths, where, sandbox, batch_size, generate)
        pick = choose(points, guard, kl_guard)
        random: list = []
        if pick is not None:
            random = control(
                model,
                tokenizer,
                chosen,
                pick.top_k,
                pick.scope,
                strengths,
                sandbox,
                batch_size=batch_size,
                progress=partial(advance, "control"),
            )
    why = ""
    if pick is None:
        why = "no point beats plain inside the guard: nothing is applied"
    elif not beats_control(pick, strengths, random):
        why = f"alpha {pick.alpha:g} does not beat random directions of equal norm: nothing is applied"
    found = {"tasks": chosen.name, "n": len(chosen), "seed": seed, "guard": guard, "kl_guard": kl_guard}
    found |= {"points": [point.to_dict() for point in points], "chosen": None if why else pick.to_dict(), "why": why}
    found["random"] = [[asdict(rates) for rates in draw] for draw in random]
    if not why and checked:
        model.iti_top_k, model.iti_scope = pick.top_k, pick.scope
        pair = [Condition("plain"), Condition("steered", pick.alpha)]
        confirmed, _ = measure_all(model, tokenizer, checked, pair, sandbox, seed=seed)
        found["confirmed"] = {"tasks": checked.name, "conditions": [row.to_dict() for row in confirmed]}
    if apply_ and not why:
        apply_choice(repo, pick, heads)
    if out is not None:
        write_text(out / "sweep.json", json.dumps(found, indent=1) + "\n")
        if pick is not None:
            sweep_figure(points, pick, strengths, random, chosen.target, out / "figures" / "sweep.png")
    if json_:
        print(json.dumps(found, indent=1))
        return
    titles = ("K", "scope", "alpha", "correct", chosen.target, "both", "KL", "-alpha: correct", chosen.target, "KL")
    table = Table(*titles, f"asked, -alpha: {chosen.target}", "correct")
    for point in points:
        cells = [f"{100 * rate.mean:.1f}" for rate in (point.at.correct, point.at.target, point.at.both)]
        cells += [f"{point.kl:.3f}", f"{100 * point.minus.correct.mean:.1f}", f"{100 * point.minus.target.mean:.1f}"]
        cells += [f"{point.kl_minus:.3f}", f"{100 * point.against.target.mean:.1f}"]
        cells += [f"{100 * point.against.correct.mean:.1f}"]
        table.add_row(str(point.top_k), point.scope, f"{point.alpha:g}", *cells, style="bold" if point is pick else "")
    console.print(table)
    if why:
        console.print(why)
        return
    console.print(
        f"chosen: K {pick.top_k}, scope {pick.scope}, alpha {pick.alpha:g}" + (" (applied)" if apply_ else "")
    )
    if "confirmed" in found:
        console.print(Markdown(evaluation_table(confirmed, checked.target)))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="folder, file or Hub repo: older ITI files, or a baked checkpoint")],
    base: Annotated[str, typer.Option(help="Hub repo or folder of the plain Llama that it steers")],
    out: Annotated[Path, typer.Option(help="folder of the steered repo to write")],
    site: Annotated[str | None, typer.Option(help="head or residual; found out from the files by default")] = None,
    alpha: Annotated[float | None, typer.Option(help="strength; the source's own by default")] = None,
    scope: Annotated[str | None, typer.Option(help="all or generated; what the source does by default")] = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the source")] = None,
    base_revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the base")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is in --out")] = False,
    json_: Json = False,
) -> None:
    """Turn older ITI files, pickles among them, or a baked checkpoint into a steered repo that does the same."""
    found = convert_source(source, base, out, site, alpha, scope, revision, base_revision, overwrite)
    if json_:
        told = {
            "heads": len(found.directions),
            "site": found.directions.site,
            "alpha": found.alpha,
            "scope": found.scope,
        }
        print(json.dumps(told | {"said": found.said}))
        return
    for line in found.said:
        console.print(escape(line), highlight=False)
    console.print(f"{len(found.directions)} heads, written to {out}", highlight=False)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="the steered repo on disk")],
    repo: Annotated[str, typer.Argument(help="name on the Hub, owner/name")],
    private: Annotated[bool, typer.Option("--private")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="open a pull request, change nothing else")] = False,
    commit_message: Annotated[str | None, typer.Option()] = None,
    revision: Annotated[str | None, typer.Option(help="branch to push to; made if there is none")] = None,
    json_: Json = False,
) -> None:
    """Push a steered repo to the Hub: code, config, directions, tokenizer, card, report, figures; weights if self-contained."""
    found = push_folder(folder, repo, private, create_pr, commit_message, revision)
    if json_:
        print(json.dumps(asdict(found)))
        return
    console.print(f"{found.repo} at {found.commit}: {len(found.files)} files", highlight=False)
    if found.pull_request:
        console.print(found.pull_request, highlight=False)


@app.command()
def verify(
    repo: Annotated[str, typer.Argument(help="Hub repo or folder")],
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """What loading a repo would run, and whether that is this package's own code. Runs none of it. Exit code 2 if not."""
    found = verify_repo(repo, revision)
    if json_:
        print(json.dumps(asdict(found), indent=1))
    else:
        words = {"ours": "this package's own", "changed": "[red]changed[/red]", "unknown": "[red]unknown[/red]"}
        for file in found.code:
            console.print(f"{file.sha256}  {escape(file.name)}  {words[file.status]}", highlight=False, soft_wrap=True)
        for note in found.notes:
            console.print(escape(note), highlight=False, soft_wrap=True)
        for problem in found.problems:
            console.print(f"[red]problem:[/red] {escape(problem)}", highlight=False, soft_wrap=True)
        if not found.problems:
            console.print("nothing found that speaks against loading it")
    if found.problems:
        raise typer.Exit(2)


def numbers(text: str, kind: type, name: str) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected numbers separated by commas") from None


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
