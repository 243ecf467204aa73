"""What is in a steered repo or folder, without loading a model."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np

from iti_llama.iti_directions import ITIDirections

from ..foundation.output_shift import output_shift
from .folder import weight_files
from .open_repo import read_object
from .steered_repo import SteeredRepo


@dataclass(frozen=True)
class Info:
    """A steered repo at a glance. heads_by_layer: {layer: heads}, the heads in use. behaviours: the further ones,
    {name: {"alpha", "heads", "file"}}. overlap: for each pair of behaviours and each layer, see `overlap`. overlap_of:
    "shifts" if the weights are at hand, else "offsets"."""

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


def overlap(first: ITIDirections, second: ITIDirections, weight_of: Callable | None = None) -> dict[int, float]:
    """The cosine of their shifts in each layer that both steer. `weight_of` gives a layer's output projection
    [hidden_size, width] as a NumPy array; without it the cosine is that of the offsets to the heads' outputs, before
    W_O, which misses similar effects of different heads."""
    offsets, cosines = (first.offsets(), second.offsets()), {}
    for layer in sorted(offsets[0].keys() & offsets[1].keys()):
        a, b = (np.asarray(offset[layer], float) for offset in offsets)
        if weight_of is not None and first.site == "head":
            a, b = (output_shift(weight_of(layer), offset) for offset in (a, b))
        size = np.linalg.norm(a) * np.linalg.norm(b)
        cosines[layer] = float(a @ b / size) if size else 0.0
    return cosines


def _output_projections(folder: Path) -> Callable | None:
    """A function that reads a layer's output projection, if the weights are in a folder on this machine; else None."""
    if not (folder / "config.json").is_file():
        return None
    names = weight_files(folder, read_object(folder / "config.json"))
    shards = [folder / name for name in names if name.endswith(".safetensors")]
    if not shards:
        return None
    from safetensors import safe_open  # with torch, since NumPy has no bfloat16

    @cache
    def read(layer: int) -> np.ndarray:
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        for shard in shards:
            with safe_open(shard, framework="pt") as file:
                if name in file.keys():  # noqa: SIM118 (no iterator there)
                    return file.get_tensor(name).float().numpy()
        raise FileNotFoundError(f"{folder}: no {name} in its weights")

    return read


def inspect(repo: str | os.PathLike, revision: str | None = None) -> Info:
    """Read the config and the directions of a repo or folder, without torch; for several behaviours also the output
    projections, if they are on this machine. An absent field has its default.

    Raises:
        ValueError, OSError: as `SteeredRepo.open`.
    """
    steered = SteeredRepo.open(repo, revision)
    directions, used = steered.default_directions, steered.used()
    heads: dict[int, list[int]] = {}
    for layer, head in sorted(used.heads.tolist()):
        heads.setdefault(layer, []).append(head)
    layer, head = directions.heads[0].tolist()
    score = "" if directions.scores is None else f", score {directions.scores[0]:.3f}"
    weight_of = _output_projections(Path(steered.weights_from or repo)) if steered.others else None
    layers, heads_of_layer = directions.num_hidden_layers, directions.num_attention_heads
    return Info(
        repo=os.fspath(repo),
        form="self-contained" if steered.weights_from is None else "adapter",
        base=steered.weights_from or directions.base_model,
        base_revision=steered.base_revision or "",
        alpha=steered.alpha,
        scope=steered.scope,
        site=directions.site,
        heads_in_file=len(directions),
        heads_in_use=len(used),
        heads_by_layer=heads,
        top_head=f"layer {layer}, head {head}{score}",
        geometry=f"{layers} layers x {heads_of_layer} heads x {directions.head_dim}",
        directions_bytes=steered.opened.get(steered.default.file).stat().st_size,
        gate="" if directions.gate is None else f"reads {len(directions.gate.heads)} heads at the prompt's end",
        behaviours={
            other.name: {"alpha": other.alpha, "heads": len(steered.used(other)), "file": other.file}
            for other in steered.others
        },
        overlap={
            f"{a.name} and {b.name}": overlap(steered.used(a), steered.used(b), weight_of)
            for a, b in combinations(steered.behaviours.values(), 2)
        },
        overlap_of="offsets" if weight_of is None else "shifts",
        provenance=dict(sorted(steered.provenance.items())),
    )
