"""How much a Llama's rotary frequencies are divided: its config describes it, a GGUF holds the divisors."""

import math

import numpy as np


def rotary_theta(fields: dict) -> float:
    """The base of the rotary frequencies that a config.json has."""
    return float((fields.get("rope_parameters") or {}).get("rope_theta") or fields.get("rope_theta") or 10000.0)


def rotary_divisors(fields: dict, head_dim: int) -> np.ndarray | None:
    """Llama 3's scaling divides each rotary frequency by these, float32 [head_dim / 2]; None without scaling (Llama
    3.1's release notes; transformers' `_compute_llama3_parameters`). `fields`: those of a config.json.

    Raises:
        ValueError: for another kind of scaling.
    """
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in ("default", "linear"):
        return None
    if kind != "llama3":
        raise ValueError(f"config.json: rope_type is {kind!r}; expected default, linear or llama3")
    wavelength = 2 * math.pi * rotary_theta(fields) ** (np.arange(0, head_dim, 2) / head_dim)
    context, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((context / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
