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
"""They can make transformers fetch and run code, with `_` before or `_internal` after; only a caller may set them."""
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
_ENTRY = {"file": "iti_directions_file", "alpha": "iti_alpha", "top_k": "iti_top_k", "sha256": "iti_directions_sha256"}
"""The keys of an entry of `iti_behaviours`, and the fields that say the same about the default directions."""
SCOPES = ("all", "generated")
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
_METADATA = {
    "format": ("iti_directions", "'iti_directions'"),
    "format_version": (r"1(\.1)?", "'1' or '1.1', as this version reads"),
    "site": ("head|residual", "one of head, residual"),
    "base_model": ("(?s).*", "a text"),
    **dict.fromkeys(_GEOMETRY, ("0*[1-9][0-9]{0,7}", "a positive integer")),
}
"""The pattern that each text of the metadata must match, and how an error describes it."""
_OTHER_KINDS = {
    b"\x80": "looks like a pickle, which is never read",
    b"PK": "looks like a zip archive (a torch.save file, perhaps), which is never read",
    b"version ": "looks like a Git LFS pointer; fetch the file with `git lfs pull`",
}
"""What a file that is not safetensors may be, by its first bytes."""


class ITIDirectionsError(ValueError):
    """A directions file, or a set of directions, that cannot be used. The message names the file and the field."""


