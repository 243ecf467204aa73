"""A steering as a few kilobytes beside the base: a LoRA for PEFT on plain transformers, the directions for vLLM's
plugin."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..foundation.files import write_text
from .llama import copy_beside
from .source import Source


def export_peft(source: Source, folder: Path) -> None:
    """Write a LoRA of rank 1 on each steered o_proj. A and B are 0 and the bias is the shift. alpha is its scale, so
    `set_scale` sets a strength relative to alpha. It needs PEFT 0.14 or later."""
    tensors, prefix = {}, "base_model.model.model.layers"
    directions = source.steered.default_directions
    width = directions.num_attention_heads * directions.head_dim
    shifts = source.shifts()
    for layer, shift in shifts.items():
        name = f"{prefix}.{layer}.self_attn.o_proj"
        tensors[f"{name}.lora_A.weight"] = torch.zeros(1, width)
        tensors[f"{name}.lora_B.weight"] = torch.zeros(len(shift), 1)
        tensors[f"{name}.lora_B.bias"] = shift
    _write(source, folder, tensors, [f"{layer}.self_attn.o_proj" for layer in shifts])


def export_vllm(source: Source, folder: Path) -> None:
    """Copy the directions files: the plugin adds the offsets to the heads. `iti_export.json` says the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    for behaviour, _ in source.shares:
        shutil.copyfile(source.steered.opened.get(behaviour.file), folder / behaviour.file)
    copy_beside(source, folder)


def _write(source: Source, folder: Path, tensors: dict[str, torch.Tensor], targets: list[str]) -> None:
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source.hub_base,
        "revision": source.base_commit,
        "r": 1,
        "lora_alpha": source.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "lora_bias": True,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": targets,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_text(folder / "adapter_config.json", json.dumps(config, indent=2) + "\n")
    copy_beside(source, folder)
