"""`iti-llama run`"""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..fit.settings import FitSettings
from .evaluate import short_summary
from .options import (
    EVEN,
    GATES_HELP,
    Alphas,
    Base,
    Behaviour,
    DeviceMap,
    Dtype,
    Header,
    Json,
    MaxNewTokens,
    PerplexityGuard,
    Seed,
    TargetOption,
    Unsandboxed,
    ask_behaviour,
    command_line,
    console,
    progress_bar,
    strengths,
)


def run(
    data: Annotated[
        Path, typer.Argument(help="labelled set: JSON Lines of prompt (or messages), completion, label, group")
    ],
    base: Base,
    out: Annotated[Path, typer.Option(help="folder of the steered repo; a killed run goes on from there")],
    behaviour: Behaviour = None,
    target: TargetOption = None,
    tasks: Annotated[
        str | None, typer.Option(help="JSON Lines file of prompts to measure on, instead of the set's held-out groups")
    ] = None,
    header: Header = None,
    alphas: Alphas = EVEN,
    kl_guard: Annotated[float, typer.Option(help="largest mean KL from the plain model, in nats a token")] = 0.25,
    guard: Annotated[float, typer.Option(help="share of correct or intact answers that may be lost")] = 0.05,
    perplexity_guard: PerplexityGuard = 1.1,
    gates: Annotated[bool, typer.Option("--gates/--no-gates", help=GATES_HELP)] = True,
    top_k: Annotated[str, typer.Option(help="heads to steer, or 'cv' to choose by cross-validation")] = "48",
    policy: Annotated[
        str, typer.Option(help="where activations are read: last, completion-mean or 'fraction F'")
    ] = "completion-mean",
    scope: Annotated[str, typer.Option(help="all or generated")] = "all",
    test_share: Annotated[
        float, typer.Option(help="share of the groups held out: half to choose on, half to measure on")
    ] = 0.4,
    limit: Annotated[int, typer.Option("--n", "--limit", min=2, metavar="N", help="most tasks of each half")] = 200,
    max_new_tokens: MaxNewTokens = None,
    push: Annotated[str | None, typer.Option(help="Hub repo to push to at the end")] = None,
    private: Annotated[bool, typer.Option("--private", help="of a new Hub repo")] = False,
    token: Annotated[
        str | None,
        typer.Option(envvar="HF_TOKEN", help="of --push: one with write access; that of `hf auth login` by default"),
    ] = None,
    self_contained: Annotated[bool, typer.Option("--self-contained", help="write the weights too")] = False,
    base_name: Annotated[str | None, typer.Option(help="what the files call the base")] = None,
    language: Annotated[str | None, typer.Option(help="of the texts, as en or code, for the card")] = None,
    hub_dataset: Annotated[str | None, typer.Option(help="name of the labelled set on the Hub, for the card")] = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of the base")] = None,
    dtype: Dtype = "auto",
    device_map: DeviceMap = "auto",
    allow_unsandboxed: Unsandboxed = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """From a labelled file to a measured repo with its card: fit, choose a strength on one half of the held-out
    groups, measure it once on the other, push."""
    from iti_llama import ITILlamaConfig

    from ..fit.positions import Policy
    from ..foundation.sandbox import LateSandbox
    from ..measure.choose_strength import Grid
    from ..measure.labelled_tasks import labelled_set
    from ..measure.sweep import POINTS
    from ..repo.fit_repo import read_for
    from ..repo.push import check_push
    from ..repo.push import push as push_folder
    from ..repo.run_pipeline import Fitted, chosen, fitted, load_fitted, measured
    from .task_sets import Asked, task_set_of

    if top_k != "cv" and not top_k.isdecimal():
        raise ValueError(f"--top-k is {top_k!r}; expected a number of heads, or cv")
    settings = FitSettings(top_k=None if top_k == "cv" else int(top_k), test_share=test_share, seed=seed)
    grid = Grid(
        alphas=strengths(alphas),
        scopes=[ITILlamaConfig(iti_scope=scope).iti_scope],
        guard=guard,
        kl_guard=kl_guard,
        perplexity_guard=perplexity_guard,
    )
    if push is not None:
        check_push(push, base, self_contained, token)
    examples = read_for(base, data, revision)
    about = {"behaviour": ask_behaviour(behaviour, required=True), "language": language, "hub_dataset": hub_dataset}
    about = {key: value for key, value in about.items() if value}
    how = Fitted(
        base, Policy.parse(policy), settings, scope, about, data.name, revision, dtype, device_map, base_name,
        self_contained,
    )  # fmt: skip
    if tasks is None and target in (None, "labels"):
        labelled_set(data.name, examples, pairs=True)  # refuses a set without pairs before the work
    sandbox, command = LateSandbox(allow_unsandboxed=allow_unsandboxed), command_line()

    def say(text: str) -> None:
        if not json_:
            console.print(text, highlight=False, soft_wrap=True, markup=False)

    with progress_bar(len(examples)) as advance:
        before = fitted(out, how, examples, command, advance)
    verdict = json.loads((out / "iti_report.json").read_text(encoding="utf-8"))["verdict"]
    say(f"1 of 3, fitted{' before' if before else ''}: {verdict}")
    model, tokenizer = load_fitted(out, how)
    asked = Asked(tasks, target, header, limit, seed, str(out), max_new_tokens=max_new_tokens, halved=True)
    record = {"target": target, "tasks": tasks, "header": header, "n": limit, "max_new_tokens": max_new_tokens}
    with progress_bar() as advance:
        halves = {part: task_set_of(asked, part, tokenizer, sandbox, advance) for part in ("validation", "test")}
    each = 2 if halves["validation"].asked is None else 3
    tried = POINTS if grid.alphas is None else len(grid.alphas)
    rows = (each * (1 + tried) + 6 * tried) * len(halves["validation"])
    guards = {"guard": guard, "perplexity_guard": perplexity_guard}
    with progress_bar(rows) as advance:
        choice = chosen(
            out, model, tokenizer, halves["validation"], grid, sandbox,
            record | {"alphas": alphas, "kl_guard": kl_guard} | guards, advance,
        )  # fmt: skip
    if choice["why"]:
        say(f"2 of 3, no strength chosen: {choice['why']}; alpha stays {model.iti_alpha:g}")
    else:
        say(f"2 of 3, strength chosen on {choice['n']} tasks: alpha {choice['chosen']['alpha']:g}")
    with progress_bar() as advance:
        found = measured(out, model, tokenizer, halves["test"], sandbox, record, advance, guards if gates else None)
    if json_:
        print(json.dumps({"sweep": choice, "evaluation": found}, indent=1))
    else:
        say(f"3 of 3, measured on {found['n']} other tasks:")
        console.print(short_summary(found))
        for gate in found.get("gates", ()):
            say(f"{gate['name']}: {'pass' if gate['passed'] else 'FAIL'}: {gate['why']}")
        say(f"the repo with its card: {out}")
    if push is not None and choice["why"]:
        raise ValueError(f"not pushed to {push}: no strength was chosen ({choice['why']})")
    if push is not None:
        pushed = push_folder(out, push, private=private, token=token)
        say(f"{pushed.repo} at {pushed.commit}: {len(pushed.files)} files")
    else:
        say(f"next: iti-llama push {out} OWNER/NAME, or look at it: iti-llama space --repo {out}")
