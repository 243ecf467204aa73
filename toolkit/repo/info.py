"""What is in a steered repo or folder, without loading any weights."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from iti_llama.iti_directions import ITIDirections

from .open_repo import open_repo


@dataclass(frozen=True)
class Info:
    """A steered repo at a glance. heads_by_layer: {layer: heads}, of the heads in use."""

    repo: str
    form: str
    base: str
    base_revision: str
    alpha: float
    scope: str
    site: str
    heads_in_file: int
    heads_in_use: int
    heads_by_layer: dict[int, list[int]]
    top_head: str
    geometry: str
    directions_bytes: int
    provenance: dict[str, str]

    def to_dict(self) -> dict:
        return asdict(self)


def inspect(repo: str | os.PathLike, revision: str | None = None) -> Info:
    """Read the config and the directions of a repo or folder, without torch. A field that is absent has its default.

    Raises:
        ValueError, OSError: if it is no steered repo, or its directions are missing or wrong.
    """
    opened = open_repo(repo, revision)
    fields = opened.config()
    if fields.get("model_type") != "iti_llama":
        raise ValueError(f"{repo}: config.json has model_type {fields.get('model_type')!r}; expected 'iti_llama'")
    name = fields.get("iti_directions_file", "iti_directions.safetensors")
    if name is None:
        raise ValueError(f"{repo}: iti_directions_file is null, so this model is not steered")
    path = opened.get(name)
    directions = ITIDirections.load(path, framework="np")
    used = directions.top(fields.get("iti_top_k"))
    heads: dict[int, list[int]] = {}
    for layer, head in sorted(used.heads.tolist()):
        heads.setdefault(layer, []).append(head)
    layer, head = directions.heads[0].tolist()
    score = "" if directions.scores is None else f", score {directions.scores[0]:.3f}"
    base = fields.get("base_model_name_or_path")
    layers, heads_of_layer = directions.num_hidden_layers, directions.num_attention_heads
    return Info(
        repo=os.fspath(repo),
        form="self-contained" if base is None else "adapter",
        base=base or directions.base_model,
        base_revision=fields.get("base_model_revision") or "",
        alpha=fields.get("iti_alpha", 1.0),
        scope=fields.get("iti_scope", "all"),
        site=directions.site,
        heads_in_file=len(directions),
        heads_in_use=len(used),
        heads_by_layer=heads,
        top_head=f"layer {layer}, head {head}{score}",
        geometry=f"{layers} layers x {heads_of_layer} heads x {directions.head_dim}",
        directions_bytes=Path(path).stat().st_size,
        provenance=dict(sorted(directions.provenance.items())),
    )
