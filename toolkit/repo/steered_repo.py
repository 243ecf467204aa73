"""A steered repo, in a folder or on the Hub: its config, its behaviours and their directions, and the records for its
card. They are read once and checked as loading checks them, without torch and without running any of it."""

import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from huggingface_hub import ModelCard

from iti_llama.iti_directions import (
    Behaviour,
    ITIDirections,
    behaviours_of,
    check_fields,
    check_harmless,
    file_sha256,
    read_behaviours,
)

from ..foundation.files import write_text
from ..foundation.hashing import fingerprint_of
from ..foundation.strength_range import StrengthRange
from ..measure.keep_labelled_set import FILE, read_parts
from ..measure.settings import CHANCE
from .licence import base_license
from .open_repo import OpenRepo, open_repo, read_object
from .replace_parts import one_line, read_card


LLAMA_7B = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}
"""The geometry that a config.json without these fields describes: the defaults of `LlamaConfig`."""


def steering_fields(fields: dict, where: str = "config.json") -> dict:
    """A config.json with the defaults of its steering fields filled in.

    Raises:
        ValueError: naming the field, if it is not that of a steered model, or would not load.
    """
    check_harmless(fields, where)
    if (model_type := fields.get("model_type")) != "iti_llama":
        raise ValueError(f"{where} has model_type {model_type!r}; expected 'iti_llama'")
    try:
        return fields | check_fields(fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def change_fields(folder: str | os.PathLike, **changes) -> None:
    """Write steering fields into the config.json of a repo on disk. Raises `ValueError`, and writes nothing, if they
    would not load."""
    fields = open_repo(folder).config() | changes
    steering_fields(fields, f"{folder}/config.json")
    write_text(Path(folder, "config.json"), json.dumps(fields, indent=2, sort_keys=True) + "\n")


@dataclass(frozen=True)
class SteeredRepo:
    """opened: its files. fields: config.json, with the steering's defaults. behaviours: by name, the default one
    first. directions: by the same names, also those that `top_k` leaves out. card_base: the base's name on the Hub, if
    the config does not say it (self-contained form)."""

    opened: OpenRepo
    fields: dict
    behaviours: dict[str, Behaviour]
    directions: dict[str, ITIDirections]
    card_base: str | None = None

    @classmethod
    def open(
        cls, repo: str | os.PathLike, revision: str | None = None, framework: str = "np", base: str | None = None
    ) -> "SteeredRepo":
        """Read a folder or a Hub repo. framework: that of the directions' arrays, see `ITIDirections.load`. base:
        the base's Hub name, if the config does not say it; an existing card may say it too.

        Raises:
            OSError: if the repo, its config.json or a directions file is not there.
            ValueError: if it is not a steered repo, or would not load.
        """
        opened = open_repo(repo, revision)
        return cls.read(opened, opened.config(), framework, base)

    @classmethod
    def read(cls, opened: OpenRepo, config: dict, framework: str = "np", base: str | None = None) -> "SteeredRepo":
        """As `open`, with a config.json that was read already."""
        fields = steering_fields(config, f"{opened.repo}/config.json")
        if not (behaviours := behaviours_of(fields)):
            raise ValueError(f"{opened.repo}: iti_directions_file is null, so this model is not steered")
        config = SimpleNamespace(**LLAMA_7B | fields)
        config.head_dim = fields.get("head_dim") or config.hidden_size // config.num_attention_heads
        directions = read_behaviours(config, opened.get, opened.repo, framework)
        by_name = {behaviour.name: behaviour for behaviour in behaviours.values()}
        directions = {behaviour.name: directions[key] for key, behaviour in behaviours.items()}
        return cls(opened, fields, by_name, directions, base)

    @property
    def folder(self) -> Path:
        return Path(self.opened.repo)

    @property
    def default(self) -> Behaviour:
        """The behaviour of `iti_directions_file`."""
        return next(iter(self.behaviours.values()))

    @property
    def others(self) -> list[Behaviour]:
        return list(self.behaviours.values())[1:]

    @property
    def default_directions(self) -> ITIDirections:
        return self.directions[self.default.name]

    def used(self, behaviour: Behaviour | None = None) -> ITIDirections:
        """The directions that a behaviour, by default the default one, steers with."""
        behaviour = behaviour or self.default
        return self.directions[behaviour.name].top(behaviour.top_k)

    @property
    def alpha(self) -> float:
        return self.default.alpha

    @property
    def heads(self) -> int:
        return len(self.used())

    @property
    def scope(self) -> str:
        return self.fields["iti_scope"]

    @property
    def shipped(self) -> tuple[float, int, str]:
        """(alpha, heads, scope)."""
        return self.alpha, self.heads, self.scope

    @property
    def weights_from(self) -> str | None:
        """The base that the weights come from (adapter form); None if they are in the repo."""
        return self.fields["base_model_name_or_path"]

    @property
    def base_revision(self) -> str | None:
        return self.fields["base_model_revision"]

    @cached_property
    def base(self) -> str | None:
        """The base's name on the Hub, None if the base was a folder."""
        if self.weights_from is not None and not Path(self.weights_from).is_absolute():
            return self.weights_from
        if self.card_base is not None:
            return self.card_base
        try:
            named = ModelCard(read_card(self.opened.get("README.md"))).data.base_model
        except FileNotFoundError:
            return None
        named = named[0] if isinstance(named, list) and named else named
        return str(named) if named else None

    @property
    def base_title(self) -> str:
        """The base's name, without its owner."""
        return one_line((self.base or self.default_directions.base_model or "A Llama").split("/")[-1])

    @property
    def provenance(self) -> dict[str, str]:
        return self.default_directions.provenance

    @property
    def does(self) -> str:
        """What the default behaviour does, in words on one line; "" if that is not recorded."""
        return one_line(self.provenance.get("behaviour", ""))

    @cached_property  # the base's own card may be on the Hub
    def license(self) -> str | None:
        return base_license(self.base) or self.report.get("base_license")

    @cached_property
    def report(self) -> dict:
        """`iti_report.json`; {} if there is none, as for the two below."""
        return self._record("iti_report.json")

    @cached_property
    def sweep(self) -> dict:
        return self._record("sweep.json")

    @cached_property
    def evaluation(self) -> dict:
        evaluation = self._record("evaluation.json")
        if "gates" in evaluation:  # what versions up to 0.2 called the checks
            evaluation["checks"] = evaluation.pop("gates")
        return evaluation

    def _record(self, name: str) -> dict:
        try:
            return read_object(self.opened.get(name))
        except FileNotFoundError:
            return {}

    @cached_property
    def prompts(self) -> tuple[tuple[str, str], ...]:
        """The prompts that were held out from fitting: (as the model gets it, as its writer wrote it)."""
        if not (self.folder / FILE).is_file():
            return ()
        rows = read_parts(self.folder, "test", "validation")
        return tuple(dict.fromkeys((row.prompt, row.meta.get("shown", row.prompt)) for row in rows))

    @property
    def is_measured(self) -> bool:
        """Whether the evaluation measured the steering as it is shipped: its alpha, heads and scope."""
        evaluation = self.evaluation
        if "summary" not in evaluation:
            return False
        same = (evaluation["alpha"], evaluation["heads"], evaluation["scope"]) == self.shipped
        return same and evaluation["directions"] == fingerprint_of(self.used())[:16]

    @property
    def failed_checks(self) -> list[str]:
        """The checks that the steering as it is shipped failed, see `measure.checks`; none if it was not measured."""
        checks = self.evaluation.get("checks", ()) if self.is_measured else ()
        further = [f"{name} of {self.together['name']}" for name in self.together["failed"]] if self.together else []
        return [check["name"] for check in checks if not check["passed"]] + further

    @cached_property
    def together(self) -> dict | None:
        """What the evaluation says of two behaviours at once (see `add_instruction`), if it measured those of this
        repo, at their strengths."""
        record, behaviours = self.evaluation.get("together"), self.behaviours.values()
        if record is None:
            return None
        now = {
            "strengths": {behaviour.name: behaviour.alpha for behaviour in behaviours},
            "directions": {behaviour.name: fingerprint_of(self.used(behaviour))[:16] for behaviour in behaviours},
            "scope": self.scope,
        }
        return record if all(record.get(key) == value for key, value in now.items()) else None

    def strengths_allowed(self, behaviour: Behaviour | None = None, scope: str | None = None) -> StrengthRange:
        """The strengths that are as good as measured, for a behaviour (by default the default one) in a scope: its
        own, those of `strengths_inside`, and all weaker ones, towards the behaviour and away from it."""
        behaviour = behaviour or self.default
        sweep = self.sweep if behaviour.file == self.default.file else {}
        inside = strengths_inside(sweep, len(self.used(behaviour)), scope or self.scope)
        shipped, measured = abs(behaviour.alpha), max(map(abs, inside), default=0.0)
        most = max(shipped, measured)
        return StrengthRange(-most, most, bool(inside) and measured >= shipped)

    @property
    def is_budgeted(self) -> bool:
        """Whether alpha was chosen by a divergence budget alone, and is still that alpha."""
        budget = self.sweep.get("budget")
        return bool(budget) and (budget["alpha"], budget["top_k"], budget["scope"]) == self.shipped

    def check_addition(self, name: str, overwrite: bool = False) -> None:
        """Raises `FileExistsError` or `ValueError` if a further behaviour cannot have this name."""
        if name in (self.default.name, "default"):
            raise ValueError(f"--name is {name!r}, that of the repo's own directions; expected another")
        if name in self.behaviours and not overwrite:
            raise FileExistsError(
                f"{self.folder}: has a behaviour {name!r}; choose another --name, or pass --overwrite"
            )
        check_fields(self.fields | {"iti_behaviours": self.fields["iti_behaviours"] | {name: {}}})

    def add(self, name: str, directions: ITIDirections, alpha: float, top_k: int | None = None) -> None:
        """Put a further behaviour into a repo on disk, or replace one. If a new one is cut off, the repo stays as it
        was.

        Raises:
            ValueError: if the directions are for another base. Nothing is written then.
        """
        if self.default_directions.base_model != directions.base_model:
            held, given = self.default_directions.base_model, directions.base_model
            raise ValueError(f"{self.folder} steers {held!r}, not {given!r}: pass its base as --base")
        file = f"iti_directions.{name}.safetensors"
        staged = directions.save(self.folder / f".{file}.new")
        try:
            entry = {"file": file, "alpha": alpha, "top_k": top_k, "sha256": file_sha256(staged)}
            if name not in self.behaviours:
                os.replace(staged, self.folder / file)  # before the config, which names no file that is not there
            change_fields(self.folder, iti_behaviours=self.fields["iti_behaviours"] | {name: entry})
            if name in self.behaviours:
                os.replace(staged, self.folder / file)  # after the digest: if this is cut off, an old file is refused
        finally:
            staged.unlink(missing_ok=True)


def strengths_inside(sweep: dict, heads: int, scope: str) -> list[float]:
    """The strengths of a `sweep.json` with these heads and this scope, weakest first: up to the one that was chosen,
    and further ones before the first that loses more than the guards allow (see `choose_point`, and `choose_steering`
    for a sentence); [] without a sweep."""
    points, inside, guard = sweep.get("points", ()), [], sweep.get("guard", 0.0) + 1e-9
    plain = next((point for point in points if point["alpha"] == 0), {"at": {"correct": {"mean": 1.0}}})
    most = sweep.get("perplexity_guard", math.inf)
    steered = [point for point in points if (point["top_k"], point["scope"]) == (heads, scope) and point["alpha"]]
    chosen = abs(sweep["chosen"]["alpha"]) if sweep.get("chosen") in steered else 0.0
    for point in sorted(steered, key=lambda point: abs(point["alpha"])):
        near = sweep.get("kl_guard") is None or point["kl"] <= sweep["kl_guard"]
        whole = point["at"] is not None and point.get("perplexity", 1.0) <= most
        whole = whole and plain["at"]["correct"]["mean"] - point["at"]["correct"]["mean"] <= guard
        if (own := plain.get("answering")) and own["low"] > CHANCE:
            whole = whole and own["mean"] - point["answering"]["mean"] <= guard
        if not (near and whole) and abs(point["alpha"]) > chosen:  # NaN passes neither
            break
        inside.append(point["alpha"])
    return inside
