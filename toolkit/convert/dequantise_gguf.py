"""Make a plain Llama folder from a GGUF file: what transformers reads from it, in the files that every base has."""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import pre_tokenizers, processors
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from ..foundation.files import write_text
from ..foundation.open_gguf import open_gguf
from ..foundation.rotary_scaling import rotary_divisors
from ..repo.base_weights import write_base_card
from ..repo.folder import new_folder


if TYPE_CHECKING:
    from gguf import GGUFReader


DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

WHOLE = ("F32", "F16", "BF16")
"""The types of a GGUF that are not quantised."""

LAYER = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
"""The weights of one layer, by their names in a GGUF."""

NO_LLAMA_FIELDS = ("quantization_config", "_model_name_or_path", "_name_or_path", "unk_token_id")
"""Fields that transformers adds to the config that it makes from a GGUF."""

ROTARY_DIVISORS = "rope_freqs.weight"

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""The rotary scaling of Llama 3.1 and later, without its factor: 8, or 32 in Llama 3.2. A GGUF holds the result, a
divisor for each frequency, and transformers leaves these out."""

SPLITS = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    ),
}
"""How a text is split before it is tokenized, by `tokenizer.ggml.pre`, for files where transformers gets it wrong:
it reads SmolLM's files without the split at digits, so that spaces before a digit become other tokens."""


