# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""The directions of Inference-Time Intervention: their file, and what config.json says of them. Needs no torch."""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open


if TYPE_CHECKING:
    import torch

AUTO_MAP = {
    "AutoConfig": "configuration_iti_llama.ITILlamaConfig",
    "AutoModel": "modeling_iti_llama.ITILlamaModel",
    "AutoModelForCausalLM": "modeling_iti_llama.ITILlamaForCausalLM",
}
DANGEROUS_FIELDS = ("attn_implementation", "experts_implementation", "custom_generate", "custom_pipelines")
"""What can make transformers fetch and run code, with `_` before or `_internal` after; whoever loads may choose it."""
FIELDS = {
    "iti_alpha": 1.0,
    "iti_top_k": None,
    "iti_scope": "all",
    "iti_directions_file": "iti_directions.safetensors",
    "iti_directions_sha256": None,
    "iti_behaviours": {},
    "base_model_name_or_path": None,
    "base_model_revision": None,
}
"""The fields of config.json that a plain Llama does not have, with their defaults."""
SITES, SCOPES = ("head", "residual"), ("all", "generated")
FLOAT32_MAX = 3.4028234663852886e38
_TENSORS = {
    "heads": ("int64", ("K", 2)),
    "directions": ("float32", ("K", "head_dim")),
    "sigma": ("float32", ("K",)),
    "scores": ("float32", ("K",)),
    "weights": ("float32", ("K",)),
    "gate_heads": ("int64", ("G", 2)),
    "gate_weights": ("float32", ("G", "head_dim")),
    "gate_bias": ("float32", (1,)),
    "gate_threshold": ("float32", (2,)),
}
"""dtype and shape by name: three that every file has, then `scores`, then those of format 1.1."""
_REQUIRED, _RANKED, _GATE = list(_TENSORS)[:3], list(_TENSORS)[:5], list(_TENSORS)[5:]
_KNOWN = {"1": list(_TENSORS)[:4], "1.1": list(_TENSORS)}
_GEOMETRY = ("num_hidden_layers", "num_attention_heads", "head_dim")
_METADATA = ("format", "format_version", "site", "base_model", *_GEOMETRY)
_LLAMA_7B = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "head_dim": None}
"""The geometry that a config.json describes where it names none, as `LlamaConfig` has it."""


class ITIDirectionsError(ValueError):
    """A directions file, or a set of directions, that cannot be used. The message names the file and the field."""


