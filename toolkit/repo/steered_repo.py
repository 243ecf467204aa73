"""What a steered repo on disk says of itself, in its files: all that a card is written from."""

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from huggingface_hub import ModelCard

from iti_llama import ITIDirections, ITILlamaConfig

from ..foundation.hashing import fingerprint_of
from ..measure.keep_labelled_set import FILE, read_part
from .licence import base_license


@dataclass(frozen=True)
class State:
    """report, sweep, evaluation: `iti_report.json`, `sweep.json` and `evaluation.json`, {} where there is none.
    base: the base's name on the Hub, None for one that was a folder. prompts: some of the data, (as the model is given
    them, as their writer wrote them)."""

    config: ITILlamaConfig
    directions: ITIDirections
    base: str | None
    report: dict = field(default_factory=dict)
    sweep: dict = field(default_factory=dict)
    evaluation: dict = field(default_factory=dict)
    prompts: tuple[tuple[str, str], ...] = ()

    @property
    def behaviour(self) -> str:
        return self.directions.provenance.get("behaviour", "")

    @property
    def name(self) -> str:
        """What the base is called."""
        return (self.base or self.directions.base_model or "A Llama").split("/")[-1]

    @cached_property  # the base's own card may be on the Hub
    def license(self) -> str | None:
        return base_license(self.base) or self.report.get("base_license")

    @property
    def adapter(self) -> bool:
        return self.config.base_model_name_or_path is not None

    @property
    def heads(self) -> int:
        return len(self.directions.top(self.config.iti_top_k))

    @property
    def measured(self) -> bool:
        """Whether the evaluation is of the steering as it is shipped: its alpha, heads and scope."""
        found, config = self.evaluation, self.config
        if "summary" not in found:
            return False
        same = (found["alpha"], found["heads"], found["scope"]) == (config.iti_alpha, self.heads, config.iti_scope)
        return same and found["directions"] == fingerprint_of(self.directions.top(config.iti_top_k))[:16]

    @property
    def failed(self) -> list[str]:
        """The gates that the steering as it is shipped did not pass, see `measure.gates`; none where it was not
        measured."""
        gates = self.evaluation.get("gates", ()) if self.measured else ()
        return [gate["name"] for gate in gates if not gate["passed"]]

    @property
    def budgeted(self) -> bool:
        """Whether alpha was chosen by a divergence budget alone, and is still that alpha."""
        found = self.sweep.get("budget")
        shipped = (self.config.iti_alpha, self.heads, self.config.iti_scope)
        return bool(found) and (found["alpha"], found["top_k"], found["scope"]) == shipped


def state_of(folder: Path, base: str | None = None) -> State:
    """Read a folder. `base` is the base's Hub name where the config does not say it (self-contained form); a card that
    is there already may say it too."""
    config = ITILlamaConfig.from_dict(_json(folder / "config.json"))
    directions = ITIDirections.load(folder / (config.iti_directions_file or "iti_directions.safetensors"))
    named = config.base_model_name_or_path
    if named is not None and not Path(named).is_absolute():
        base = named
    card = folder / "README.md"
    if base is None and card.is_file():
        found = ModelCard.load(card, ignore_metadata_errors=True).data.base_model
        base = found[0] if isinstance(found, list) else found
    return State(
        config,
        directions,
        base,
        *(_json(folder / name) for name in ("iti_report.json", "sweep.json", "evaluation.json")),
        prompts=_prompts(folder),
    )


def strengths_inside(sweep: dict, heads: int, scope: str) -> list[float]:
    """Strengths of a `sweep.json`, with these heads and this scope, in their order, up to the first at which more was
    lost than its guards allow (see `choose`); [] without a sweep."""
    points, found = sweep.get("points", ()), []
    plain = next((point["at"]["correct"]["mean"] for point in points if point["alpha"] == 0), 1.0)
    most = sweep.get("perplexity_guard", math.inf)
    own = [point for point in points if (point["top_k"], point["scope"]) == (heads, scope) and point["alpha"]]
    for point in sorted(own, key=lambda point: abs(point["alpha"])):
        lost = plain - point["at"]["correct"]["mean"]
        diverged = sweep.get("kl_guard") is not None and point["kl"] > sweep["kl_guard"]
        if lost > sweep.get("guard", 0.0) + 1e-9 or diverged or point.get("perplexity", 1.0) > most:
            break
        found.append(point["alpha"])
    return found


def _json(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: {type(found).__name__}; expected an object")
    return found


def _prompts(folder: Path) -> tuple[tuple[str, str], ...]:
    if not (folder / FILE).is_file():
        return ()
    rows = read_part(folder, "test", "validation")
    return tuple(dict.fromkeys((row.prompt, row.meta.get("shown", row.prompt)) for row in rows))
