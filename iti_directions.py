# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""The directions of Inference-Time Intervention: their file, and what they add to a layer. Read without torch."""

import json
import math
import os
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open


if TYPE_CHECKING:
    import torch

FORMAT, FORMAT_VERSIONS = "iti_directions", ("1", "1.1")
SITES = ("head", "residual")
UNFINISHED = "iti_save_unfinished"
"""A field of config.json while the directions beside it are written anew."""
CUT_OFF = f"{UNFINISHED}: a save was cut off, its directions may be old or new: save again"
_REQUIRED = {"heads": "int64", "directions": "float32", "sigma": "float32"}
_OPTIONAL = {"scores": "float32"}
_WEIGHTS = {"weights": "float32"}
_GATE = {"gate_heads": "int64", "gate_weights": "float32", "gate_bias": "float32", "gate_threshold": "float32"}
_GEOMETRY = ("num_hidden_layers", "num_attention_heads", "head_dim")
_METADATA = ("format", "format_version", "site", "base_model", *_GEOMETRY)


class ITIDirectionsError(ValueError):
    """A directions file, or a set of directions, that cannot be used. The message names the file and the field."""


@dataclass(frozen=True)
class ITIGate:
    """When to steer: a linear probe of the plain model's heads at the prompt's last token. Its score, a log-odds, is
    `sum_g weights[g] . x[heads[g]] + bias`, x a head's output before W_O; alpha is multiplied by 0 where the score is
    below the first threshold, by 1 from the second on, and by what lies evenly between them in between.

    Args:
        heads (`torch.Tensor`): int64 [G, 2], the (layer, head) that each row of weights reads.
        weights (`torch.Tensor`): float32 [G, head_dim].
        bias (`torch.Tensor`): float32 [1].
        threshold (`torch.Tensor`): float32 [2], the second not below the first.
    """

    heads: "torch.Tensor"
    weights: "torch.Tensor"
    bias: "torch.Tensor"
    threshold: "torch.Tensor"

    @property
    def layers(self) -> list[int]:
        return sorted(set(self.heads[:, 0].tolist()))

    def strength(self, x: "dict[int, torch.Tensor]") -> "torch.Tensor":
        """What alpha is multiplied by, float32 [batch], from 0 to 1. `x`: of each of `layers`, o_proj's input at the
        last token, [batch, heads * head_dim]."""
        score = 0
        for (layer, head), weights in zip(self.heads.tolist(), self.weights, strict=True):
            of_head = x[layer].unflatten(-1, (-1, len(weights)))[:, head].float()
            score = score + (of_head @ weights.to(of_head.device)).to(self.bias.device)
        low, high = self.threshold
        score = score + self.bias
        between = ((score - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        return between.where(score < high, 1.0)


@dataclass(frozen=True)
class ITIDirections:
    """The directions of a steered model, best-ranked head first.

    Args:
        heads (`torch.Tensor`): int64 [K, 2], the (layer, head) of each direction.
        directions (`torch.Tensor`): float32 [K, head_dim], unit vectors theta (Li et al. 2023, 3.2), to label 1.
        sigma (`torch.Tensor`): float32 [K], standard deviation of the activations projected on theta.
        num_hidden_layers, num_attention_heads, head_dim (`int`): geometry of the model they were made for.
        scores (`torch.Tensor`, *optional*): float32 [K], the ranking score (held-out AUC).
        weights (`torch.Tensor`, *optional*): float32 [K], multiply sigma in the shift; 0 or more, not all 0.
        site (`str`): "head": theta is added to a head's output, before the output projection. "residual": to its slice
            of the attention output, after it (files converted from older code).
        base_model (`str`): name of the model the directions were made for.
        gate (`ITIGate`, *optional*): decides at the start of `generate` which prompts are steered.
        provenance (`dict[str, str]`): whatever the maker adds: dataset, method, seed, tool version.

    Raises `ITIDirectionsError` if a tensor has a wrong shape, dtype or value; see `docs/format.md`.
    """

    heads: "torch.Tensor"
    directions: "torch.Tensor"
    sigma: "torch.Tensor"
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    scores: "torch.Tensor | None" = None
    weights: "torch.Tensor | None" = None
    site: str = "head"
    base_model: str = ""
    provenance: dict[str, str] = field(default_factory=dict)
    gate: ITIGate | None = None

    def __post_init__(self):
        name = "these directions"
        _expect(self.site in SITES, name, f"site is '{self.site}'", f"one of {', '.join(SITES)}")
        for key, value in {**self.provenance, "base_model": self.base_model}.items():
            _expect(isinstance(key, str) and isinstance(value, str), name, f"provenance {key!r} is {value!r}", "texts")
        k = self._rows("heads", self.heads, name)
        shapes = {"heads": [k, 2], "directions": [k, self.head_dim], "sigma": [k], "scores": [k], "weights": [k]}
        if self.gate is not None:
            g = self._rows("gate_heads", self.gate.heads, name)
            shapes |= {"gate_heads": [g, 2], "gate_weights": [g, self.head_dim], "gate_bias": [1]}
            shapes |= {"gate_threshold": [2]}
        for key, tensor in self._tensors().items():
            dtype = (_REQUIRED | _OPTIONAL | _WEIGHTS | _GATE)[key]
            found = f"torch.{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            wanted = f"torch.{dtype} {shapes[key]}"
            _expect(found == wanted, name, f"{key} is {found}", wanted)
            if dtype != "int64":
                said = f"{key} holds NaN or infinity at place {{0}}".format
                _expect_all(tensor.reshape(-1), lambda part: abs(part) < math.inf, name, said, "finite numbers")
        for row in range(k):
            length = float(self.directions[row] @ self.directions[row]) ** 0.5
            _expect(abs(length - 1) <= 1e-3, name, f"direction in row {row} has length {length:.4f}", "1 within 0.001")
        for key, numbers in (("sigma", self.sigma), ("weight", self.weights)):
            if numbers is not None:
                said = f"{key} in row {{0}} is {{1:.4g}}".format
                _expect_all(numbers, lambda part: part >= 0, name, said, "0 or more")
        some = self.weights is None or bool((self.weights != 0).any())
        _expect(some, name, f"all {k} weights are 0", "one above 0, or directions without weights")
        self._expect_heads("", self.heads, name)
        if self.gate is not None:
            self._expect_heads("gate_heads: ", self.gate.heads, name)
            low, high = self.gate.threshold.tolist()
            _expect(low <= high, name, f"gate_threshold is [{low:.4g}, {high:.4g}]", "the second not below the first")

    @staticmethod
    def _rows(key: str, heads: "torch.Tensor", name: str) -> int:
        rows = heads.shape[0] if heads.ndim == 2 else 0
        _expect(rows > 0, name, f"{key} has shape {list(heads.shape)}", "[K, 2] with K of at least 1")
        return rows

    def _expect_heads(self, key: str, heads: "torch.Tensor", name: str) -> None:
        layers, width = self.num_hidden_layers, self.num_attention_heads

        def said(row: int, _) -> str:
            return f"{key}row {row} names layer {int(heads[row, 0])}, head {int(heads[row, 1])}"

        for column, number in enumerate((layers, width)):
            wanted = f"layer 0 to {layers - 1}, head 0 to {width - 1}"
            _expect_all(heads[:, column], lambda part, n=number: (part >= 0) & (part < n), name, said, wanted)
        numbers = heads[:, 0] * width + heads[:, 1]
        order = numbers.argsort()
        numbers = numbers[order]

        def twice(place: int, _) -> str:
            return f"{said(max(int(order[place]), int(order[place + 1])), None)} a second time"

        _expect_all(numbers[1:] != numbers[:-1], lambda part: part, name, twice, "once")

    def __len__(self) -> int:
        return len(self.heads)

    def top(self, k: int | None) -> "ITIDirections":
        """The `k` best-ranked heads; all of them if `k` is None."""
        if k is None:
            return self
        n = len(self)
        _expect(1 <= k <= n, "these directions", f"iti_top_k is {k}, but the directions hold {n} heads", f"1 to {n}")
        ranked = {name: getattr(self, name) for name in _REQUIRED | _OPTIONAL | _WEIGHTS}
        return replace(self, **{name: tensor[:k] for name, tensor in ranked.items() if tensor is not None})

    def _tensors(self) -> "dict[str, torch.Tensor]":
        """By their names in the file."""
        found = {name: getattr(self, name) for name in _REQUIRED | _OPTIONAL | _WEIGHTS}
        found = {name: tensor for name, tensor in found.items() if tensor is not None}
        gate = {} if self.gate is None else {name: getattr(self.gate, name.removeprefix("gate_")) for name in _GATE}
        return found | gate

    @property
    def format_version(self) -> str:
        """The lowest that can say what is in here: an older reader refuses what it does not know."""
        return FORMAT_VERSIONS[0] if self.gate is None and self.weights is None else FORMAT_VERSIONS[1]

    @property
    def scales(self) -> "torch.Tensor":
        """What each direction is multiplied by at alpha 1: sigma, times the weights where there are any; [K]."""
        return self.sigma if self.weights is None else self.sigma * self.weights

    def offsets(self) -> "dict[int, torch.Tensor]":
        """scale * theta of each steered layer, heads side by side: {layer: float32 [heads * head_dim]}."""
        offsets = {}
        for (layer, head), direction, scale in zip(self.heads.tolist(), self.directions, self.scales, strict=True):
            row = offsets.setdefault(layer, self.sigma.new_zeros(self.num_attention_heads * self.head_dim))
            row[head * self.head_dim : (head + 1) * self.head_dim] = scale * direction
        return offsets

    def shifts(
        self, config, held: "dict[int, torch.nn.Module]", dtype: "torch.dtype", top_k: int | None
    ) -> "dict[int, torch.Tensor]":
        """What the `top_k` best heads add to each steered layer's attention output at alpha 1: {layer: float32
        [hidden_size]}, on one device. `held`: the attention modules here, by layer; `dtype`: of o_proj's input."""
        self.check_geometry(config)
        shifts = {}
        for layer, offset in self.top(top_k).offsets().items():
            if layer in held:
                o_proj = held[layer].o_proj
                shift = project(o_proj, offset, dtype) if self.site == "head" else offset
                shifts[layer] = shift.to(next(iter(shifts.values())).device if shifts else device_of(o_proj))
        return shifts

    def check_geometry(self, config, name: str = "the directions") -> None:
        """Raises `ITIDirectionsError` unless they fit the model of `config` (a `LlamaConfig`)."""
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        model = {"num_hidden_layers": config.num_hidden_layers, "num_attention_heads": config.num_attention_heads}
        for key, value in (model | {"head_dim": head_dim}).items():
            if getattr(self, key) != value:
                advice = f"Use the base they were made for ({self.base_model or 'not recorded'}) or fit new ones."
                made = f"made for a model with {key}={getattr(self, key)}, but this model has {key}={value}"
                raise ITIDirectionsError(f"{name}: {made}. {advice}")
        width, found = self.num_attention_heads * self.head_dim, config.hidden_size
        fits = self.site == "head" or found == width
        _expect(fits, name, f"site 'residual', but hidden_size is {found}", f"num_attention_heads * head_dim, {width}")

    @classmethod
    def load(cls, path: str | os.PathLike, framework: str = "pt") -> "ITIDirections":
        """Read and check a directions file. With `framework` "np" its fields are NumPy arrays, and no torch is needed.
        Raises `FileNotFoundError` or, naming the file, what it holds and what it should, `ITIDirectionsError`."""
        if not (path := Path(path)).is_file():
            raise FileNotFoundError(f"{path}: no such directions file")
        try:
            with safe_open(path, framework=framework) as file:
                metadata = file.metadata() or {}
                names = list(file.keys())
                for name in names if framework == "np" else ():  # which lacks some dtypes
                    dtype = file.get_slice(name).get_dtype()
                    _expect(dtype in ("I64", "F32"), path, f"{name} has dtype {dtype}", "I64 or F32")
                tensors = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise ITIDirectionsError(f"{path}: {_what_it_is(path)} ({error}); expected a safetensors file") from error
        for key in _METADATA:
            _expect(key in metadata, path, f"metadata has no '{key}'", ", ".join(_METADATA))
        for key, known in (("format", (FORMAT,)), ("format_version", FORMAT_VERSIONS)):
            wanted = f"{' or '.join(map(repr, known))}, as this version reads"
            _expect(metadata[key] in known, path, f"{key} is '{metadata[key]}'", wanted)
        version = metadata["format_version"]
        optional = _OPTIONAL if version == FORMAT_VERSIONS[0] else _OPTIONAL | _WEIGHTS | _GATE
        missing, extra = _REQUIRED.keys() - tensors.keys(), tensors.keys() - _REQUIRED.keys() - optional.keys()
        if _GATE.keys() & tensors.keys():
            missing |= _GATE.keys() - tensors.keys()
        found = f"missing tensors {sorted(missing)}, unknown tensors {sorted(extra)}"
        wanted = f"{list(_REQUIRED)} and optionally, in version '{version}', {list(optional)}"
        _expect(not missing | extra, path, found, wanted)
        gate = {name.removeprefix("gate_"): tensors.pop(name) for name in _GATE if name in tensors}
        for key in _GEOMETRY:
            number = metadata[key] if metadata[key].isdecimal() else "0"
            _expect(0 < int(number[:9]) < 10**8, path, f"metadata {key} is '{metadata[key]}'", "a positive integer")
        try:
            read = cls(
                **tensors,
                gate=ITIGate(**gate) if gate else None,
                **{key: int(metadata[key]) for key in _GEOMETRY},
                **{key: metadata[key] for key in ("site", "base_model")},
                provenance={key: value for key, value in metadata.items() if key not in _METADATA},
            )
        except ITIDirectionsError as error:
            raise ITIDirectionsError(str(error).replace("these directions", str(path), 1)) from None
        _expect(read.format_version == version, path, "format_version is '1.1'", "'1': it holds nothing of 1.1")
        return read

    @classmethod
    def from_pretrained(
        cls, repo_or_dir: str | os.PathLike, filename: str = "iti_directions.safetensors", **hub_kwargs
    ) -> "ITIDirections":
        """As `load`, from a Hub repo or folder. `hub_kwargs`: revision, token and so on, as for a model."""
        from transformers.utils import cached_file

        path = cached_file(repo_or_dir, filename, _raise_exceptions_for_missing_entries=False, **hub_kwargs)
        if path is None:
            advice = "A steered model is never loaded without; to load the weights alone, use the base model."
            raise FileNotFoundError(f"{repo_or_dir}: no {filename}, where its directions should be. {advice}")
        return cls.load(path)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the file whole or not at all. The same directions give the same bytes."""
        from safetensors.torch import save

        geometry = {key: str(getattr(self, key)) for key in _GEOMETRY}
        made = {
            "format": FORMAT,
            "format_version": self.format_version,
            "site": self.site,
            "base_model": self.base_model,
        }
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        return write_whole(path, _with_sorted_header(save(tensors, metadata=self.provenance | made | geometry)))


def _expect(right: bool, where: str | Path, found: str, wanted: str) -> None:
    if not right:
        raise ITIDirectionsError(f"{where}: {found}; expected {wanted}")


def _expect_all(values, right, where: str, found, wanted: str) -> None:
    """`right` must hold of all of a [n] tensor or array; part by part, to hold little besides. `found` gets the first
    place where it does not, and the value there."""
    for start in range(0, len(values), 1 << 14):
        part = values[start : start + (1 << 14)]
        if not (held := right(part)).all():
            place = held.tolist().index(False)
            _expect(False, where, found(start + place, float(part[place])), wanted)


def project(o_proj: "torch.nn.Module", offset: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """W_O @ offset, without bias and PEFT adapters: float32 [hidden_size], where the projection runs. In float32 from
    the columns of the chosen heads where the weight is a plain tensor, else (quantised, offloaded) through the module
    itself, fed with `dtype`. `offset` is float32 [num_attention_heads * head_dim]."""
    import torch

    while hasattr(o_proj, "base_layer"):
        if getattr(o_proj, "merged", False):
            raise ValueError("a PEFT adapter is merged into the weight of o_proj: call unmerge_adapter() first")
        o_proj = o_proj.base_layer
    weight = getattr(o_proj, "weight", None)
    if hasattr(weight, "full_tensor"):  # tensor parallelism
        weight = weight.full_tensor()
    elif type(o_proj) is not torch.nn.Linear or type(weight.data) is not torch.Tensor or weight.is_meta:
        weight = None
    if weight is not None and weight.is_floating_point():
        columns = offset.nonzero()[:, 0]
        return weight[:, columns.to(weight.device)].float() @ offset[columns].to(weight.device)
    rows = torch.stack([offset, torch.zeros_like(offset)]).to(device_of(o_proj), dtype)
    with_offset, without = o_proj(rows).float()
    if with_offset.is_meta:
        raise ValueError("the weights are on the meta device: load them before setting directions")
    return with_offset - without


def device_of(module: "torch.nn.Module") -> "torch.device":
    """Where a module runs, also when accelerate keeps its weights elsewhere."""
    device = next(tensor.device for tensor in (*module.parameters(), *module.buffers()))
    hook = getattr(module, "_hf_hook", None)
    return type(device)(hook.execution_device) if device.type == "meta" and hook is not None else device


def write_whole(path: str | os.PathLike, data: bytes) -> Path:
    """Write a file, whole or not at all; the folder is made where there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _with_sorted_header(data: bytes) -> bytes:
    """The same safetensors file with the keys of its metadata in order: the library writes them in a random one."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _what_it_is(path: Path) -> str:
    """A guess at what a file that is not safetensors is, for the error message."""
    with path.open("rb") as file:
        start = file.read(8)
    kinds = {
        b"\x80": "looks like a pickle, which is never read",
        b"PK": "looks like a zip archive (a torch.save file, perhaps), which is never read",
        b"version ": "looks like a Git LFS pointer; fetch the file with `git lfs pull`",
    }
    return next((kinds[mark] for mark in kinds if start.startswith(mark)), "is truncated or no safetensors file")