@dataclass(frozen=True)
class ITIGate:
    """When to steer: a linear probe of the plain model's heads at the prompt's last token. Its score, a log-odds, is
    `sum_g weights[g] . x[heads[g]] + bias`, x a head's output before W_O; a prompt is steered from the threshold on.

    Args:
        heads (`torch.Tensor`): int64 [G, 2], the (layer, head) that each row of weights reads.
        weights (`torch.Tensor`): float32 [G, head_dim].
        bias (`torch.Tensor`): float32 [1].
        threshold (`torch.Tensor`): float32 [2], the same number twice.
    """

    heads: "torch.Tensor"
    weights: "torch.Tensor"
    bias: "torch.Tensor"
    threshold: "torch.Tensor"

    def opens(self, heads: "Mapping[int, torch.Tensor]") -> "torch.Tensor":
        """Whether each prompt is steered, bool [batch]; a score that is not a number leaves it plain. `heads`: what
        o_proj gets at the last token, {layer: [batch, heads * head_dim]}."""
        score = self.bias
        for (layer, head), weights in zip(self.heads.tolist(), self.weights, strict=True):
            output = heads[layer].unflatten(-1, (-1, len(weights)))[:, head].float().to(weights.device)
            score = score + output @ weights
        return score >= self.threshold[0]


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
        name, tensors = "these directions", self._tensors()
        _expect(self.site in SITES, name, f"site is '{self.site}'", f"one of {', '.join(SITES)}")
        for key, value in {**self.provenance, "base_model": self.base_model}.items():
            _expect(isinstance(key, str) and isinstance(value, str), name, f"provenance {key!r} is {value!r}", "texts")
        sizes = {"K": self.heads, "G": self.heads if self.gate is None else self.gate.heads}
        sizes = {size: len(heads) if heads.ndim else 0 for size, heads in sizes.items()} | {"head_dim": self.head_dim}
        for key, tensor in tensors.items():
            dtype, shape = _TENSORS[key]
            wanted = f"torch.{dtype} {[sizes.get(size, size) for size in shape]}"
            given = f"torch.{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            _expect(given == wanted and len(tensor) > 0, name, f"{key} is {given}", f"{wanted}, K of at least 1")
            finite = abs(tensor.reshape(-1)) <= FLOAT32_MAX
            _expect_rows(finite, name, f"{key} holds NaN or infinity at place {{}}", "finite numbers")
        lengths = (self.directions**2).sum(-1) ** 0.5
        _expect_rows(
            abs(lengths - 1) <= 1e-3, name, "direction in row {} has length {:.4f}", "1 within 0.001", lengths
        )
        for key, numbers in (("sigma", self.sigma), ("weight", self.weights)):
            if numbers is not None:
                _expect_rows(numbers >= 0, name, f"{key} in row {{}} is {{:.4g}}", "0 or more", numbers)
        some = self.weights is None or bool((self.weights != 0).any())
        _expect(some, name, f"all {len(self)} weights are 0", "one above 0, or directions without weights")
        self._expect_heads("", self.heads, name)
        if self.gate is not None:
            self._expect_heads("gate_heads: ", self.gate.heads, name)
        low, high = (0, 0) if self.gate is None else self.gate.threshold.tolist()
        _expect(low == high, name, f"gate_threshold is [{low:.4g}, {high:.4g}]", "the same number twice")

    def _expect_heads(self, key: str, heads: "torch.Tensor", name: str) -> None:
        layers, width = self.num_hidden_layers, self.num_attention_heads
        inside = (heads >= 0).all(-1) & (heads[:, 0] < layers) & (heads[:, 1] < width)
        row, ending, wanted = None, "", f"layer 0 to {layers - 1}, head 0 to {width - 1}"
        if not bool(inside.all()):
            row = inside.tolist().index(False)
        else:
            numbers = heads[:, 0] * width + heads[:, 1]
            order = numbers.argsort()
            twice = numbers[order][1:] == numbers[order][:-1]
            if bool(twice.any()):
                at = twice.tolist().index(True)
                row, ending, wanted = int(max(order[at], order[at + 1])), " a second time", "once"
        if row is not None:
            layer, head = heads[row].tolist()
            _expect(False, name, f"{key}row {row} names layer {layer}, head {head}{ending}", wanted)

    def __len__(self) -> int:
        return len(self.heads)

    def top(self, k: int | None) -> "ITIDirections":
        """The `k` best-ranked heads; all of them if `k` is None."""
        if k is None:
            return self
        n = len(self)
        _expect(1 <= k <= n, "these directions", f"iti_top_k is {k}, but the directions hold {n} heads", f"1 to {n}")
        return replace(self, **{name: tensor[:k] for name, tensor in self._tensors().items() if name in _RANKED})

    def _tensors(self) -> "dict[str, torch.Tensor]":
        """By their names in the file."""
        tensors = {name: getattr(self, name) for name in _RANKED}
        if self.gate is not None:
            tensors |= {name: getattr(self.gate, name.removeprefix("gate_")) for name in _GATE}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    @property
    def format_version(self) -> str:
        """The lowest that can say what is in here: an older reader refuses what it does not know."""
        return "1" if self.gate is None and self.weights is None else "1.1"

    @property
    def scales(self) -> "torch.Tensor":
        """What each direction is multiplied by at alpha 1: sigma, times the weights where there are any; [K]."""
        return self.sigma if self.weights is None else self.sigma * self.weights

    def offsets(self) -> "dict[int, torch.Tensor]":
        """scale * theta of each steered layer, heads side by side: {layer: float32 [heads * head_dim]}."""
        offsets = {}
        rows = self.scales[:, None] * self.directions
        for (layer, head), row in zip(self.heads.tolist(), rows, strict=True):
            if layer not in offsets:
                offsets[layer] = (abs(row) * 0).repeat(self.num_attention_heads)
            offsets[layer][head * self.head_dim : (head + 1) * self.head_dim] = row
        return offsets

    def check_geometry(self, config, name: str = "the directions") -> None:
        """Raises `ITIDirectionsError` unless they fit the model of `config` (a `LlamaConfig`)."""
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        model = {"num_hidden_layers": config.num_hidden_layers, "num_attention_heads": config.num_attention_heads}
        for key, value in (model | {"head_dim": head_dim}).items():
            if getattr(self, key) != value:
                advice = f"Use the base they were made for ({self.base_model or 'not recorded'}) or fit new ones."
                made = f"made for a model with {key}={getattr(self, key)}, but this model has {key}={value}"
                raise ITIDirectionsError(f"{name}: {made}. {advice}")
        width, hidden = self.num_attention_heads * self.head_dim, config.hidden_size
        fits = self.site == "head" or hidden == width
        _expect(
            fits, name, f"site 'residual', but hidden_size is {hidden}", f"num_attention_heads * head_dim, {width}"
        )

    @classmethod
    def load(cls, path: str | os.PathLike, framework: str = "pt") -> "ITIDirections":
        """Read and check a directions file. With `framework` "np" its fields are NumPy arrays, and no torch is needed.
        Raises `FileNotFoundError` or, naming the file, what it holds and what it should, `ITIDirectionsError`."""
        if not (path := Path(path)).is_file():
            raise FileNotFoundError(f"{path}: no such directions file")
        try:
            with safe_open(path, framework=framework) as file:
                metadata, names = file.metadata() or {}, list(file.keys())
                for name in names if framework == "np" else ():  # which lacks some dtypes
                    dtype = file.get_slice(name).get_dtype()
                    _expect(dtype in ("I64", "F32"), path, f"{name} has dtype {dtype}", "I64 or F32")
                tensors = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise ITIDirectionsError(f"{path}: {_what_it_is(path)} ({error}); expected a safetensors file") from error
        for key in _METADATA:
            _expect(key in metadata, path, f"metadata has no '{key}'", ", ".join(_METADATA))
        version = metadata["format_version"]
        for key, known in (("format", ["iti_directions"]), ("format_version", _KNOWN)):
            wanted = f"{' or '.join(map(repr, known))}, as this version reads"
            _expect(metadata[key] in known, path, f"{key} is '{metadata[key]}'", wanted)
        required = {*_REQUIRED, *(_GATE if tensors.keys() & set(_GATE) else ())}
        missing, extra = sorted(required - tensors.keys()), sorted(tensors.keys() - set(_KNOWN[version]))
        wanted = f"{_REQUIRED} and optionally, in version '{version}', {_KNOWN[version][3:]}"
        _expect(not missing + extra, path, f"missing tensors {missing}, unknown tensors {extra}", wanted)
        gate = {name.removeprefix("gate_"): tensors.pop(name) for name in _GATE if name in tensors}
        for key in _GEOMETRY:
            number = metadata[key] if metadata[key].isdecimal() else "0"
            _expect(0 < int(number[:9]) < 10**8, path, f"metadata {key} is '{metadata[key]}'", "a positive integer")
        try:
            directions = cls(
                **tensors,
                gate=ITIGate(**gate) if gate else None,
                **{key: int(metadata[key]) for key in _GEOMETRY},
                **{key: metadata[key] for key in ("site", "base_model")},
                provenance={key: value for key, value in metadata.items() if key not in _METADATA},
            )
        except ITIDirectionsError as error:
            raise ITIDirectionsError(str(error).replace("these directions", str(path), 1)) from None
        same = directions.format_version == version
        _expect(same, path, f"format_version is '{version}'", "'1': it holds nothing of 1.1")
        return directions

    @classmethod
    def from_pretrained(
        cls, repo_or_dir: str | os.PathLike, filename: str = FIELDS["iti_directions_file"], **hub_kwargs
    ) -> "ITIDirections":
        """As `load`, from a Hub repo or folder. `hub_kwargs`: revision, token and so on, as for a model."""
        return cls.load(hub_file(repo_or_dir, filename, **hub_kwargs))

    def save(self, path: str | os.PathLike) -> Path:
        """Write the file whole or not at all. The same directions give the same bytes."""
        from safetensors.torch import save

        made = {"format": "iti_directions", "format_version": self.format_version, "site": self.site}
        made |= {"base_model": self.base_model} | {key: str(getattr(self, key)) for key in _GEOMETRY}
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        return write_whole(path, _with_sorted_header(save(tensors, metadata=self.provenance | made)))


