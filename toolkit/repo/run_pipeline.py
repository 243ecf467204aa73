"""From a labelled file to a measured repo: fit, choose a strength, measure it once, write the card. Each step that is
done already is left alone, so that a killed run goes on."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from iti_llama import ITILlamaForCausalLM

from ..data.labelled_set import Example, checksum
from ..fit.positions import Policy
from ..fit.settings import FitSettings
from ..foundation.files import write_text
from ..foundation.sandbox import Sandbox
from ..measure.choose_strength import Grid
from ..measure.measure_steering import measure_steering
from ..measure.tasks import TaskSet
from .card import renew_card
from .fit_repo import fit_repo
from .steered_repo import SteeredRepo
from .sweep_repo import sweep_model


@dataclass(frozen=True)
class Fitted:
    """How the fit of a run is made. about: see `fit_repo`."""

    base: str
    policy: Policy
    settings: FitSettings
    scope: str
    about: dict[str, str]
    dataset: str
    revision: str | None = None
    dtype: str = "auto"
    device_map: str = "auto"
    base_name: str | None = None
    self_contained: bool = False

    @property
    def made_of(self) -> str:
        """What tells one base from another, as a hash: its name and revision; of a folder its config, and size, first
        and last mebibyte of each file of weights. All of 140 GB would take longer than the fit."""
        told = [self.base, self.revision, self.dtype, self.self_contained]
        if os.path.isdir(self.base):
            told[0] = os.path.realpath(self.base)
            for path in (Path(self.base, "config.json"), *sorted(Path(self.base).glob("*.safetensors"))):
                with path.open("rb") as file:
                    size, start = path.stat().st_size, file.read(1 << 20)
                    file.seek(max(0, size - (1 << 20)))
                    told.append([path.name, size, hashlib.sha256(start + file.read()).hexdigest()])
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def fitted(
    out: Path, how: Fitted, examples: Sequence[Example], command: str, progress: Callable[[str, int | None], None]
) -> bool:
    """Fit into `out`, unless that is done. Returns whether it was.

    Raises:
        FileExistsError: if `out` holds something else, or a fit of other data or settings.
    """
    report = out / "iti_report.json"
    if report.is_file():
        found = json.loads(report.read_text(encoding="utf-8"))
        wanted = {
            "data": checksum(examples),
            "settings": asdict(how.settings),
            "policy": str(how.policy),
            "scope": how.scope,
            "about": how.about,
            "base": how.made_of,
        }
        held = {
            "data": found["data"]["sha256"],
            "settings": asdict(FitSettings()) | found["settings"],  # one of an older version has fewer
            "policy": found["policy"],
            "scope": found["scope"],
            "about": found.get("about", {}),
            "base": found.get("made_of"),
        }
        other = [key for key in wanted if wanted[key] != held[key]]
        if other:
            found = f"holds a fit of another {other[0]} ({held[other[0]]}; asked: {wanted[other[0]]})"
            raise FileExistsError(f"{out}: {found}; choose another --out, or delete it")
        return True
    cache = out.parent / f"{out.name}.cache"
    fit_repo(
        how.base,
        examples,
        out,
        policy=how.policy,
        settings=how.settings,
        scope=how.scope,
        self_contained=how.self_contained,
        revision=how.revision,
        dtype=how.dtype,
        device_map=how.device_map,
        cache=cache,
        base_name=how.base_name,
        dataset=how.dataset,
        about=how.about,
        record={"command": command, "made_of": how.made_of},
        progress=progress,
    )
    shutil.rmtree(cache, ignore_errors=True)
    return False


def load_fitted(out: Path, how: Fitted):
    """The repo in `out`, on the device that was asked for, and its tokenizer."""
    from transformers import AutoTokenizer

    model = ITILlamaForCausalLM.from_pretrained(out, dtype=how.dtype, device_map=how.device_map).eval()
    return model, AutoTokenizer.from_pretrained(out, trust_remote_code=False)


def chosen(out: Path, model, tokenizer, tasks: TaskSet, grid: Grid, sandbox: Sandbox, asked: dict, progress) -> dict:
    """`sweep.json` of `out`: read, if it is of what is `asked`, else made and applied."""
    path = out / "sweep.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("asked") == asked:
            return found
    found, _ = sweep_model(model, tokenizer, tasks, grid, sandbox, out=out, apply_to=out, progress=progress)
    found |= {"asked": asked}  # said last: a run that is killed before the config has the choice chooses again
    write_text(path, json.dumps(found, indent=1) + "\n")
    return found


def measured(
    out: Path,
    model,
    tokenizer,
    tasks: TaskSet,
    sandbox: Sandbox,
    asked: dict,
    progress,
    check_guards: dict | None = None,
) -> dict:
    """`evaluation.json` of `out`: read, if it is of what is `asked` and of the strength in its config, else made, with
    the checks with `check_guards`, arguments of `measure_steering`, where they are given."""
    asked, state = asked | ({} if check_guards is None else {"check_guards": check_guards}), SteeredRepo.open(out)
    if state.is_measured and state.evaluation.get("asked") == asked:
        return state.evaluation
    model.iti_top_k, model.iti_scope, model.iti_alpha = state.default.top_k, state.scope, state.alpha
    shipped = [*state.shipped, asked]
    name = f"completions_{hashlib.sha256(json.dumps(shipped).encode()).hexdigest()[:12]}.jsonl"
    checks = {} if check_guards is None else {"checks": True, **check_guards}
    measured = measure_steering(model, tokenizer, tasks, sandbox, **checks, completions=out / name, progress=progress)
    found = measured.record | {"asked": asked}
    write_text(out / "evaluation.json", json.dumps(found, indent=1) + "\n")
    renew_card(out)
    return found
