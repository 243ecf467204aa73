"""Write a steered Llama as a plain one. The steering becomes the bias of the output projections, and every engine for
Llama reads that."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from iti_llama.configuration_iti_llama import FREE_FIELDS, LLAMA_FIELDS

from ..foundation.files import write_text
from ..repo.folder import TOKENIZER_FILES
from .source import Source, o_proj


PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def plain_config(source: Source) -> dict:
    """The base's config.json with biases, as `LlamaForCausalLM`. It holds rope in the form of transformers 4 and 5."""
    fields = {key: value for key, value in source.base_config.items() if key in (*LLAMA_FIELDS, *FREE_FIELDS)}
    rope = fields.get("rope_parameters")
    if rope:
        rest = {key: value for key, value in rope.items() if key != "rope_theta"}
        fields["rope_theta"] = rope.get("rope_theta", 10000.0)
        fields["rope_scaling"] = rest if rest.get("rope_type", "default") != "default" else None
    dtype = fields.get("dtype") or fields.get("torch_dtype")
    return fields | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": True,
        **({"torch_dtype": dtype} if dtype else {}),
    }


def export_llama(source: Source, folder: Path, progress: Callable[[str], None] = lambda step: None) -> None:
    """Write the checkpoint shard by shard, in the memory of one shard. The biases are alpha * shift, computed in
    float32 and rounded once to the projection's dtype. Those of q, k and v are zero, for engines that switch all four
    at once. progress: gets "shard I of N" as each is written."""
    folder.mkdir(parents=True, exist_ok=True)
    shifts, weight_map, total = source.shifts(), {}, 0
    stored = {name for names in source.shards.values() for name in names}  # a bias may lie apart from its weight
    for number, shard in enumerate(source.shards, 1):
        tensors = dict(source.tensors(shard))
        for name in list(tensors):
            module, _, part = name.rpartition(".")
            if part == "weight" and module.endswith(PROJECTIONS) and f"{module}.bias" not in stored:
                tensors[f"{module}.bias"] = torch.zeros_like(tensors[name][:, 0])
        for layer, shift in shifts.items():
            if (bias := tensors.get(o_proj(layer, "bias"))) is not None:
                tensors[o_proj(layer, "bias")] = (bias.float() + source.alpha * shift).to(bias.dtype)
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        progress(f"shard {number} of {len(source.shards)}")
        weight_map |= dict.fromkeys(tensors, shard)
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(source.shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_text(folder / SAFE_WEIGHTS_INDEX_NAME, json.dumps(index, indent=2) + "\n")
    write_text(folder / "config.json", json.dumps(plain_config(source), indent=2, sort_keys=True) + "\n")
    copy_beside(source, folder)


def copy_beside(source: Source, folder: Path) -> None:
    """Copy the tokenizer, chat template and generation config byte for byte."""
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        place = next((where / name for where in (source.folder, source.base) if (where / name).is_file()), None)
        if place is not None:
            shutil.copyfile(place, folder / name)