@dataclass(frozen=True)
class Behaviour:
    """What config.json says of one set of directions.

    Args:
        name (`str`): what it is called; "default" unless `iti_behaviours` gives the default directions a name.
        file (`str`): the directions file in the repo, without a folder.
        alpha (`float`): strength, in units of sigma.
        top_k (`int`, *optional*): how many of the best-ranked heads are steered; all of them if None.
        sha256 (`str`, *optional*): digest of the file; another file is refused.
    """

    name: str
    file: str
    alpha: float
    top_k: int | None
    sha256: str | None


def behaviours_of(fields: Mapping) -> dict[str, Behaviour]:
    """The behaviours that checked `fields` of a config name, the default one first; none where there is no file."""
    file, entries = fields["iti_directions_file"], fields["iti_behaviours"]
    if file is None:
        return {}
    name = next((name for name, entry in entries.items() if entry["file"] == file), "default")
    default = Behaviour(name, file, fields["iti_alpha"], fields["iti_top_k"], fields["iti_directions_sha256"])
    others = [other for other in entries if other != name]
    return {name: default} | {other: Behaviour(other, **{"sha256": None} | entries[other]) for other in others}


def read_behaviours(
    fields: Mapping, file_of: Callable[[str], Path], where: str, framework: str = "pt"
) -> dict[str, ITIDirections]:
    """The directions of every behaviour that `fields` of a config name, by its name, the default ones first. Their
    geometry, digest and number of heads are those that the config says. `file_of` finds a file of the repo `where`.
    Raises `OSError` if one is missing and, naming repo and file, `ITIDirectionsError` if it cannot be used."""
    geometry = SimpleNamespace(**_LLAMA_7B | {key: fields[key] for key in _LLAMA_7B if key in fields})
    directions = {}
    for name, behaviour in behaviours_of(check_fields(fields)).items():
        path, file = file_of(behaviour.file), f"{where}/{behaviour.file}"
        directions[name] = ITIDirections.load(path, framework)
        directions[name].check_geometry(geometry, file)
        directions[name].top(behaviour.top_k)
        if behaviour.sha256 not in (None, digest := file_sha256(path)):
            default = behaviour.file == fields.get("iti_directions_file", behaviour.file)
            label = "iti_directions_sha256" if default else f"iti_behaviours[{name!r}]: sha256"
            wanted = f"{behaviour.sha256}, as {label} says"
            advice = f"was the file swapped, or a save cut off? To accept it as it is, set {label} to null"
            raise ITIDirectionsError(f"{file}: SHA-256 is {digest}; expected {wanted}: {advice}")
    return directions


