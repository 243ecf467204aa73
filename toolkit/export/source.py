"""Open what an export is made of: a repo's directions and strength, and its base's weights, read tensor by tensor."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from iti_llama import ITILlamaConfig
from iti_llama.iti_directions import Behaviour
from iti_llama.loading_iti_llama import check_base, read_base_config

from ..foundation.files import folder_of
from ..repo.folder import TOKENIZER_FILES, weight_files
from ..repo.open_repo import read_object
from ..repo.steered_repo import SteeredRepo
from .select_behaviours import ExportError, mix_shifts, select_behaviours, shares_of


PATTERNS = [*TOKENIZER_FILES, "*.safetensors", SAFE_WEIGHTS_INDEX_NAME, "*.json", "README.md"]


@dataclass(frozen=True)
class Source:
    """A steered repo and its base. repo: its name or folder. steered: its files on this machine. behaviours: as they
    are exported, see `select_behaviours`. scope: the positions that are shifted. base: the folder of the base's files
    on this machine. base_name: the base's name for people. hub_base: its name on the Hub, if that is known.
    base_config: its config.json. shards: the names of the tensors in each weight file."""

    repo: str
    steered: SteeredRepo
    behaviours: list[Behaviour]
    scope: str
    base: Path
    base_name: str
    hub_base: str | None
    base_config: dict
    shards: dict[str, list[str]]

    @property
    def folder(self) -> Path:
        return self.steered.folder

    @property
    def alpha(self) -> float:
        """The strength that the exported shifts are scaled by."""
        return self.behaviours[0].alpha

    @property
    def heads(self) -> int:
        return len(self.steered.used(self.behaviours[0]))

    @property
    def commit(self) -> str | None:
        """The commit of a Hub repo; None for a folder."""
        return commit_of(self.folder)

    @property
    def base_commit(self) -> str | None:
        """The commit of the base in the Hub repo `hub_base`; None if its weights came from elsewhere."""
        is_there = self.hub_base is not None and self.hub_base == self.steered.weights_from
        return commit_of(self.base) if is_there else None

    @property
    def shares(self) -> list[tuple[Behaviour, float]]:
        """See `shares_of`."""
        return shares_of(self.behaviours)

    @property
    def kind(self) -> str:
        """The kind of an export: "steered", or "plain" at alpha 0."""
        return "steered" if self.alpha else "plain"

    def config(self) -> ITILlamaConfig:
        """The config of the exported model, with its strength, heads and scope."""
        first, *others = self.behaviours
        entries = {other.name: {"file": other.file, "alpha": other.alpha, "top_k": other.top_k} for other in others}
        fields = {
            "iti_alpha": first.alpha,
            "iti_top_k": first.top_k,
            "iti_scope": self.scope,
            "iti_behaviours": entries,
        }
        fields |= {"iti_directions_file": first.file, "iti_directions_sha256": first.sha256}
        return ITILlamaConfig.from_dict(self.steered.fields | fields, name_or_path=str(self.folder))

    def tensor(self, name: str) -> torch.Tensor:
        shard = next(shard for shard, names in self.shards.items() if name in names)
        with safe_open(self.base / shard, framework="pt") as file:
            return file.get_tensor(name)

    def tensors(self, shard: str) -> Iterator[tuple[str, torch.Tensor]]:
        with safe_open(self.base / shard, framework="pt") as file:
            for name in self.shards[shard]:
                yield name, file.get_tensor(name)

    def shifts(self) -> dict[int, torch.Tensor]:
        """See `mix_shifts`."""
        return mix_shifts(self.steered, self.behaviours, lambda layer: self.tensor(o_proj(layer)))


def commit_of(folder: Path) -> str | None:
    """The commit of a snapshot in the Hub's cache; None for another folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def o_proj(layer: int, part: str = "weight") -> str:
    return f"model.layers.{layer}.self_attn.o_proj.{part}"


def open_source(
    repo: str | os.PathLike,
    alpha: float | None = None,
    top_k: int | None = None,
    scope: str | None = None,
    revision: str | None = None,
    name: str | None = None,
    base_name: str | None = None,
    scopes: Sequence[str] = ("all",),
) -> Source:
    """Open a steered repo on the Hub or on disk, with another strength, number of heads or scope if they are given.
    `name` takes one of several behaviours. `base_name`: the base's name on the Hub if the base was a folder.

    Raises:
        ExportError: as `select_behaviours` does; if the base is quantised, or its weights are not in safetensors.
        FileNotFoundError, ValueError: as loading the repo does, also if the base is not the one in the config.
    """
    steered = SteeredRepo.open(_folder(repo, revision), framework="pt")
    behaviours = select_behaviours(steered, alpha, top_k, scope, name, scopes)
    named = steered.weights_from
    base = steered.folder if named is None else _folder(named, steered.base_revision)
    fields = read_object(base / "config.json")
    if fields.get("quantization_config"):
        raise ExportError(
            f"{named or repo}: the base is quantised, so its output projections cannot be read; export from the base "
            "in full precision, and quantise what comes out"
        )
    made_for = steered.default_directions.base_model
    known = (
        base_name,
        named if named and folder_of(named) is None else None,
        made_for if made_for.find("/") > 0 else None,
    )
    hub_base = next(filter(None, known), None)
    title = hub_base or Path(named or made_for or steered.folder).name
    shards = _shards(base, fields)
    source = Source(str(repo), steered, behaviours, scope or steered.scope, base, title, hub_base, fields, shards)
    if named is not None:
        check_base(source.config(), read_base_config(str(base), None, {})[0])
    return source


def _folder(repo: str | os.PathLike, revision: str | None) -> Path:
    return folder_of(repo) or Path(snapshot_download(str(repo), revision=revision, allow_patterns=PATTERNS))


def _shards(base: Path, fields: dict) -> dict[str, list[str]]:
    names = [name for name in weight_files(base, fields) if name.endswith(".safetensors")]
    if not names:
        raise ExportError(f"{base}: no model.safetensors; expected weights in safetensors")
    shards = {}
    for name in names:
        with safe_open(base / name, framework="pt") as file:
            shards[name] = list(file.keys())
    return shards
