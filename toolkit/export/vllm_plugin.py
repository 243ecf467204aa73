"""The entry points of the extra `[vllm]`: the model class, and strengths by name, as `model="NAME@0.8"` in a request,
or those of several adapters, as `NAME@0.8+OTHER@-0.3`.

The server says which adapters there are: `ITI_ADAPTERS="NAME=FOLDER,..."`, each of `iti-llama export --to vllm`. A
strength outside the range that the export says was measured is refused unless the server sets `ITI_ANY_STRENGTH=1`.
"""

import hashlib
import json
import logging
import math
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from iti_llama.iti_directions import FLOAT32_MAX


logger = logging.getLogger("vllm.iti_llama")

EXPORT = "iti_export.json"

WEIGHTS = "adapter_model.safetensors"

LONGEST = 512
"""Characters of a model's name."""

MOST = 512
"""Mixes of strengths that one server makes."""

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def register_model() -> None:
    """Entry point `vllm.general_plugins`: the architecture, imported when it is asked for."""
    from vllm import ModelRegistry

    ModelRegistry.register_model("ITILlamaForCausalLM", "iti_llama.toolkit.export.vllm_model:ITILlamaForCausalLM")


def register_resolver() -> None:
    """Entry point `vllm.general_plugins`: strengths by name."""
    from vllm.lora.resolver import LoRAResolverRegistry

    LoRAResolverRegistry.register_resolver("iti", _resolver())


def read_adapters(text: str) -> dict[str, Path]:
    """`NAME=FOLDER,...` as a dictionary.

    Raises:
        ValueError: if it is not so, or a folder holds no export of `--to vllm`.
    """
    folders = {}
    for part in filter(None, text.split(",")):
        name, equals, folder = part.partition("=")
        if not equals or not re.fullmatch(r"[\w.-]{1,64}", name) or name in folders:
            raise ValueError(f"ITI_ADAPTERS: {part!r}; expected NAME=FOLDER, each name once, of at most 64 letters")
        folders[name] = Path(folder)
        _check_adapter(folders[name])
    return folders


def _check_adapter(folder: Path) -> None:
    wanted = "expected a folder of `iti-llama export --to vllm`"
    try:
        form, (low, high) = _read(folder / EXPORT, "form"), map(float, _read(folder / EXPORT, "range"))
        targets = _read(folder / "adapter_config.json", "target_modules")
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"ITI_ADAPTERS: {folder}: {type(error).__name__}: {error}; {wanted}") from None
    if form != "vllm" or targets != ["iti"] or not (folder / WEIGHTS).is_file():
        raise ValueError(f"ITI_ADAPTERS: {folder}: holds the form {form!r}; {wanted}")
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"ITI_ADAPTERS: {folder / EXPORT}: range is [{low}, {high}]; expected two finite numbers")


def _read(path: Path, field: str):
    return json.loads(path.read_text(encoding="utf-8"))[field]


def parse_mix(model: str, known: dict[str, Path], any_strength: bool) -> list[tuple[Path, float]] | None:
    """The adapters and strengths that a model's name asks for, each once, in the order of their folders: all spellings
    of a mix give the same. None as `parse_strength`."""
    if len(model) > LONGEST:
        logger.warning("%s...: a name of %d characters; expected at most %d", model[:40], len(model), LONGEST)
        return None
    strengths = []
    for part in split_mix(model):
        strengths.append(parse_strength(part, known, any_strength))
        if strengths[-1] is None:
            return None
    if len({folder for folder, _ in strengths}) < len(strengths):
        logger.warning("%s: names an adapter twice; expected each once", model)
        return None
    return sorted(strengths)


def split_mix(model: str) -> list[str]:
    """`A@0.8+B@+1e+0` as `A@0.8` and `B@+1e+0`: a plus begins a part where no number goes on."""
    parts = []
    for piece in model.split("+"):
        if parts and (parts[-1][-1:] == "@" or "@" not in piece):
            parts[-1] += "+" + piece
        else:
            parts.append(piece)
    return parts