@dataclass(frozen=True)
class ITIGate:
    """When to steer: a linear probe of the plain model's heads at the prompt's last token. Its score, a log-odds, is
    `sum_g weights[g] . x[heads[g]] + bias`, x a head's output before W_O; a prompt is steered if score >= threshold.
    heads: int64 [G, 2], (layer, head); weights: float32 [G, head_dim]; bias: [1]; threshold: [2], a number twice."""

    heads: "torch.Tensor"
    weights: "torch.Tensor"
    bias: "torch.Tensor"
    threshold: "torch.Tensor"

    def opens(self, heads: "Mapping[int, torch.Tensor]") -> "torch.Tensor":
        """Whether each prompt is steered, bool [batch]; a score that is not a number leaves it plain. `heads`: the
        input of o_proj at the last token, {layer: [batch, heads * head_dim]}."""
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

    Raises `ITIDirectionsError` if a tensor has a wrong shape, dtype or value; see `docs/reference.md`.

    >>> from iti_llama import ITIDirections
    >>> directions = ITIDirections.from_pretrained("steered-llama")  # or load("iti_directions.safetensors")
    >>> len(directions), directions.heads[0].tolist()  # the best-ranked (layer, head)
    (16, [2, 3])
    >>> directions.top(4).save("best.safetensors").name
    'best.safetensors'
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
        _expect(self.site in ("head", "residual"), f"site is '{self.site}'", "one of head, residual")
        for key, value in {**self.provenance, "base_model": self.base_model}.items():
            _expect(isinstance(key, str) and isinstance(value, str), f"provenance {key!r} is {value!r}", "texts")
        sizes = {"head_dim": self.head_dim, 1: 1, 2: 2}
        for key, tensor in self._tensors().items():
            dtype, shape = _TENSORS[key]
            sizes.setdefault(shape[0], len(tensor) if tensor.ndim else 0)  # K and G come from the heads
            wanted = f"torch.{dtype} {[sizes[size] for size in shape]}"
            given = f"torch.{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            _expect(given == wanted and len(tensor) > 0, f"{key} is {given}", f"{wanted}, K of at least 1")
            finite = abs(tensor.reshape(-1)) <= FLOAT32_MAX
            _expect_rows(finite, f"{key} holds NaN or infinity at place {{}}", "finite numbers")
        lengths = (self.directions**2).sum(-1) ** 0.5
        _expect_rows(abs(lengths - 1) <= 1e-3, "direction in row {} has length {:.4f}", "1 within 0.001", lengths)
        _expect_rows(self.sigma >= 0, "sigma in row {} is {:.4g}", "0 or more", self.sigma)
        if self.weights is not None:
            _expect_rows(self.weights >= 0, "weight in row {} is {:.4g}", "0 or more", self.weights)
            some = bool((self.weights != 0).any())
            _expect(some, f"all {len(self)} weights are 0", "one above 0, or directions without weights")
        self._expect_heads("", self.heads)
        if self.gate is not None:
            self._expect_heads("gate_heads: ", self.gate.heads)
            low, high = self.gate.threshold.tolist()
            _expect(low == high, f"gate_threshold is [{low:.4g}, {high:.4g}]", "the same number twice")

    def _expect_heads(self, key: str, heads: "torch.Tensor") -> None:
        layers, width, says = self.num_hidden_layers, self.num_attention_heads, key + "row {} names layer {}, head {}"
        inside = (heads >= 0).all(-1) & (heads[:, 0] < layers) & (heads[:, 1] < width)
        wanted = f"layer 0 to {layers - 1}, head 0 to {width - 1}"
        _expect_rows(inside, says, wanted, heads[:, 0], heads[:, 1])
        numbers = heads[:, 0] * width + heads[:, 1]
        order = numbers.argsort()
        new = numbers[order][1:] != numbers[order][:-1]
        if not bool(new.all()):
            at = new.tolist().index(False)
            row = int(max(order[at], order[at + 1]))
            _expect(False, f"{says.format(row, *heads[row].tolist())} a second time", "once")

    def __len__(self) -> int:
        return len(self.heads)

    def top(self, k: int | None) -> "ITIDirections":
        """The `k` best-ranked heads; all of them if `k` is None."""
        if k is None:
            return self
        n = len(self)
        _expect(1 <= k <= n, f"iti_top_k is {k}, but the directions hold {n} heads", f"1 to {n}")
        return replace(self, **{name: tensor[:k] for name, tensor in self._tensors().items() if name in _RANKED})

    def _tensors(self) -> "dict[str, torch.Tensor]":
        """The tensors by their names in the file."""
        tensors = {name: getattr(self, name) for name in _RANKED}
        if self.gate is not None:
            tensors |= {name: getattr(self.gate, name.removeprefix("gate_")) for name in _GATE}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    @property
    def format_version(self) -> str:
        """The lowest version that can hold these directions: an older reader refuses what it does not know."""
        return "1" if self.gate is None and self.weights is None else "1.1"

    @property
    def scales(self) -> "torch.Tensor":
        """The factor of each direction at alpha 1: sigma, times the weights if there are any; [K]."""
        return self.sigma if self.weights is None else self.sigma * self.weights

    def offsets(self) -> "dict[int, torch.Tensor]":
        """scale * theta for each steered layer, heads side by side: {layer: float32 [heads * head_dim]}."""
        offsets = {}
        rows = self.scales[:, None] * self.directions
        for (layer, head), row in zip(self.heads.tolist(), rows, strict=True):
            if layer not in offsets:
                offsets[layer] = (abs(row) * 0).repeat(self.num_attention_heads)
            offsets[layer][head * self.head_dim : (head + 1) * self.head_dim] = row
        return offsets

    def check_geometry(self, config, name: str = "the directions", top_k: int | None = None) -> None:
        """Raises `ITIDirectionsError` unless they fit the model of a `LlamaConfig`, and have `top_k` heads."""
        for key in _GEOMETRY:
            ours, theirs = getattr(self, key), getattr(config, key)
            given = f"made for a model with {key}={ours}, but this model has {key}={theirs}"
            wanted = f"the base they were made for ({self.base_model or 'not recorded'}), or new directions"
            _expect(ours == theirs, given, wanted, name)
        width, given = self.num_attention_heads * self.head_dim, f"hidden_size is {config.hidden_size}"
        fits = self.site == "head" or config.hidden_size == width
        _expect(fits, f"site 'residual', but {given}", f"num_attention_heads * head_dim, {width}", name)
        self.top(top_k)

    @classmethod
    def load(cls, path: str | os.PathLike, framework: str = "pt") -> "ITIDirections":
        """Read and check a directions file. With `framework` "np" its fields are NumPy arrays, and no torch is needed.
        Raises `FileNotFoundError`, or `ITIDirectionsError` with the file, the value found and the value wanted."""
        if not (path := Path(path)).is_file():
            raise FileNotFoundError(f"{path}: no such directions file")
        try:
            with safe_open(path, framework=framework) as file:
                metadata, names = file.metadata() or {}, list(file.keys())
                for name in names if framework == "np" else ():  # NumPy lacks some dtypes
                    dtype = file.get_slice(name).get_dtype()
                    _expect(dtype in ("I64", "F32"), f"{name} has dtype {dtype}", "I64 or F32", path)
                tensors = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            with path.open("rb") as file:
                start = file.read(8)
            kinds = (kind for mark, kind in _OTHER_KINDS.items() if start.startswith(mark))
            kind = next(kinds, "is truncated, or not a safetensors file")
            raise ITIDirectionsError(f"{path}: {kind} ({error}); expected a safetensors file") from error
        for key, (pattern, wanted) in _METADATA.items():
            _expect(key in metadata, f"metadata has no '{key}'", ", ".join(_METADATA), path)
            _expect(re.fullmatch(pattern, metadata[key]), f"{key} is '{metadata[key]}'", wanted, path)
        version = metadata["format_version"]
        required = {*_REQUIRED, *(_GATE if tensors.keys() & set(_GATE) else ())}
        missing, extra = sorted(required - tensors.keys()), sorted(tensors.keys() - set(_KNOWN[version]))
        wanted = f"{_REQUIRED} and optionally, in version '{version}', {_KNOWN[version][3:]}"
        _expect(not missing + extra, f"missing tensors {missing}, unknown tensors {extra}", wanted, path)
        gate = {name.removeprefix("gate_"): tensors.pop(name) for name in _GATE if name in tensors}
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
        _expect(same, f"format_version is '{version}'", "'1': it holds nothing of 1.1", path)
        return directions

    @classmethod
    def from_pretrained(
        cls, repo_or_dir, filename: str = FIELDS["iti_directions_file"], **hub_kwargs
    ) -> "ITIDirections":
        """As `load`, from a Hub repo or folder. `hub_kwargs`: revision, token and so on, as for a model."""
        return cls.load(hub_file(repo_or_dir, filename, **hub_kwargs))

    def save(self, path: str | os.PathLike) -> Path:
        """Write the file whole or not at all. The same directions give the same bytes."""
        from safetensors.torch import save

        made = {"format": "iti_directions", "format_version": self.format_version, "site": self.site}
        made |= {"base_model": self.base_model} | {key: str(getattr(self, key)) for key in _GEOMETRY}
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        data = save(tensors)  # without metadata, whose keys the library writes in a random order
        length = 8 + int.from_bytes(data[:8], "little")
        header = {"__metadata__": dict(sorted((self.provenance | made).items()))} | json.loads(data[8:length])
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return write_whole(path, len(text).to_bytes(8, "little") + text + data[length:])


