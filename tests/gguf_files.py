"""Small GGUF files, written by the package gguf from small Llamas: what llama.cpp's own converter would write."""

from pathlib import Path

import gguf
import numpy as np
import torch
from reference import tiny_llama
from transformers import LlamaForCausalLM


SPECIAL = ("<unk>", "<|start|>", "<|end|>")

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def byte_tokens() -> list[str]:
    """The 256 bytes as GPT-2's byte-level tokens spell them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    spelled = {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    return [spelled[byte] for byte in range(256)]


TOKENS = [*SPECIAL, *byte_tokens(), "ĠĠ", "Ċĉ"]
MERGES = ["Ġ Ġ", "Ċ ĉ"]


def gguf_llama(**overrides) -> LlamaForCausalLM:
    """A small Llama whose weights fit into the blocks of a GGUF, without rotary scaling."""
    sizes = {"vocab_size": len(TOKENS), "intermediate_size": 128, "bos_token_id": 1, "eos_token_id": 2}
    rope = {"rope_theta": 1e4, "rope_type": "default"}
    if not hasattr(LlamaForCausalLM.config_class, "rope_parameters"):
        return tiny_llama(**(sizes | {"rope_theta": 1e4, "rope_scaling": None} | overrides))
    return tiny_llama(**(sizes | {"rope_parameters": rope} | overrides))


def paired(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp rotates them: first and second half of a head by turns."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.stack([halves[:, 0], halves[:, 1]], 2).reshape(weight.shape)


def write_gguf(
    model: LlamaForCausalLM,
    path: Path,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    architecture: str = "llama",
    tokenizer: bool = True,
    without: tuple[str, ...] = (),
    adds: tuple[bool, bool] = (False, False),
    further: dict[str, np.ndarray] | None = None,
    **fields,
) -> Path:
    """`kind`: of the matrices; `without`, `further`: tensors; `fields`: {"rope__scaling__type": "linear"}."""
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = getattr(config, "rope_parameters", None) or {"rope_theta": getattr(config, "rope_theta", 1e4)}
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    for name, value in fields.items():
        writer.add_key_value(
            f"{architecture}.{name.replace('__', '.')}", value,
            gguf.GGUFValueType.STRING if isinstance(value, str) else gguf.GGUFValueType.FLOAT32,
        )  # fmt: skip
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(TOKENS)
        writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_bos_token(adds[0]), writer.add_add_eos_token(adds[1])
        writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    tensors = {}
    for name, weight in model.state_dict().items():
        array = weight.float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        array = array if heads is None else paired(array, heads)
        tensors[names.get_name(name, try_suffixes=(".weight", ".bias"))] = array
    for name, array in (tensors | (further or {})).items():
        if name in without:
            continue
        stored = kind if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(array, stored), raw_dtype=stored)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    return path


def some_ids(length: int = 24) -> torch.Tensor:
    return torch.randint(3, len(TOKENS), (2, length), generator=torch.Generator().manual_seed(3))