def parse_strength(model: str, known: dict[str, Path], any_strength: bool) -> tuple[Path, float] | None:
    """The adapter and the strength that a part of a model's name asks for; None, with a line in the log, if it is none
    of ours or not to be had. A number is written plainly: `0.8`, `-1`, `1e-2`; no `nan`, no `inf`, no spaces."""
    name, at, number = model.rpartition("@")
    if not at or name not in known:
        return None
    strength = float(number) + 0.0 if NUMBER.fullmatch(number) else math.nan  # -0.0 is 0.0
    if not abs(strength) <= FLOAT32_MAX:
        logger.warning("%s: strength is %r; expected a finite number", model, number)
        return None
    low, high = _read(known[name] / EXPORT, "range")
    if not any_strength and not low <= strength <= high:
        logger.warning("%s: measured from %g to %g; the server may allow more by ITI_ANY_STRENGTH=1", model, low, high)
        return None
    return known[name], strength


@dataclass
class Strengths:
    """The adapters at the strengths that were asked for, each made once, as LoRAs in folders of `holder`.

    known: the exports by name. most: so many mixes are made; more are refused, since the server and its engine keep
    every LoRA that they were given.
    """

    known: dict[str, Path]
    any_strength: bool
    holder: Path
    most: int = MOST
    made: dict[str, Path] = field(default_factory=dict)

    def resolve(self, model: str) -> tuple[str, Path] | None:
        """The one name of all spellings of a mix, and the folder of its LoRA; None, with a line in the log, for a name
        that is none of ours or not to be had."""
        mix = parse_mix(model, self.known, self.any_strength)
        if mix is None:
            return None
        names = {folder: name for name, folder in self.known.items()}
        name = "+".join(f"{names[folder]}@{strength!r}" for folder, strength in mix)
        if name not in self.made:
            if len(self.made) >= self.most:
                logger.warning("%s: %d other strengths were asked for already, and are kept", model, self.most)
                return None
            out = self.holder / str(len(self.made))
            self.made[name] = scale_adapter(*mix[0], out) if len(mix) == 1 else mix_adapters(mix, out)
        return name, self.made[name]


def scale_adapter(folder: Path, strength: float, out: Path) -> Path:
    """The adapter at a strength: its LoRA's alpha, which scales the shift at alpha 1; the weights are linked."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": strength}), encoding="utf-8")
    weights = out / WEIGHTS
    if not weights.exists():
        weights.symlink_to((folder / WEIGHTS).resolve())
    return out


def mix_adapters(parts: list[tuple[Path, float]], out: Path) -> Path:
    """Several adapters at their strengths as one, of rank 1: B is the sum, each scaled by its strength."""
    import torch
    from safetensors.torch import load_file, save_file

    total: dict[str, torch.Tensor] = {}
    for folder, strength in parts:
        for name, tensor in load_file(folder / WEIGHTS).items():
            if name.endswith("lora_A.weight"):
                total[name] = tensor
            else:
                total[name] = total.get(name, torch.zeros_like(tensor)) + strength * tensor
    config = json.loads((parts[0][0] / "adapter_config.json").read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    save_file(total, out / WEIGHTS, metadata={"format": "pt"})
    (out / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1.0}), encoding="utf-8")
    return out


def lora_id(name: str) -> int:
    """The same in every process of a server, which a hash of Python's is not; far from vLLM's own, which count up."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") | 1 << 56


def _resolver():
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver

    class ITIResolver(LoRAResolver):
        def __init__(self):
            self.holder = tempfile.TemporaryDirectory(prefix="iti-strengths-")
            known = read_adapters(os.environ.get("ITI_ADAPTERS", ""))
            any_strength = os.environ.get("ITI_ANY_STRENGTH") == "1"
            self.strengths = Strengths(known, any_strength, Path(self.holder.name))

        async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
            resolved = self.strengths.resolve(lora_name)
            if resolved is None:
                return None
            name, folder = resolved
            return LoRARequest(lora_name=name, lora_int_id=lora_id(name), lora_path=str(folder))

    return ITIResolver()
