# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""Configuration of ITI-Llama: a Llama configuration plus what the steering needs."""

import math
import re
from difflib import get_close_matches

from transformers import LlamaConfig

from .iti_directions import CUT_OFF, UNFINISHED, write_whole


SCOPES = ("all", "generated")
ITI_FIELDS = ("iti_alpha", "iti_top_k", "iti_scope", "iti_directions_file", "iti_behaviours")

LLAMA_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
    *("num_key_value_heads", "hidden_act", "rms_norm_eps", "attention_bias", "mlp_bias", "tie_word_embeddings"),
    *("rope_parameters", "rope_theta", "rope_scaling"),
)
"""What makes a Llama compute what it computes, counts first (the rope names are those of transformers 5 and 4)."""

FREE_FIELDS = (
    *("max_position_embeddings", "initializer_range", "use_cache", "pretraining_tp", "attention_dropout"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "dtype", "torch_dtype", "quantization_config"),
)
"""What a Llama's config may say besides."""

DANGEROUS_FIELDS = ("attn_implementation", "experts_implementation", "custom_generate", "custom_pipelines")
"""What can make transformers fetch and run code, with `_` before or `_internal` after; whoever loads may choose it."""


class ITILlamaConfig(LlamaConfig):
    r"""Configuration of an [`ITILlamaForCausalLM`]; every argument of [`~transformers.LlamaConfig`] is accepted too.

    Args:
        iti_alpha (`float`, *optional*, defaults to 1.0): Strength, in units of sigma (Li et al. 2023, equation 2).
        iti_top_k (`int`, *optional*): Use only the k best-ranked heads of the directions file. All of them by default.
        iti_scope (`str`, *optional*, defaults to `"all"`): `"all"` positions, or `"generated"`, as in the paper.
        iti_directions_file (`str`, *optional*, defaults to `"iti_directions.safetensors"`):
            Its name in the repo, without a folder. `None`: there is none, this is a plain Llama.
        iti_behaviours (`dict`, *optional*): Further directions, {name: {"file": a name in the repo, "alpha": strength,
            "top_k": heads, all by default}}. An entry that holds `iti_directions_file` alone gives that one its name,
            which is "default" else.
        base_model_name_or_path (`str`, *optional*): Whose weights (adapter form). `None`: those beside the config.
        base_model_revision (`str`, *optional*): Branch, tag or commit of the base model.
    """

    model_type = "iti_llama"
    _auto_class = "AutoConfig"

    def __init__(
        self,
        iti_alpha: float = 1.0,
        iti_top_k: int | None = None,
        iti_scope: str = "all",
        iti_directions_file: str | None = "iti_directions.safetensors",
        iti_behaviours: dict[str, dict] | None = None,
        base_model_name_or_path: str | None = None,
        base_model_revision: str | None = None,
        **kwargs,
    ):
        _check_known(kwargs)
        rope = kwargs.get("rope_parameters")
        if rope and not hasattr(LlamaConfig, "rope_parameters"):
            # Written by transformers 5, read by 4.57, which keeps the two apart and would silently use its defaults.
            rope = dict(kwargs.pop("rope_parameters"))
            kwargs["rope_theta"] = rope.pop("rope_theta", kwargs.get("rope_theta", 10000.0))
            kwargs["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
        kwargs["auto_map"] = {
            "AutoConfig": "configuration_iti_llama.ITILlamaConfig",
            "AutoModel": "modeling_iti_llama.ITILlamaModel",
            "AutoModelForCausalLM": "modeling_iti_llama.ITILlamaForCausalLM",
            "AutoModelForSequenceClassification": "loading_iti_llama.ITILlamaForSequenceClassification",
        }
        super().__init__(**kwargs)
        self.iti_alpha = iti_alpha
        self.iti_top_k = iti_top_k
        self.iti_scope = iti_scope
        self.iti_directions_file = iti_directions_file
        self.iti_behaviours = {} if iti_behaviours is None else iti_behaviours
        self.base_model_name_or_path = base_model_name_or_path
        self.base_model_revision = base_model_revision
        self.validate_iti()

    def validate_iti(self) -> None:
        """Raises `ValueError`, naming field, value found and value wanted. NumPy's numbers become Python's."""
        self.iti_alpha = check_alpha(self.iti_alpha)
        if self.iti_scope not in SCOPES:
            raise ValueError(f"iti_scope is {self.iti_scope!r}; expected one of {', '.join(map(repr, SCOPES))}")
        _check_count("iti_top_k", self.iti_top_k)
        if self.iti_directions_file is not None:
            _check_file("iti_directions_file", self.iti_directions_file)
        self.iti_behaviours = _check_behaviours(self.iti_behaviours, self.iti_directions_file)
        for key in ("base_model_name_or_path", "base_model_revision"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, str) or not value):
                raise ValueError(f"{key} is {value!r}; expected a non-empty string or null")

    @property
    def iti_name(self) -> str:
        """What the directions of `iti_directions_file` are called among the behaviours."""
        file = self.iti_directions_file
        return next((name for name, entry in self.iti_behaviours.items() if entry["file"] == file), "default")

    @property
    def iti_others(self) -> dict[str, dict]:
        """The entries of the further directions: {name: {"file", "alpha", "top_k"}}."""
        return {name: entry for name, entry in self.iti_behaviours.items() if name != self.iti_name}

    def to_json_file(self, json_file_path, use_diff: bool = True) -> None:
        write_whole(json_file_path, self.to_json_string(use_diff).encode())

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        fields, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        return fields, {"name_or_path": pretrained_model_name_or_path} | kwargs

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        name = kwargs.get("name_or_path")
        where = f"{name}/config.json" if name else "config.json"
        check_harmless(config_dict, where)
        if config_dict.get(UNFINISHED):
            raise ValueError(f"{where}: {CUT_OFF}")
        if (found := config_dict.get("model_type")) != cls.model_type:
            advice = "a plain Llama is steered by ITILlamaForCausalLM.from_base"
            raise ValueError(f"config.json has model_type {found!r}; expected 'iti_llama': {advice}")
        _check_known(kwargs)
        if "num_labels" in config_dict:  # transformers would list as many
            raise ValueError(f"{where}: num_labels is {config_dict['num_labels']!r}; expected no such field")
        for field in LLAMA_FIELDS[:7]:
            _check_count(f"{where}: {field}", config_dict.get(field))
        try:
            return super().from_dict(dict(config_dict), **kwargs)  # which writes into it
        except (ValueError, OSError):
            raise
        except Exception as error:  # transformers checks some fields by errors of many kinds
            raise ValueError(f"{where}: transformers refuses it: {type(error).__name__}: {error}") from error

    def to_llama(self, **overrides) -> LlamaConfig:
        """The same model as a plain Llama, with the attention implementation in use."""
        fields = {key: value for key, value in self.to_dict().items() if key in (*LLAMA_FIELDS, *FREE_FIELDS)}
        return LlamaConfig(**fields | {"attn_implementation": self._attn_implementation} | overrides)