def dequantise_gguf(
    path: str | os.PathLike,
    out: str | os.PathLike,
    dtype: str = "bfloat16",
    original: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> str:
    """Write the Llama of a GGUF file to the folder `out`, whole or not at all: config, weights in `dtype`, tokenizer,
    chat template, generation config, and a card that says where the weights come from. Returns that origin, like
    "dequantised from Q4_1 of FILE, SHA-256 HEX". original: the Hub repo of the model, for the card. progress: called
    with "step I of 3" as each step is done: file read, weights read, folder written.

    The logits equal those of transformers with `from_pretrained(folder, gguf_file=NAME)`, except for files with the
    rotary scaling of Llama 3.1: transformers leaves it out, and the folder has it.

    Raises:
        ValueError: before the weights are read, if it is not a whole GGUF of a plain Llama in one file, has no
            tokenizer, or holds something that transformers would leave out; if dtype is not one of `DTYPES`.
        FileNotFoundError, FileExistsError: if the file does not exist, or if `out` exists already.
    """
    path, out = Path(path), Path(out)
    if dtype not in DTYPES:
        raise ValueError(f"--dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if out.exists():
        raise FileExistsError(f"{out}: is there already; choose another --out")
    reader = open_gguf(path)
    _check_tensors(reader, path)
    rope = _rotary_scaling(reader, path)
    if _field(reader, "tokenizer.ggml.tokens") is None:
        raise ValueError(f"{path}: has no tokenizer (tokenizer.ggml.tokens); expected a whole model")
    stored = _stored_type(reader)
    how = "read" if stored in WHOLE else "dequantised"
    weights = f"{how} from {stored} of {path.name}, SHA-256 {sha256_of(path)}"
    progress("step 1 of 3")
    with tempfile.TemporaryDirectory() as alone:  # so that transformers reads no file beside it
        Path(alone, "model.gguf").symlink_to(path.resolve())
        tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf", trust_remote_code=False)
        loaded, info = LlamaForCausalLM.from_pretrained(
            alone, gguf_file="model.gguf", dtype=DTYPES[dtype], output_loading_info=True
        )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{path}: transformers finds no {missing[0]} in it, and {len(missing) - 1} more are missing")
    progress("step 2 of 3")
    fields = {name: _shortest(value) for name, value in loaded.config.to_dict().items()}
    fields = {name: value for name, value in fields.items() if name not in NO_LLAMA_FIELDS}
    config = LlamaConfig(**(fields | _with_rope(fields, rope) | {"architectures": ["LlamaForCausalLM"]}))
    with torch.device("meta"):  # the weights come from `loaded`, and memory may have room for only one copy
        plain = LlamaForCausalLM(config).to(DTYPES[dtype])
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = _generation_config(reader, config)
    _restore_tokenizer(tokenizer, reader)
    tokenizer.model_max_length = config.max_position_embeddings
    with new_folder(out) as folder:
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _name_tokenizer_class(folder)
        license_ = _field(reader, "general.license")
        write_base_card(folder, original or _field(reader, "general.name") or path.stem, weights, license_, original)
    progress("step 3 of 3")
    return weights


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _field(reader: "GGUFReader", name: str):
    """A field of the file, None if it has no such field."""
    return reader.fields[name].contents() if name in reader.fields else None


def _check_tensors(reader: "GGUFReader", path: Path) -> None:
    """Raises `ValueError` unless the tensors are those of a plain Llama: all of them, and no other."""
    wanted = {f"blk.{n}.{name}.weight" for n in range(_field(reader, "llama.block_count") or 0) for name in LAYER}
    wanted |= {"token_embd.weight", "output_norm.weight"}
    held = {tensor.name for tensor in reader.tensors}
    if missing := sorted(wanted - held):
        raise ValueError(f"{path}: has no {missing[0]}; expected a whole Llama")
    for name in sorted(held - wanted - {"output.weight", ROTARY_DIVISORS}):
        what = "a bias, as in a steered file" if name.endswith(".bias") else "not a weight of a plain Llama"
        raise ValueError(f"{path}: holds {name}, {what}; transformers would leave it out")


def _rotary_scaling(reader: "GGUFReader", path: Path) -> dict | None:
    """The rotary scaling in the form of a config, None without scaling. Raises `ValueError` for an unknown one."""
    kind = _field(reader, "llama.rope.scaling.type") or "none"
    if kind != "none" or _field(reader, "llama.rope.scale_linear"):
        raise ValueError(f"{path}: has rotary scaling {kind!r}, which transformers would leave out; expected none")
    held = next((tensor.data for tensor in reader.tensors if tensor.name == ROTARY_DIVISORS), None)
    if held is None:
        return None
    theta = _shortest(_field(reader, "llama.rope.freq_base") or 10000.0)
    for factor in (8.0, 32.0):
        rope = LLAMA3_ROPE | {"factor": factor}
        divisors = rotary_divisors({"rope_theta": theta, "rope_scaling": rope}, 2 * len(held))
        if np.allclose(divisors, held, rtol=1e-4):
            return rope
    raise ValueError(f"{path}: {ROTARY_DIVISORS} is not the scaling of Llama 3.1 or 3.2, the two that are known")


def _with_rope(fields: dict, rope: dict | None) -> dict:
    """The fields of a config for its rotary scaling: transformers 5 has one field, 4 has two."""
    if rope is None:
        return {}
    if "rope_parameters" in fields:
        return {"rope_parameters": fields["rope_parameters"] | rope}
    return {"rope_scaling": rope}


def _shortest(value):
    """A number that was stored in float32, in its shortest decimals: 1e-05, not 9.999999747378752e-06. Both are the
    same float32, and the original's config has the former."""
    if isinstance(value, dict):
        return {name: _shortest(inner) for name, inner in value.items()}
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _stored_type(reader: "GGUFReader") -> str:
    """The type in which most of the weights are stored, like "Q4_1"."""
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    return sizes.most_common(1)[0][0]


def _generation_config(reader: "GGUFReader", config: LlamaConfig) -> GenerationConfig:
    """The tokens that end an answer: the file's end of text, and its end of turn if that is another token."""
    ends = [config.eos_token_id, _field(reader, "tokenizer.ggml.eot_token_id")]
    ends = list(dict.fromkeys(token for token in ends if token is not None))
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends or None,
        pad_token_id=config.pad_token_id,
    )


def _restore_tokenizer(tokenizer: PreTrainedTokenizerBase, reader: "GGUFReader") -> None:
    """Set what transformers does not read from the file, or reads wrongly in version 4: how texts are split, the
    special tokens, and whether a text begins with BOS and ends with EOS."""
    split = SPLITS.get(_field(reader, "tokenizer.ggml.pre"))
    if split is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = split()
    tokens = _field(reader, "tokenizer.ggml.tokens")
    for name, label in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (number := _field(reader, f"tokenizer.ggml.{label}_token_id")) is not None:
            setattr(tokenizer, f"{name}_token", tokens[number])
    added = {name: _field(reader, f"tokenizer.ggml.add_{name}_token") for name in ("bos", "eos")}
    if set(added.values()) == {None}:
        return
    begins, ends = ([getattr(tokenizer, f"{name}_token")] if added[name] else [] for name in ("bos", "eos"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*begins, "$A", *ends],
        pair=[*begins, "$A", *ends, *(f"{token}:1" for token in begins), "$B:1", *(f"{token}:1" for token in ends)],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in (*begins, *ends)],
    )


def _name_tokenizer_class(folder: Path) -> None:
    """Name the class with which transformers 4 and 5 both load a `tokenizer.json`, and the outputs that a Llama takes:
    transformers 4 would add token types."""
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    for name in ("add_bos_token", "add_eos_token"):  # tokenizer.json has these already
        fields.pop(name, None)
    fields |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    write_text(path, json.dumps(fields, indent=2) + "\n")
