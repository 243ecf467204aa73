"""Write the whole steered model as GGUF, for llama.cpp, Ollama and LM Studio.

llama.cpp's Llama keeps the rows of q and k in the order of its rotary embedding, and the divisors of scaled rotary
frequencies as a tensor.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from ..foundation.open_gguf import ARCHITECTURE
from ..foundation.rotary_scaling import rotary_divisors, rotary_theta
from .gguf_patch import bias_name, finish, writing
from .select_behaviours import ExportError
from .source import Source


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

SPLITS = {
    ("ByteLevel",): "gpt-2",
    ("Digits", "ByteLevel"): "smollm",
}
"""llama.cpp's name for the way a text is split before it is tokenized, by the steps in tokenizer.json."""

LLAMA_3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
"""The start of the regular expression by which Llama 3's tokenizer splits a text. llama.cpp calls it "llama-bpe"."""


def gguf_name(name: str) -> str:
    """`model.layers.3.self_attn.o_proj.weight` as `blk.3.attn_output.weight`."""
    module, _, part = name.rpartition(".")
    if module in OUTER:
        return f"{OUTER[module]}.{part}"
    layer, _, inner = module.removeprefix("model.layers.").partition(".")
    if not layer.isdecimal() or inner not in NAMES:
        raise ExportError(f"{name}: is not a tensor of a Llama")
    return f"blk.{layer}.{NAMES[inner]}.{part}"


def rotary_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * 2 * half, ...], reordered from two halves to pairs, as llama.cpp rotates them."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def export_gguf(
    source: Source, out: Path, quantisation: str = "f32", progress: Callable[[str], None] = lambda step: None
) -> list[str]:
    """Write the steered model. `quantisation`: f32, f16, bf16 or q8_0, for the matrices; biases and norms stay
    float32. Returns notes for the user. progress: gets "tensor I of N" as each is read.

    Raises:
        ExportError: for a tokenizer or rotary scaling that is not known here. llama.cpp's own converter knows more,
        and reads what `--to llama` writes.
        FileExistsError: if the file exists.
    """
    import gguf

    kinds = {
        "f32": gguf.GGMLQuantizationType.F32,
        "f16": gguf.GGMLQuantizationType.F16,
        "bf16": gguf.GGMLQuantizationType.BF16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
    }
    if quantisation not in kinds:
        raise ExportError(f"--quantisation is {quantisation!r}; expected one of {', '.join(kinds)}")
    config, kind = source.config(), kinds[quantisation]
    shifts = {layer: source.alpha * shift.numpy() for layer, shift in source.shifts().items()}
    head_dim = source.steered.default_directions.head_dim
    with writing(out) as (part, notes):
        writer = gguf.GGUFWriter(part, ARCHITECTURE)
        writer.add_name(f"{source.base_name}, {source.kind}")
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_rope_dimension_count(head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(rotary_theta(source.base_config))
        writer.add_vocab_size(config.vocab_size)
        writer.add_file_type(
            {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
             "bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[quantisation]
        )  # fmt: skip
        rope = source.base_config.get("rope_scaling") or source.base_config.get("rope_parameters") or {}
        if rope.get("rope_type", rope.get("type")) == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        notes += _add_tokenizer(writer, source)
        divisors = rotary_divisors(source.base_config, head_dim)
        if divisors is not None:
            writer.add_tensor("rope_freqs.weight", divisors)
        many = sum(map(len, source.shards.values()))
        for number, (name, array) in enumerate(_arrays(source, shifts), 1):
            progress(f"tensor {min(number, many)} of {many}")
            stored_as = kind if array.ndim == 2 and array.shape[-1] % 32 == 0 else gguf.GGMLQuantizationType.F32
            if stored_as == gguf.GGMLQuantizationType.F32:
                writer.add_tensor(name, array)
            else:
                writer.add_tensor(name, gguf.quants.quantize(array, stored_as), raw_dtype=stored_as)
        finish(writer)
    return notes


def _arrays(source: Source, shifts: dict[int, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    config, own_biases = source.config(), set()
    for shard in source.shards:
        for name, tensor in source.tensors(shard):
            if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.tie_word_embeddings):
                continue
            array, to = tensor.float().numpy(), gguf_name(name)
            if ".attn_q." in to:
                array = rotary_order(array, config.num_attention_heads)
            elif ".attn_k." in to:
                array = rotary_order(array, config.num_key_value_heads)
            elif to.endswith("attn_output.bias"):
                layer = int(to.split(".")[1])
                array, own_biases = array + shifts.get(layer, np.float32(0)), own_biases | {layer}
            yield to, array
    for layer in shifts.keys() - own_biases:
        yield bias_name(layer), shifts[layer].astype(np.float32)


def _add_tokenizer(writer, source: Source) -> list[str]:
    """Write the tokenizer. Returns notes on where it differs from transformers."""
    import gguf

    place = next((f for f in (source.folder, source.base) if (f / "tokenizer.json").is_file()), None)
    if place is None:
        raise ExportError(f"{source.repo}: no tokenizer.json; expected a fast tokenizer in the repo or its base")
    known = json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))
    model = known["model"]
    if model.get("type") == "WordLevel":
        raise ExportError(f"{place / 'tokenizer.json'}: a WordLevel tokenizer, which llama.cpp does not have")
    notes, size = [], source.config().vocab_size
    added = {token["id"]: token for token in known.get("added_tokens", ())}
    words = {index: word for word, index in model["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    tokens = [words.get(index, f"[PAD{index}]") for index in range(size)]
    types = []
    for index in range(size):
        special = added.get(index, {}).get("special", False)
        kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED if index in added else None
        types.append(kind or (gguf.TokenType.NORMAL if index in words else gguf.TokenType.UNUSED))
    if model.get("byte_fallback"):
        types = [gguf.TokenType.BYTE if word.startswith("<0x") and len(word) == 6 else kind
                 for word, kind in zip(tokens, types, strict=True)]  # fmt: skip
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([-float(index) for index in range(size)])
    else:
        name = split_name(known.get("pre_tokenizer") or {})
        if name == "default":
            notes.append(
                "llama.cpp does not know how this tokenizer splits a text, and splits it in its own way: a text may "
                "become other tokens; send token ids to avoid that"
            )
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    writer.add_token_list(tokens)
    writer.add_token_types([int(kind) for kind in types])
    for key, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        token = source.base_config.get(f"{key}_token_id")
        token = token[0] if isinstance(token, list) else token
        if isinstance(token, int) and 0 <= token < size:
            add(token)
    tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(ids[-1] == tokenizer.eos_token_id)
    template = _template(place)
    if template:
        writer.add_chat_template(template)
    return notes


def split_name(pre_tokenizer: dict) -> str:
    """llama.cpp's name for how a tokenizer.json splits a text; "default" if it has no name for it."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if any(step.get("type") == "Split" for step in steps):
        patterns = [step.get("pattern", {}).get("Regex", "") for step in steps]
        return "llama-bpe" if any(pattern.startswith(LLAMA_3) for pattern in patterns) else "default"
    wanted = {"ByteLevel": {"use_regex": True}, "Digits": {"individual_digits": True}}
    usual = all(wanted.get(step.get("type"), {}).items() <= step.items() for step in steps)
    return SPLITS.get(tuple(step.get("type") for step in steps), "default") if usual else "default"


def _template(place: Path) -> str | None:
    if (place / "chat_template.jinja").is_file():
        return (place / "chat_template.jinja").read_text(encoding="utf-8")
    config = place / "tokenizer_config.json"
    found = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    if isinstance(found, list):  # several, each with a name
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    return found if isinstance(found, str) else None