@dataclass(frozen=True)
class Behaviour:
    """What config.json says about one set of directions, see `ITILlamaConfig`. The default ones are called "default",
    unless `iti_behaviours` gives them a name."""

    name: str
    file: str
    alpha: float
    top_k: int | None
    sha256: str | None = None


def behaviours_of(fields: Mapping) -> dict[str, Behaviour]:
    """The behaviours in the checked `fields` of a config, the default one first; its key is "default", whatever its
    name is. There are none without a directions file."""
    file, entries = fields["iti_directions_file"], fields["iti_behaviours"]
    if file is None:
        return {}
    name = next((name for name, entry in entries.items() if entry["file"] == file), "default")
    default = Behaviour(name, file, fields["iti_alpha"], fields["iti_top_k"], fields["iti_directions_sha256"])
    others = {other: entry for other, entry in entries.items() if other != name}
    return {"default": default} | {other: Behaviour(other, **entry) for other, entry in others.items()}


def read_behaviours(config, file_of: Callable, where: str, framework: str = "pt") -> dict[str, ITIDirections]:
    """Read the directions of all `behaviours_of` a `LlamaConfig`, or of an object with its fields, and check geometry,
    digest and number of heads against it. `file_of` finds a file of the repo `where`. Raises `OSError` if a file is
    missing, and `ITIDirectionsError`, naming repo and file, if it cannot be used."""
    directions = {}
    for name, behaviour in behaviours_of(check_fields(vars(config))).items():
        path, file = file_of(behaviour.file), f"{where}/{behaviour.file}"
        directions[name] = ITIDirections.load(path, framework)
        directions[name].check_geometry(config, file, behaviour.top_k)
        label = "iti_directions_sha256" if name == "default" else f"iti_behaviours[{name!r}]: sha256"
        advice = f"was the file swapped, or a save cut off? To accept it as it is, set {label} to null"
        digest, wanted = file_sha256(path), f"{behaviour.sha256}, as {label} says: {advice}"
        _expect(behaviour.sha256 in (None, digest), f"SHA-256 is {digest}", wanted, file)
    return directions


def check_fields(fields: Mapping) -> dict:
    """The fields of `FIELDS` in a config, with their defaults, and NumPy's numbers as Python's. Raises `ValueError`,
    naming the field, the value found and the value wanted."""
    for name in fields:
        if name.startswith("iti_") and name not in FIELDS:
            nearest = get_close_matches(name, FIELDS, n=1, cutoff=0)[0]
            raise ValueError(f"{name} is not a field that this version knows; did you mean {nearest}?")
    checked = FIELDS | {name: fields[name] for name in FIELDS if name in fields}
    checked["iti_alpha"] = check_alpha(checked["iti_alpha"])
    check_count("iti_top_k", checked["iti_top_k"])
    for name, (accepts, wanted) in _RULES.items():
        value = checked[name]
        right = accepts(value) if isinstance(value, str) else value is None and name != "iti_scope"
        if not right:
            raise ValueError(f"{name} is {value!r:.90}; expected {wanted}")
    entries = {} if checked["iti_behaviours"] is None else checked["iti_behaviours"]
    if not isinstance(entries, Mapping):
        raise ValueError(f"iti_behaviours is {entries!r}; expected an object, {{name: {{file, alpha, top_k}}}}")
    if entries and checked["iti_directions_file"] is None:
        raise ValueError(f"iti_behaviours names {', '.join(entries)}, but iti_directions_file is null")
    checked["iti_behaviours"] = {}
    for name, entry in entries.items():
        checked["iti_behaviours"][name] = _checked_entry(name, entry, checked)
    return checked


