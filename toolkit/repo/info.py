"""What is in a steered repo or folder, without loading a model."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np

from iti_llama.iti_directions import CUT_OFF, UNFINISHED, ITIDirections

from .open_repo import open_repo


@dataclass(frozen=True)
class Info:
    """A steered repo at a glance. heads_by_layer: {layer: heads}, of the heads in use. behaviours: further ones,
    {name: {"alpha", "heads", "file"}}. overlap: of each pair of behaviours, by layer, see `overlap`; of the "shifts"
    where the weights are at hand, else of the "offsets", as `overlap_of` says."""

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
    gate: str
    behaviours: dict[str, dict]
    overlap: dict[str, dict[int, float]]
    overlap_of: str
    provenance: dict[str, str]

    def to_dict(self) -> dict:
        return asdict(self)


def overlap(first: ITIDirections, second: ITIDirections, weights: Callable | None = None) -> dict[int, float]:
    """The cosine of their shifts in each layer that both steer. `weights` gives a layer's output projection
    [hidden_size, width]; without it the cosine is that of the offsets to the heads' outputs, before W_O, which does
    not see what different heads do alike."""
    cosines = {}
    for layer in sorted({layer for layer, _ in first.heads.tolist()} & {layer for layer, _ in second.heads.tolist()}):
        rows = np.zeros((2, first.num_attention_heads * first.head_dim))
        for row, held in zip(rows, (first, second), strict=True):
            for (at, head), theta, scale in zip(held.heads.tolist(), held.directions, held.scales, strict=True):
                if at == layer:
                    row[head * held.head_dim : (head + 1) * held.head_dim] = scale * theta
        rows = rows if weights is None or first.site == "residual" else rows @ weights(layer).T
        size = np.linalg.norm(rows[0]) * np.linalg.norm(rows[1])
        cosines[layer] = float(rows[0] @ rows[1] / size) if size else 0.0
    return cosines


def _output_projections(repo: str | os.PathLike, base: str | None) -> Callable | None:
    """Reads a layer's output projection, where the weights lie in a folder of this machine; else None."""
    folder = Path(repo if base is None else base)
    shards = sorted(folder.glob("model*.safetensors")) if folder.is_dir() else []
    if not shards:
        return None
    from safetensors import safe_open  # with torch, since NumPy has no bfloat16

    @cache
    def read(layer: int) -> np.ndarray:
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        for shard in shards:
            with safe_open(shard, framework="pt") as file:
                if name in file.keys():  # noqa: SIM118 (no iterator there)
                    return file.get_tensor(name).double().numpy()
        raise FileNotFoundError(f"{folder}: no {name} in its weights")

    return read


def inspect(repo: str | os.PathLike, revision: str | None = None) -> Info:
    """Read the config and the directions of a repo or folder, without torch; of several behaviours also the output
    projections, where they lie on this machine. A field that is absent has its default.

    Raises:
        ValueError, OSError: if it is no steered repo, or its directions are missing or wrong.
    """
    opened = open_repo(repo, revision)
    fields = opened.config()
    if fields.get("model_type") != "iti_llama":
        raise ValueError(f"{repo}: config.json has model_type {fields.get('model_type')!r}; expected 'iti_llama'")
    if fields.get(UNFINISHED):
        raise ValueError(f"{repo}/config.json: {CUT_OFF}")
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
    others, entries = {}, fields.get("iti_behaviours") or {}
    for other, entry in entries.items():
        file = entry.get("file", f"iti_directions.{other}.safetensors")
        if file != name:
            others[other] = ITIDirections.load(opened.get(file), framework="np").top(entry.get("top_k")), entry, file
    own = next((other for other, entry in entries.items() if entry.get("file") == name), "default")
    parts = {own: used} | {other: held for other, (held, *_) in others.items()}
    weights = _output_projections(repo, base) if others else None
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
        gate="" if directions.gate is None else f"reads {len(directions.gate.heads)} heads at the prompt's end",
        behaviours={
            other: {"alpha": entry.get("alpha", 1.0), "heads": len(held), "file": file}
            for other, (held, entry, file) in others.items()
        },
        overlap={f"{a} and {b}": overlap(parts[a], parts[b], weights) for a, b in combinations(parts, 2)},
        overlap_of="offsets" if weights is None else "shifts",
        provenance=dict(sorted(directions.provenance.items())),
    )
