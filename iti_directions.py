# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""The directions file of Inference-Time Intervention: what it holds, how it is read, checked and written."""

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save


FORMAT = "iti_directions"
FORMAT_VERSION = "1"
SITES = ("head", "residual")

_REQUIRED = {"heads": torch.int64, "directions": torch.float32, "sigma": torch.float32}
_OPTIONAL = {"scores": torch.float32}
_METADATA = (
    "format",
    "format_version",
    "site",
    "base_model",
    "num_hidden_layers",
    "num_attention_heads",
    "head_dim",
)


class ITIDirectionsError(ValueError):
    """A directions file, or a set of directions, that cannot be used. The message names the file and the field."""


@dataclass(frozen=True)
class ITIDirections:
    """The directions of a steered model, best-ranked head first.

    Args:
        heads (`torch.Tensor`): int64 [K, 2], the (layer, head) of each direction.
        directions (`torch.Tensor`): float32 [K, head_dim], unit vectors theta (Li et al. 2023, section 3.2), pointing
            from label 0 to label 1.
        sigma (`torch.Tensor`): float32 [K], standard deviation of the activations projected on theta.
        num_hidden_layers, num_attention_heads, head_dim (`int`): geometry of the model they were made for.
        scores (`torch.Tensor`, *optional*): float32 [K], the ranking score (held-out AUC).
        site (`str`): "head": theta is added to a head's output, before the output projection. "residual": theta is
            a slice of the attention output, after the output projection (files converted from older code).
        base_model (`str`): name of the model the directions were made for.
        provenance (`dict[str, str]`): whatever the maker adds: dataset, method, seed, tool version.

    Raises:
        ITIDirectionsError: if a tensor has a wrong shape, dtype or value; see `docs/format.md`.
    """

    heads: torch.Tensor
    directions: torch.Tensor
    sigma: torch.Tensor
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    scores: torch.Tensor | None = None
    site: str = "head"
    base_model: str = ""
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self._check("these directions")

    def __len__(self) -> int:
        """The number of heads K."""
        return len(self.heads)

    def top(self, k: int | None) -> "ITIDirections":
        """The `k` best-ranked heads; all of them if `k` is None."""
        if k is None:
            return self
        if not 1 <= k <= len(self):
            raise ITIDirectionsError(
                f"iti_top_k is {k}, but the directions hold {len(self)} heads: expected 1 to {len(self)}"
            )
        return ITIDirections(
            heads=self.heads[:k],
            directions=self.directions[:k],
            sigma=self.sigma[:k],
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            head_dim=self.head_dim,
            scores=None if self.scores is None else self.scores[:k],
            site=self.site,
            base_model=self.base_model,
            provenance=self.provenance,
        )

    def offsets(self) -> dict[int, torch.Tensor]:
        """sigma * theta of each steered layer, its heads side by side: {layer: float32 [num_attention_heads * head_dim]}."""
        offsets = {}
        for (layer, head), direction, sigma in zip(self.heads.tolist(), self.directions, self.sigma, strict=True):
            row = offsets.setdefault(layer, torch.zeros(self.num_attention_heads * self.head_dim))
            row[head * self.head_dim : (head + 1) * self.head_dim] = sigma * direction
        return offsets

    def check_geometry(self, config, name: str = "the directions") -> None:
        """Raises `ITIDirectionsError` unless they fit the model of `config` (a `LlamaConfig`)."""
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        wanted = {
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "head_dim": head_dim,
        }
        for key, value in wanted.items():
            if getattr(self, key) != value:
                raise ITIDirectionsError(
                    f"{name}: made for a model with {key}={getattr(self, key)}, but this model has {key}={value}. "
                    f"Use the base model they were made for ({self.base_model or 'not recorded'}) or fit new directions."
                )
        if self.site == "residual" and config.hidden_size != self.num_attention_heads * self.head_dim:
            raise ITIDirectionsError(
                f"{name}: site 'residual' needs hidden_size = num_attention_heads * head_dim "
                f"({self.num_attention_heads * self.head_dim}), but this model has hidden_size={config.hidden_size}"
            )

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ITIDirections":
        """Read and check a directions file.

        Raises:
            FileNotFoundError: if there is none.
            ITIDirectionsError: naming the file, what was found and what was expected.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such directions file")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator there)
        except SafetensorError as error:
            raise ITIDirectionsError(f"{path}: {_what_it_is(path)} ({error}); expected a safetensors file") from error

        for key in _METADATA:
            if key not in metadata:
                raise ITIDirectionsError(f"{path}: metadata has no '{key}'; expected {', '.join(_METADATA)}")
        if metadata["format"] != FORMAT:
            raise ITIDirectionsError(f"{path}: format is '{metadata['format']}'; expected '{FORMAT}'")
        if metadata["format_version"] != FORMAT_VERSION:
            raise ITIDirectionsError(
                f"{path}: format_version is '{metadata['format_version']}'; this version reads '{FORMAT_VERSION}'. "
                "Update iti-llama, or ask the maker for a file of this version."
            )
        missing = sorted(_REQUIRED.keys() - tensors.keys())
        extra = sorted(tensors.keys() - _REQUIRED.keys() - _OPTIONAL.keys())
        if missing or extra:
            raise ITIDirectionsError(
                f"{path}: missing tensors {missing}, unknown tensors {extra}; expected {list(_REQUIRED)} and optionally "
                f"{list(_OPTIONAL)}"
            )
        geometry = {}
        for key in ("num_hidden_layers", "num_attention_heads", "head_dim"):
            if not metadata[key].isdecimal() or int(metadata[key]) < 1:
                raise ITIDirectionsError(f"{path}: metadata {key} is '{metadata[key]}'; expected a positive integer")
            geometry[key] = int(metadata[key])
        try:
            return cls(
                **tensors,
                **geometry,
                site=metadata["site"],
                base_model=metadata["base_model"],
                provenance={key: value for key, value in metadata.items() if key not in _METADATA},
            )
        except ITIDirectionsError as error:
            raise ITIDirectionsError(str(error).replace("these directions", str(path), 1)) from None

    def save(self, path: str | os.PathLike) -> Path:
        """Write the file whole or not at all. The same directions give the same bytes."""
        path = Path(path)
        metadata = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "site": self.site,
            "base_model": self.base_model,
            "num_hidden_layers": str(self.num_hidden_layers),
            "num_attention_heads": str(self.num_attention_heads),
            "head_dim": str(self.head_dim),
        }
        tensors = {"heads": self.heads, "directions": self.directions, "sigma": self.sigma}
        if self.scores is not None:
            tensors["scores"] = self.scores
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        data = _with_sorted_header(save(tensors, metadata=self.provenance | metadata))
        write_whole(path, data)
        return path

    def _check(self, name: str) -> None:
        if self.site not in SITES:
            raise ITIDirectionsError(f"{name}: site is '{self.site}'; expected one of {', '.join(SITES)}")
        k = self.heads.shape[0] if self.heads.ndim == 2 else 0
        if k == 0:
            raise ITIDirectionsError(
                f"{name}: heads has shape {list(self.heads.shape)}; expected [K, 2] with K of at least 1"
            )
        shapes = {"heads": (k, 2), "directions": (k, self.head_dim), "sigma": (k,), "scores": (k,)}
        for field_name, dtype in (_REQUIRED | _OPTIONAL).items():
            tensor = getattr(self, field_name)
            if tensor is None and field_name in _OPTIONAL:
                continue
            if tuple(tensor.shape) != shapes[field_name] or tensor.dtype != dtype:
                raise ITIDirectionsError(
                    f"{name}: {field_name} is {tensor.dtype} {list(tensor.shape)}; expected {dtype} {list(shapes[field_name])}"
                )
            if dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
                raise ITIDirectionsError(f"{name}: {field_name} holds NaN or infinity; expected finite numbers")
        norms = self.directions.norm(dim=-1)
        if bool(((norms - 1).abs() > 1e-3).any()):
            worst = int((norms - 1).abs().argmax())
            raise ITIDirectionsError(
                f"{name}: the direction in row {worst} has length {norms[worst]:.4f}; expected 1 within 0.001"
            )
        if bool((self.sigma < 0).any()):
            worst = int(self.sigma.argmin())
            raise ITIDirectionsError(f"{name}: sigma in row {worst} is {self.sigma[worst]:.4g}; expected 0 or more")
        seen = set()
        for row, (layer, head) in enumerate(self.heads.tolist()):
            if not (0 <= layer < self.num_hidden_layers and 0 <= head < self.num_attention_heads):
                raise ITIDirectionsError(
                    f"{name}: row {row} names layer {layer}, head {head}; expected layer 0 to {self.num_hidden_layers - 1}, "
                    f"head 0 to {self.num_attention_heads - 1}"
                )
            if (layer, head) in seen:
                raise ITIDirectionsError(f"{name}: row {row} names layer {layer}, head {head} a second time")
            seen.add((layer, head))


def write_whole(path: str | os.PathLike, data: bytes) -> Path:
    """Write a file, whole or not at all; the folder is made where there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
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
    if start[:1] == b"\x80":
        return "looks like a pickle, which is never read"
    if start[:2] == b"PK":
        return "looks like a zip archive (a torch.save file, perhaps), which is never read"
    if start.startswith(b"version "):
        return "looks like a Git LFS pointer; fetch the file with `git lfs pull`"
    return "is truncated or no safetensors file"


__all__ = ["ITIDirections", "ITIDirectionsError"]