def _checked_entry(name: object, entry: object, checked: dict) -> dict:
    """An entry of `iti_behaviours`, beside the fields and entries that are `checked` already."""
    label = f"iti_behaviours[{name!r:.90}]"
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", name) or name == "default":
        raise ValueError(f"{label}: expected a name of at most 64 letters, digits, _ and -, other than 'default'")
    if not isinstance(entry, Mapping) or entry.keys() - _ENTRY.keys():
        raise ValueError(f"{label} is {entry!r}; expected an object of file, alpha, top_k and sha256")
    file = entry.get("file", f"iti_directions.{name}.safetensors")
    try:
        fields = check_fields({_ENTRY[key]: value for key, value in entry.items()} | {"iti_directions_file": file})
    except ValueError as error:  # names the field of the config, which is that of the entry with a prefix
        raise ValueError(f"{label}: {re.sub('^iti_(directions_)?', '', str(error))}") from None
    owner = next((f", that of {k!r}" for k, v in checked["iti_behaviours"].items() if v["file"] == file), "")
    if file is None or owner:
        raise ValueError(f"{label}: file is {file!r}{owner}; expected one of its own")
    if file != checked["iti_directions_file"]:
        return {key: fields[field] for key, field in _ENTRY.items()}
    if entry.keys() != {"file"}:
        raise ValueError(f"{label} is {entry!r}; expected a file alone: iti_alpha and iti_top_k are its own")
    return dict(entry)


def check_alpha(alpha: object) -> float:
    """`alpha` as a float. Raises `ValueError` unless it is a finite float32, of Python, NumPy or (0-d) torch."""
    scalar = getattr(alpha, "ndim", None) == 0 and getattr(getattr(alpha, "device", None), "type", "") != "meta"
    number = alpha.item() if scalar else alpha
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) <= FLOAT32_MAX:
        raise ValueError(f"iti_alpha is {alpha!r}; expected a finite number")
    return float(number)


def check_count(label: str, k: object) -> None:
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise ValueError(f"{label} is {k!r}; expected null or an integer of at least 1")


def _is_plain(name: str) -> bool:
    plain = not set(name) & set("/\\:\0") and len(name.encode(errors="replace")) <= 200
    return plain and name.endswith(".safetensors") and not re.match(r"(adapter_)?model[.-]", name)


_PLAIN = "a plain file name, without a folder, of at most 200 bytes, that ends in .safetensors, other than weights"
_RULES = {
    "iti_scope": (SCOPES.__contains__, f"one of {', '.join(map(repr, SCOPES))}"),
    "iti_directions_file": (_is_plain, _PLAIN),
    "iti_directions_sha256": (lambda text: re.fullmatch("[0-9a-f]{64}", text), "64 hex digits or null"),
    "base_model_name_or_path": (bool, "a non-empty string or null"),
    "base_model_revision": (bool, "a non-empty string or null"),
}
"""What each text must be, and how an error describes it. All except the scope may be null."""


def check_harmless(fields: Mapping, where: str) -> None:
    """Raises `ValueError` if a config.json names code that transformers would fetch and run."""
    for key, value in fields.items():
        if key.strip("_").removesuffix("_internal") in DANGEROUS_FIELDS and value is not None:
            raise ValueError(f"{where}: {key} is {value!r}; expected no such field, it can make transformers run code")


def hub_file(repo_or_dir: str | os.PathLike, filename: str, **hub_kwargs) -> Path:
    """The local path of a directions file of a Hub repo or folder. Raises `FileNotFoundError` if there is none."""
    from transformers.utils import cached_file

    path = cached_file(repo_or_dir, filename, _raise_exceptions_for_missing_entries=False, **hub_kwargs)
    if path is None:
        advice = "A steered model is never loaded without them; to load the weights alone, use the base model."
        raise FileNotFoundError(f"{repo_or_dir}: no {filename}, where its directions should be. {advice}")
    return Path(path)


def file_sha256(path: str | os.PathLike) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_whole(path: str | os.PathLike, data: bytes) -> Path:
    """Write a file, whole or not at all; the folder is made if there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _expect(right: bool, given: str, wanted: str, where: str | Path = "these directions") -> None:
    if not right:
        raise ITIDirectionsError(f"{where}: {given}; expected {wanted}")


def _expect_rows(right, given: str, wanted: str, *columns) -> None:
    """Every row of `right`, bool [n], must be true. `given` is filled in with the first row that is not, and with the
    values of the columns there."""
    if not bool(right.all()):
        row = right.tolist().index(False)
        _expect(False, given.format(row, *(column[row].item() for column in columns)), wanted)
