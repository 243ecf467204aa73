"""The entry points of the extra `[vllm]`: the model class, and strengths by name, as `model="NAME@0.8"` in a request,
or those of several adapters, as `NAME@0.8+OTHER@-0.3`.

The server says which adapters there are: `ITI_ADAPTERS="NAME=FOLDER,..."`, each of `iti-llama export --to vllm`. A
strength outside the range that the export says was measured is refused unless the server sets `ITI_ANY_STRENGTH=1`.
"""

import json
import logging
import math
import os
import re
import tempfile
from pathlib import Path


logger = logging.getLogger("vllm.iti_llama")

EXPORT = "iti_export.json"

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


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
        ValueError: if it is not so, or a folder holds no export.
    """
    folders = {}
    for part in filter(None, text.split(",")):
        name, equals, folder = part.partition("=")
        if not equals or not re.fullmatch(r"[\w.-]+", name) or not (Path(folder) / EXPORT).is_file():
            raise ValueError(f"ITI_ADAPTERS: {part!r}; expected NAME=FOLDER, a folder of `iti-llama export --to vllm`")
        folders[name] = Path(folder)
    return folders


def parse_mix(model: str, known: dict[str, Path], any_strength: bool) -> list[tuple[Path, float]] | None:
    """The adapters and strengths that a model's name asks for, each once; None as `strength_of`."""
    parts = re.split(r"\+(?=[\w.-]*[A-Za-z_][\w.-]*@)", model)  # not the plus of a number
    strengths = [parse_strength(part, known, any_strength) for part in parts]
    if any(part is None for part in strengths):
        return None
    if len({folder for folder, _ in strengths}) < len(strengths):
        logger.warning("%s: names an adapter twice; expected each once", model)
        return None
    return strengths


def parse_strength(model: str, known: dict[str, Path], any_strength: bool) -> tuple[Path, float] | None:
    """The adapter and the strength that a part of a model's name asks for; None, with a line in the log, if it is none
    of ours or not to be had. A number is written plainly: `0.8`, `-1`, `1e-2`; no `nan`, no `inf`, no spaces."""
    name, at, number = model.rpartition("@")
    if not at or name not in known:
        return None
    if not NUMBER.fullmatch(number) or not math.isfinite(float(number)):
        logger.warning("%s: strength is %r; expected a finite number", model, number)
        return None
    strength = float(number)
    low, high = json.loads((known[name] / EXPORT).read_text(encoding="utf-8"))["range"]
    if not any_strength and not low <= strength <= high:
        logger.warning("%s: measured from %g to %g; the server may allow more by ITI_ANY_STRENGTH=1", model, low, high)
        return None
    return known[name], strength


def scale_adapter(folder: Path, strength: float, out: Path) -> Path:
    """The adapter at a strength: its LoRA's alpha, which scales the shift at alpha 1; the weights are linked."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": strength}), encoding="utf-8")
    weights = out / "adapter_model.safetensors"
    if not weights.exists():
        weights.symlink_to((folder / "adapter_model.safetensors").resolve())
    return out


def mix_adapters(parts: list[tuple[Path, float]], out: Path) -> Path:
    """Several adapters at their strengths as one, of rank 1: B is the sum, each scaled by its strength."""
    import torch
    from safetensors.torch import load_file, save_file

    total: dict[str, torch.Tensor] = {}
    for folder, strength in parts:
        for name, tensor in load_file(folder / "adapter_model.safetensors").items():
            if name.endswith("lora_A.weight"):
                total[name] = tensor
            else:
                total[name] = total.get(name, torch.zeros_like(tensor)) + strength * tensor
    config = json.loads((parts[0][0] / "adapter_config.json").read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    save_file(total, out / "adapter_model.safetensors", metadata={"format": "pt"})
    (out / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1.0}), encoding="utf-8")
    return out


def _resolver():
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver

    class ITIResolver(LoRAResolver):
        def __init__(self):
            self.known = read_adapters(os.environ.get("ITI_ADAPTERS", ""))
            self.any_strength = os.environ.get("ITI_ANY_STRENGTH") == "1"
            self.holder = tempfile.TemporaryDirectory(prefix="iti-strengths-")

        async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
            mix = parse_mix(lora_name, self.known, self.any_strength)
            if mix is None:
                return None
            place = Path(self.holder.name, lora_name)
            folder = scale_adapter(*mix[0], place) if len(mix) == 1 else mix_adapters(mix, place)
            return LoRARequest(lora_name=lora_name, lora_int_id=abs(hash(lora_name)) or 1, lora_path=str(folder))

    return ITIResolver()
