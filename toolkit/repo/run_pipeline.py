"""From a labelled file to a measured repo: fit, choose a strength, measure it once, write the card. A step that is
done already is left alone, so a killed run goes on where it stopped."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.iti_directions import file_sha256

from ..data.labelled_set import Example, checksum
from ..fit.report import write_report
from ..foundation.files import write_text
from ..foundation.sandbox import LateSandbox, Sandbox
from ..measure.labelled_tasks import damage_set, labelled_set
from ..measure.measure_steering import measure_steering
from ..measure.request_tasks import file_of_target, read_target, request_tasks
from ..measure.sweep import count_answers
from ..measure.tasks import TaskSet
from .card import check_card, renew_card
from .fit_repo import fit_repo, read_for
from .open_repo import read_object
from .plan_run import plan_run
from .settings import RepoSettings, RunSettings
from .steered_repo import SteeredRepo
from .sweep_repo import sweep_model


@dataclass(frozen=True)
class RunResult:
    """repo: the folder. report, sweep, evaluation: `iti_report.json`, `sweep.json` and `evaluation.json` of it, as
    JSON types."""

    repo: Path
    report: dict
    sweep: dict
    evaluation: dict


@contextmanager
def no_progress(total: int | None = None):
    """A stand-in for a progress bar, see `run`."""
    yield lambda step, rows=None: None


def run(
    settings: RunSettings,
    progress: Callable = no_progress,
    say: Callable[[str], None] = lambda line: None,
    command: str = "",
) -> RunResult:
    """Fit, choose a strength on one half of the held-out groups, measure it on the other, write the card.

    progress: gives a context for a step of so many rows (or None); its function is called with (what is done, rows).
    say: called with a line on what was read, one on what there is to do and how long it takes (see `Plan`), and one as
    each of the three steps is done. command: goes into the record.

    Raises:
        ValueError, OSError: for a base, data or settings that cannot be used, before anything is written.
        ValueError: if no strength can be chosen; the fit and the sweep are kept in `settings.out`, and its card
            says so.
        FileExistsError: if `settings.out` holds something else, or a fit of other data or settings.
    """
    out, sandbox = Path(settings.out), LateSandbox(allow_unsandboxed=settings.allow_unsandboxed)
    check_card(out)
    if settings.damage:
        damage_set(settings.damage)  # refuses a file that is wrong, before the work
    if settings.target not in (None, "labels", "probe"):
        read_target(settings.target, sandbox)
    how = (settings.mapping, settings.raw, settings.system)
    examples = read_for(settings.base, settings.data, settings.revision, *how)
    say(f"{settings.data}: {examples.understood}")
    if settings.tasks is None:  # refuses a set without pairs, or with nothing to complete, before the work
        labelled_set(Path(settings.data).name, examples, pairs=settings.target in (None, "labels"))
    with progress(len(examples)) as advance:
        was_fitted = fit_once(
            settings, examples, command, advance, lambda *loaded: say(f"{plan_run(settings, examples, *loaded)}")
        )
    report = read_object(out / "iti_report.json")
    say(f"1 of 3, fitted{' before' if was_fitted else ''}: {report['verdict']}")

    model = ITILlamaForCausalLM.from_pretrained(out, **settings.placement.kwargs).eval()
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    to_choose, to_measure = (
        request_tasks(settings.request, part, tokenizer, sandbox) for part in ("validation", "test")
    )
    total = count_answers(len(to_choose), to_choose.asked is not None, settings.grid)
    with progress(total) as advance:
        sweep = choose_once(settings, model, tokenizer, to_choose, sandbox, advance)
    if sweep["why"]:
        advice = "nothing is measured. Try more groups, other --alphas, another --policy, or a wider guard"
        raise ValueError(f"{out}: no strength was chosen: {sweep['why']}, and {advice}")
    say(f"2 of 3, strength chosen on {sweep['n']} tasks: alpha {sweep['chosen']['alpha']:g}")

    with progress() as advance:
        evaluation = measure_once(settings, model, tokenizer, to_measure, sandbox, advance)
    say(f"3 of 3, measured on {evaluation['n']} other tasks:")
    return RunResult(out, report, sweep, evaluation)


def hash_base(settings: RepoSettings) -> str:
    """A hash that tells one base from another: of its name and revision, and for a folder also of its config and of
    the size, first and last mebibyte of each weights file. Hashing all of 140 GB would take longer than the fit."""
    base = os.fspath(settings.base)
    parts = [base, settings.revision, settings.placement.dtype, settings.self_contained]
    if os.path.isdir(base):
        parts[0] = os.path.realpath(base)
        for path in (Path(base, "config.json"), *sorted(Path(base).glob("*.safetensors"))):
            with path.open("rb") as file:
                size, start = path.stat().st_size, file.read(1 << 20)
                file.seek(max(0, size - (1 << 20)))
                parts.append([path.name, size, hashlib.sha256(start + file.read()).hexdigest()])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def hash_files(settings: RunSettings) -> dict[str, str]:
    """The SHA-256 of each file that the tasks, the target and the damage are read from."""
    named = {"tasks": settings.tasks, "target": file_of_target(settings.target or ""), "damage": settings.damage}
    return {what: file_sha256(Path(name)) for what, name in named.items() if name and Path(name).is_file()}


def fit_once(
    settings: RunSettings, examples: Sequence[Example], command: str, progress: Callable, loaded: Callable
) -> bool:
    """Fit into `settings.out`, unless that is done already; returns whether it was. loaded: see `fit_repo`.

    Raises:
        FileExistsError: if the folder holds something else, or a fit of other data or settings.
    """
    repo, path = settings.repo, Path(settings.out, "iti_report.json")
    made_of = hash_base(repo)
    if not path.is_file():
        record = {"command": command, "made_of": made_of}
        name = Path(settings.data).name
        fit_repo(repo, examples, settings.out, dataset=name, record=record, progress=progress, loaded=loaded)
        shutil.rmtree(repo.cache, ignore_errors=True)
        return False
    report, fitting = read_object(path), asdict(repo.fitting)
    wanted = {
        "data": checksum(examples),
        "settings": fitting,
        "policy": repo.policy,
        "scope": repo.scope,
        "about": repo.about,
        "base": made_of,
    }
    held = {
        "data": report["data"]["sha256"],
        "settings": {name: report["settings"].get(name, value) for name, value in fitting.items()},  # older: fewer
        "policy": report["policy"],
        "scope": report["scope"],
        "about": report.get("about", {}),
        "base": report.get("made_of"),
    }
    other = next((key for key in wanted if wanted[key] != held[key]), None)
    if other:
        holds = f"holds a fit of another {other} ({held[other]}; asked: {wanted[other]})"
        raise FileExistsError(f"{settings.out}: {holds}; choose another --out, or delete it")
    if command and report.get("command") != command:  # the card quotes the command that gives all of it
        write_report(report | {"command": command}, path)
    return True


def choose_once(settings: RunSettings, model, tokenizer, tasks: TaskSet, sandbox: Sandbox, progress: Callable) -> dict:
    """The content of `sweep.json`: read if it is for these settings, else made and applied."""
    path = Path(settings.out, "sweep.json")
    asked = {"tasks": asdict(settings.request) | {"folder": ""}, "grid": asdict(settings.grid)}
    made_from = json.loads(json.dumps(asked | {"files": hash_files(settings)}))
    if path.is_file() and (sweep := read_object(path)).get("asked") == made_from:
        return sweep
    sweep, _ = sweep_model(
        model, tokenizer, tasks, settings.grid, sandbox, out=path.parent, apply_to=path.parent, seed=settings.seed,
        progress=progress,
    )  # fmt: skip
    sweep |= {"asked": made_from}  # last: a run that is killed before the config has the choice chooses again
    write_text(path, json.dumps(sweep, indent=1) + "\n")
    return sweep


def measure_once(
    settings: RunSettings, model, tokenizer, tasks: TaskSet, sandbox: Sandbox, progress: Callable
) -> dict:
    """The content of `evaluation.json`: read if it is for these settings and the config's strength, else made."""
    out, repo = Path(settings.out), SteeredRepo.open(settings.out)
    made_from = {"tasks": asdict(settings.request) | {"folder": ""}, "measuring": asdict(settings.measuring)}
    made_from |= {"files": hash_files(settings)}
    if repo.is_measured and repo.evaluation.get("asked") == made_from:
        return repo.evaluation
    model.iti_top_k, model.iti_scope, model.iti_alpha = repo.default.top_k, repo.scope, repo.alpha
    name = hashlib.sha256(json.dumps([*repo.shipped, made_from]).encode()).hexdigest()[:12]
    measured = measure_steering(
        model, tokenizer, tasks, sandbox, settings.measuring, completions=out / f"completions_{name}.jsonl",
        progress=progress,
    )  # fmt: skip
    evaluation = measured.record | {"asked": made_from}
    write_text(out / "evaluation.json", json.dumps(evaluation, indent=1) + "\n")
    renew_card(out)
    return evaluation
