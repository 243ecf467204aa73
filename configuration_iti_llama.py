# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""Configuration of ITI-Llama: a Llama configuration plus what the steering needs."""

import math

from transformers import LlamaConfig


SCOPES = ("all", "generated")


class ITILlamaConfig(LlamaConfig):
    r"""
    Configuration of an [`ITILlamaForCausalLM`]. Every argument of [`~transformers.LlamaConfig`] is accepted as well.

    Args:
        iti_alpha (`float`, *optional*, defaults to 1.0):
            Strength of the intervention, in units of sigma (Li et al. 2023, equation 2). 0 is plain Llama, bit by bit.
        iti_top_k (`int`, *optional*):
            Use only the k best-ranked heads of the directions file. All of them by default.
        iti_scope (`str`, *optional*, defaults to `"all"`):
            Token positions that are shifted: `"all"`, or `"generated"` (the paper's): the last prompt token and every
            generated token.
        iti_directions_file (`str`, *optional*, defaults to `"iti_directions.safetensors"`):
            Name of the directions file in the repo, without a folder. `None` says that there is none: a plain Llama.
        base_model_name_or_path (`str`, *optional*):
            Where the weights come from (adapter form). `None`: they are beside the config (self-contained form).
        base_model_revision (`str`, *optional*):
            Branch, tag or commit of the base model.

    Raises:
        ValueError: if one of them has a wrong type or value; the message names it.
    """

    model_type = "iti_llama"
    _auto_class = "AutoConfig"

    def __init__(
        self,
        iti_alpha: float = 1.0,
        iti_top_k: int | None = None,
        iti_scope: str = "all",
        iti_directions_file: str | None = "iti_directions.safetensors",
        base_model_name_or_path: str | None = None,
        base_model_revision: str | None = None,
        **kwargs,
    ):
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
        }
        super().__init__(**kwargs)
        self.iti_alpha = iti_alpha
        self.iti_top_k = iti_top_k
        self.iti_scope = iti_scope
        self.iti_directions_file = iti_directions_file
        self.base_model_name_or_path = base_model_name_or_path
        self.base_model_revision = base_model_revision
        self.validate_iti()

    def validate_iti(self) -> None:
        """Raises `ValueError`, naming the field, the value found and the value wanted."""
        check_alpha(self.iti_alpha)
        check_scope(self.iti_scope)
        check_top_k(self.iti_top_k)
        name = self.iti_directions_file
        plain = isinstance(name, str) and name not in ("", ".", "..") and not any(c in name for c in "/\\:\0")
        if name is not None and not plain:
            raise ValueError(f"iti_directions_file is {name!r}; expected a plain file name, without a folder")
        for key in ("base_model_name_or_path", "base_model_revision"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, str) or not value):
                raise ValueError(f"{key} is {value!r}; expected a non-empty string or null")


def check_alpha(alpha: float) -> float:
    """`alpha` as a float. Raises `ValueError` unless it is a finite number."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise ValueError(f"iti_alpha is {alpha!r}; expected a finite number")
    return float(alpha)


def check_scope(scope: str) -> str:
    if scope not in SCOPES:
        raise ValueError(f"iti_scope is {scope!r}; expected one of {', '.join(map(repr, SCOPES))}")
    return scope


def check_top_k(top_k: int | None) -> int | None:
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"iti_top_k is {top_k!r}; expected null or an integer of at least 1")
    return top_k


__all__ = ["ITILlamaConfig"]