def check_fields(fields: Mapping) -> dict:
    """The fields of `FIELDS` in a config, with their defaults, and NumPy's numbers as Python's. Raises `ValueError`,
    naming field, value found and value wanted."""
    for name in fields:
        if name.startswith("iti_") and name not in FIELDS:
            nearest = get_close_matches(name, FIELDS, n=1, cutoff=0)[0]
            raise ValueError(f"{name} is not a field that this version knows; did you mean {nearest}?")
    checked = FIELDS | {name: fields[name] for name in FIELDS if name in fields}
    checked["iti_alpha"] = check_alpha(checked["iti_alpha"])
    check_count("iti_top_k", checked["iti_top_k"])
    if (scope := checked["iti_scope"]) not in SCOPES:
        raise ValueError(f"iti_scope is {scope!r}; expected one of {', '.join(map(repr, SCOPES))}")
    if (default_file := checked["iti_directions_file"]) is not None:
        _check_file("iti_directions_file", default_file)
    _check_digest("iti_directions_sha256", checked["iti_directions_sha256"])
    for name in ("base_model_name_or_path", "base_model_revision"):
        if not (checked[name] is None or (isinstance(checked[name], str) and checked[name])):
            raise ValueError(f"{name} is {checked[name]!r}; expected a non-empty string or null")
    entries, files = {} if checked["iti_behaviours"] is None else checked["iti_behaviours"], {}
    if not isinstance(entries, Mapping):
        raise ValueError(f"iti_behaviours is {entries!r}; expected an object, {{name: {{file, alpha, top_k}}}}")
    if entries and default_file is None:
        raise ValueError(
            f"iti_behaviours names {', '.join(entries)}, but iti_directions_file is null; expected a file"
        )
    checked["iti_behaviours"] = {
        name: _checked_entry(name, entry, default_file, files) for name, entry in entries.items()
    }
    return checked


def _checked_entry(name: object, entry: object, default_file: str, files: dict[str, str]) -> dict:
    """An entry of `iti_behaviours`; `files` are those of the entries before it, {file: name}."""
    label = f"iti_behaviours[{_cut(name)}]"
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", name) or name == "default":
        raise ValueError(f"{label}: expected a name of at most 64 letters, digits, _ and -, other than 'default'")
    if not isinstance(entry, Mapping) or entry.keys() - {"file", "alpha", "top_k", "sha256"}:
        raise ValueError(f"{label} is {entry!r}; expected an object of file, alpha, top_k and sha256")
    _check_file(f"{label}: file", file := entry.get("file", f"iti_directions.{name}.safetensors"))
    if files.setdefault(file, name) != name:
        raise ValueError(f"{label}: file is {file!r}, that of {files[file]!r}; expected one of its own")
    if file == default_file:
        if entry.keys() != {"file"}:
            raise ValueError(f"{label} is {entry!r}; expected a file alone: iti_alpha and iti_top_k are its own")
        return {"file": file}
    check_count(f"{label}: top_k", entry.get("top_k"))
    _check_digest(f"{label}: sha256", entry.get("sha256"))
    checked = {"file": file, "alpha": check_alpha(entry.get("alpha", 1.0), f"{label}: alpha")}
    checked["top_k"] = entry.get("top_k")
    return checked | ({"sha256": entry["sha256"]} if entry.get("sha256") else {})