def _check_known(fields: dict) -> None:
    for name in fields:
        if name == UNFINISHED:
            raise ValueError(CUT_OFF)
        if name.startswith("iti_") and name not in ITI_FIELDS:
            nearest = get_close_matches(name, ITI_FIELDS, n=1, cutoff=0)[0]
            raise ValueError(f"{name} is no field that this version knows; did you mean {nearest}?")


def check_alpha(alpha: object) -> float:
    """`alpha` as a float. Raises `ValueError` unless it is a finite number, of Python, NumPy or (0-d) torch."""
    number = alpha.item() if getattr(alpha, "ndim", None) == 0 else alpha
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise ValueError(f"iti_alpha is {alpha!r}; expected a finite number")
    return float(number)


def _check_count(field: str, k: object) -> None:
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise ValueError(f"{field} is {k!r}; expected null or an integer of at least 1")


def _check_file(field: str, name: object) -> None:
    if not isinstance(name, str) or name in ("", ".", "..") or any(c in name for c in "/\\:\0"):
        raise ValueError(f"{field} is {name!r}; expected a plain file name, without a folder")


def _check_behaviours(entries: object, default_file: str | None) -> dict[str, dict]:
    """The entries with every field. Raises `ValueError`, naming the field, the value found and the value wanted."""
    if not isinstance(entries, dict):
        raise ValueError(f"iti_behaviours is {entries!r}; expected an object, {{name: {{file, alpha, top_k}}}}")
    if entries and default_file is None:
        raise ValueError(
            f"iti_behaviours names {', '.join(entries)}, but iti_directions_file is null; expected a file"
        )
    checked, files = {}, {}
    for name, entry in entries.items():
        field = f"iti_behaviours[{name!r}]"
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", name) or name == "default":
            raise ValueError(f"{field}: expected a name of letters, digits, _ and -, other than 'default'")
        if not isinstance(entry, dict) or entry.keys() - {"file", "alpha", "top_k"}:
            raise ValueError(f"{field} is {entry!r}; expected an object of file, alpha and top_k")
        _check_file(f"{field}: file", file := entry.get("file", f"iti_directions.{name}.safetensors"))
        if file in files:
            raise ValueError(f"{field}: file is {file!r}, that of {files[file]!r}; expected one of its own")
        files[file] = name
        if file == default_file:
            if entry.keys() != {"file"}:
                raise ValueError(f"{field} is {entry!r}; expected a file alone: iti_alpha and iti_top_k are its own")
            checked[name] = {"file": file}
            continue
        _check_count(f"{field}: top_k", entry.get("top_k"))
        try:
            alpha = check_alpha(entry.get("alpha", 1.0))
        except ValueError as error:
            raise ValueError(f"{field}: {str(error).replace('iti_alpha', 'alpha')}") from None
        checked[name] = {"file": file, "alpha": alpha, "top_k": entry.get("top_k")}
    return checked


def check_harmless(fields: dict, where: str) -> None:
    """Raises `ValueError` if a config.json names code that transformers would fetch and run."""
    for key, value in fields.items():
        if key.strip("_").removesuffix("_internal") in DANGEROUS_FIELDS and value is not None:
            raise ValueError(f"{where}: {key} is {value!r}; expected no such field, it can make transformers run code")


def check_alphas(alpha: object, rows: int) -> list[float]:
    """[1 or rows] strengths. Raises `ValueError` unless `alpha` is a finite number, or one for each of the rows."""
    numbers = alpha.tolist() if hasattr(alpha, "tolist") else alpha
    numbers = [check_alpha(number) for number in (numbers if isinstance(numbers, (list, tuple)) else [numbers])]
    if len(numbers) not in (1, rows):
        raise ValueError(f"iti_alpha is {numbers}; expected a finite number, or one for each of {rows} rows")
    return numbers


def live_field(name: str, doc: str) -> property:
    """A field of the config, which is the only state, as a property of its model. A refused value changes nothing."""

    def set_field(self, value: float | int | str | None) -> None:
        before = getattr(self.config, name)
        setattr(self.config, name, value)
        try:
            self.config.validate_iti()
            self.base_model._follow_config()
        except ValueError:
            setattr(self.config, name, before)
            raise

    return property(lambda self: getattr(self.config, name), set_field, doc=doc)
