"""What an export is made of: a repo's directions and strength, and its base's weights, read tensor by tensor."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from iti_llama import ITIDirections, ITILlamaConfig
from iti_llama.iti_directions import project
from iti_llama.loading_iti_llama import _check_base, _read_base_config

from ..foundation.files import folder_of
from ..repo.folder import TOKENIZER_FILES
from .gguf_patch import ExportError


PATTERNS = [*TOKENIZER_FILES, "*.safetensors", SAFE_WEIGHTS_INDEX_NAME, "*.json", "README.md"]


@dataclass(frozen=True)
class Source:
    """A steered repo, opened. repo: its name or folder. folder, base: where its files and its base's lie on this
    machine. config: with the strength, heads and scope that are exported. base_name: for people. base_config: the
    base's config.json. others: directions of the further behaviours. shards: of the base, by name, with the tensors
    that each holds."""

    repo: str
    folder: Path
    base: Path
    base_name: str
    config: ITILlamaConfig
    base_config: dict
    directions: ITIDirections
    others: dict[str, ITIDirections]
    shards: dict[str, list[str]]

    @property
    def kind(self) -> str:
        """What an export of it is: "steered", or "plain" at alpha 0."""
        return "steered" if self.config.iti_alpha else "plain"

    def tensor(self, name: str) -> torch.Tensor:
        shard = next(shard for shard, names in self.shards.items() if name in names)
        with safe_open(self.base / shard, framework="pt") as file:
            return file.get_tensor(name)

    def tensors(self, shard: str) -> Iterator[tuple[str, torch.Tensor]]:
        with safe_open(self.base / shard, framework="pt") as file:
            for name in self.shards[shard]:
                yield name, file.get_tensor(name)

    def shifts(self) -> dict[int, torch.Tensor]:
        """What is added to each steered layer's attention output, at each behaviour's strength, in units of
        `iti_alpha`, as the model itself computes it: {layer: float32 [hidden_size]}. One output projection is read at
        a time. With one behaviour that is its shift at alpha 1."""
        shifts: dict[int, torch.Tensor] = {}
        for directions, top_k, alpha in self._parts():
            linear = torch.nn.Linear(1, 1, bias=False)
            for layer, offset in sorted(directions.top(top_k).offsets().items()):
                if directions.site == "head":
                    linear.weight = torch.nn.Parameter(self.tensor(o_proj(layer)), requires_grad=False)
                    offset = project(linear, offset, linear.weight.dtype)
                shifts[layer] = shifts[layer] + alpha * offset if layer in shifts else alpha * offset
        return dict(sorted(shifts.items()))

    def _parts(self) -> list[tuple[ITIDirections, int | None, float]]:
        """Of each behaviour that does something its directions, heads, and strength in units of `iti_alpha`."""
        entries = self.config.iti_others
        others = [(self.others[name], entry["top_k"], entry["alpha"]) for name, entry in entries.items()]
        others = [(held, top_k, alpha / self.config.iti_alpha) for held, top_k, alpha in others if alpha != 0]
        return [(self.directions, self.config.iti_top_k, 1.0), *others]


def o_proj(layer: int, part: str = "weight") -> str:
    return f"model.layers.{layer}.self_attn.o_proj.{part}"


def open_source(
    repo: str | os.PathLike,
    alpha: float | None = None,
    top_k: int | None = None,
    scope: str | None = None,
    revision: str | None = None,
    name: str | None = None,
) -> Source:
    """Open a steered repo on the Hub or on disk, with another strength, number of heads or scope where they are given.
    Of several behaviours `name` takes one alone.

    Raises:
        ExportError: if there is no behaviour of that name, if the scope is "generated", the base is quantised, or its
            weights are not in safetensors.
        FileNotFoundError, ValueError: as for loading it, if the base is not what the config describes among them.
    """
    folder = _folder(repo, revision)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{repo}: no config.json; expected a steered repo")
    config = ITILlamaConfig.from_dict(json.loads(path.read_text(encoding="utf-8")), name_or_path=str(folder))
    if name is not None:
        _alone(config, name, repo)
    for field, value in (("iti_alpha", alpha), ("iti_top_k", top_k), ("iti_scope", scope)):
        if value is not None:
            setattr(config, field, value)
    if alpha == 0:  # the plain base is asked for
        for entry in config.iti_others.values():
            entry["alpha"] = 0.0
    config.validate_iti()
    if config.iti_directions_file is None:
        raise ExportError(f"{repo}: iti_directions_file is null, so there is no steering to export")
    if config.iti_scope != "all":
        raise ExportError(
            f"{repo}: iti_scope is 'generated', but what is exported acts on every position, of the prompt too; pass "
            "--scope all to say that this is wanted"
        )
    directions = ITIDirections.load(folder / config.iti_directions_file)
    directions.check_geometry(config, str(folder / config.iti_directions_file))
    directions.top(config.iti_top_k)
    entries = config.iti_others.items()
    others = {other: ITIDirections.load(folder / entry["file"]) for other, entry in entries}
    for each, held in {config.iti_name: directions, **others}.items():
        if held.gate is not None and config.iti_alpha != 0:
            raise ExportError(
                f"{repo}: the directions of {each!r} have a gate, which decides for each prompt, but what is exported "
                "acts on every one; save them without it (model.set_iti_directions(replace(directions, gate=None)))"
            )
    if config.iti_alpha == 0 and any(entry["alpha"] for _, entry in entries):
        raise ExportError(
            f"{repo}: iti_alpha is 0, but {', '.join(others)} would still steer, and an export scales the mix by "
            "iti_alpha; name one (--name), set their strengths to 0, or iti_alpha to another number"
        )
    named = config.base_model_name_or_path
    base = folder if named is None else _folder(named, config.base_model_revision)
    fields = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if fields.get("quantization_config"):
        raise ExportError(
            f"{named or repo}: the base is quantised, and its output projections are known through their module only; "
            "export from the base in full precision, and quantise what comes out"
        )
    if named is not None:
        _check_base(config, _read_base_config(str(base), None, {})[0])
    base_name = named if named and not os.path.isabs(named) else Path(named or directions.base_model or folder).name
    return Source(str(repo), folder, base, base_name, config, fields, directions, others, _shards(base))


def _alone(config: ITILlamaConfig, name: str, repo: str | os.PathLike) -> None:
    """Make the behaviour `name` the only one."""
    entry = config.iti_others.get(name)
    if entry is None and name != config.iti_name:
        held = ", ".join([config.iti_name, *config.iti_others])
        raise ExportError(f"{repo}: has no behaviour {name!r}; it has {held}")
    if entry is not None:
        config.iti_directions_file = entry["file"]
        config.iti_alpha, config.iti_top_k = entry["alpha"], entry["top_k"]
    config.iti_behaviours = {}


def _folder(repo: str | os.PathLike, revision: str | None) -> Path:
    return folder_of(repo) or Path(snapshot_download(str(repo), revision=revision, allow_patterns=PATTERNS))


def _shards(base: Path) -> dict[str, list[str]]:
    index = base / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    elif (base / SAFE_WEIGHTS_NAME).is_file():
        names = [SAFE_WEIGHTS_NAME]
    else:
        raise ExportError(f"{base}: no model.safetensors; expected weights in safetensors")
    shards = {}
    for name in names:
        with safe_open(base / name, framework="pt") as file:
            shards[name] = list(file.keys())
    return shards