def check_alpha(alpha: object, field: str = "iti_alpha") -> float:
    """`alpha` as a float. Raises `ValueError` unless it is a finite float32, of Python, NumPy or (0-d) torch."""
    scalar = getattr(alpha, "ndim", None) == 0 and getattr(getattr(alpha, "device", None), "type", "") != "meta"
    number = alpha.item() if scalar else alpha
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) <= FLOAT32_MAX:
        raise ValueError(f"{field} is {alpha!r}; expected a finite number")
    return float(number)


def check_count(field: str, k: object) -> None:
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise ValueError(f"{field} is {k!r}; expected null or an integer of at least 1")


def _check_file(field: str, name: object) -> None:
    plain = (
        isinstance(name, str) and not any(c in name for c in "/\\:\0") and len(name.encode(errors="replace")) <= 200
    )
    if not plain or not name.endswith(".safetensors") or re.match(r"(adapter_)?model[.-]", name):
        wanted = (
            "a plain file name, without a folder, of at most 200 bytes, that ends in .safetensors, other than weights"
        )
        raise ValueError(f"{field} is {_cut(name)}; expected {wanted}")


def _cut(value: object) -> str:
    """A value as an error shows it: of a long text its beginning."""
    return repr(f"{value[:80]}..." if isinstance(value, str) and len(value) > 80 else value)


def _check_digest(field: str, digest: object) -> None:
    if digest is not None and not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
        raise ValueError(f"{field} is {digest!r}; expected 64 hex digits or null")


def check_harmless(fields: Mapping, where: str) -> None:
    """Raises `ValueError` if a config.json names code that transformers would fetch and run."""
    for key, value in fields.items():
        if key.strip("_").removesuffix("_internal") in DANGEROUS_FIELDS and value is not None:
            raise ValueError(f"{where}: {key} is {value!r}; expected no such field, it can make transformers run code")


def output_shift(weight: "torch.Tensor", offset: "torch.Tensor") -> "torch.Tensor":
    """W_O @ offset, what an offset of the heads adds to the residual stream: float32 [hidden_size]. `weight`
    [hidden_size, heads * head_dim] of any dtype and `offset` [heads * head_dim], both of torch or both of NumPy."""
    used = offset != 0
    columns = weight[:, used]
    columns = columns.float() if hasattr(columns, "float") else columns.astype("float32")
    return columns @ offset[used]


def hub_file(repo_or_dir: str | os.PathLike, filename: str, **hub_kwargs) -> Path:
    """Where a directions file of a Hub repo or folder lies here. Raises `FileNotFoundError` if there is none."""
    from transformers.utils import cached_file

    path = cached_file(repo_or_dir, filename, _raise_exceptions_for_missing_entries=False, **hub_kwargs)
    if path is None:
        advice = "A steered model is never loaded without; to load the weights alone, use the base model."
        raise FileNotFoundError(f"{repo_or_dir}: no {filename}, where its directions should be. {advice}")
    return Path(path)


def file_sha256(path: str | os.PathLike) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_whole(path: str | os.PathLike, data: bytes) -> Path:
    """Write a file, whole or not at all; the folder is made where there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _expect(right: bool, where: str | Path, given: str, wanted: str) -> None:
    if not right:
        raise ITIDirectionsError(f"{where}: {given}; expected {wanted}")


def _expect_rows(right, where: str, given: str, wanted: str, numbers=None) -> None:
    """`right`, bool [n], must hold throughout; `given` is told the first place where it does not."""
    if not bool(right.all()):
        row = right.tolist().index(False)
        _expect(False, where, given.format(row, *(() if numbers is None else (float(numbers[row]),))), wanted)


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
    for mark, kind in (
        (b"\x80", "looks like a pickle, which is never read"),
        (b"PK", "looks like a zip archive (a torch.save file, perhaps), which is never read"),
        (b"version ", "looks like a Git LFS pointer; fetch the file with `git lfs pull`"),
    ):
        if start.startswith(mark):
            return kind
    return "is truncated, or not a safetensors file"
