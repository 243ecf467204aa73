"""Sweep a steered repo on disk: the result is kept beside it, and its card says so."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.files import write_text
from ..foundation.sandbox import Sandbox
from ..measure.choose_strength import Budget, Choice, Grid, choose_strength, strength_of_budget
from ..measure.evaluate import sweep_settings_of
from ..measure.saved_completions import SavedCompletions
from ..measure.settings import SWEEP_BATCH
from ..measure.sweep import Point
from ..measure.sweep_figure import sweep_figure
from ..measure.tasks import TaskSet
from .card import check_card, renew_card
from .steered_repo import change_fields


def sweep_model(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tasks: TaskSet,
    grid: Grid,
    sandbox: Sandbox | None,
    *,
    budget_alone: bool = False,
    confirm: TaskSet | None = None,
    out: Path | None = None,
    apply_to: Path | None = None,
    batch_size: int = SWEEP_BATCH,
    seed: int = 0,
    command: str = "",
    progress: Callable[[str, int], None] = lambda step, rows: None,
    told: Callable[[list[Point]], None] = lambda points: None,
) -> tuple[dict, Choice | Budget]:
    """Choose alpha, K and scope; returns `sweep.json` and the choice. With `out` that file, a figure, and the answers
    for a killed run to go on from are written there. `apply_to` is a repo: its config takes the choice, its card says
    so, and it gets file and figure too. With `budget_alone` no task is answered: alpha is the largest inside the
    grid's budget. told: see `sweep`."""
    if apply_to is not None:
        check_card(apply_to)
    record = {"tasks": tasks.name, "n": len(tasks), "seed": seed} | ({"command": command} if command else {})
    heads, store = len(model.iti_directions), None
    if budget_alone:
        choice = strength_of_budget(model, tokenizer, next(iter(tasks.texts.values())), grid)
        record |= {"budget": asdict(choice)}
    else:
        store = out and SavedCompletions(out / "sweep_completions.jsonl", sweep_settings_of(model, tasks))
        choice = choose_strength(
            model, tokenizer, tasks, grid, sandbox, confirm, batch_size, seed, progress, store, told
        )
        record |= {"target": tasks.target, "sound": tasks.sound} | choice.to_dict()
        if choice.confirmed:
            rows = [row.to_dict() for row in choice.confirmed]
            record["confirmed"] = {"tasks": confirm.name, "conditions": rows}
    for folder in dict.fromkeys(folder for folder in (out, apply_to) if folder is not None):
        picture = folder / "figures" / "sweep.png"
        if budget_alone:
            picture.unlink(missing_ok=True)  # that of an earlier sweep
        else:
            best, site = None if choice.why else choice.best, model.iti_directions.site
            sweep_figure(choice.points, best, choice.alphas, choice.random, tasks.target, picture, tasks.sound, site)
        write_text(folder / "sweep.json", json.dumps(record, indent=1) + "\n")  # last: a run goes on from here
    if store is not None:
        store.path.unlink(missing_ok=True)  # the answers that a killed run would have gone on from
    if apply_to is not None:
        if budget_alone or not choice.why:
            write_choice(apply_to, choice if budget_alone else choice.best, heads)
        renew_card(apply_to)
    return record, choice


def write_choice(folder: str | os.PathLike, point: Point, heads: int) -> None:
    """Write the point into the config.json of a repo on disk. `heads` are those in its directions file."""
    top_k = None if point.top_k == heads else point.top_k
    change_fields(folder, iti_alpha=point.alpha, iti_top_k=top_k, iti_scope=point.scope)
