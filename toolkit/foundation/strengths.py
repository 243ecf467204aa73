"""What a strength means for a repo with several behaviours, while one of them is measured."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel


def strengths(model: PreTrainedModel, alphas: Sequence[float]) -> torch.Tensor | dict[str, torch.Tensor]:
    """`iti_alpha` of a call for rows at `alphas`: the default directions act at these, further behaviours at their own
    strength. At alpha 0 none of them acts, so that a plain row is plain."""
    rows = torch.tensor([float(alpha) for alpha in alphas])
    name, *others = list(getattr(model, "iti_strengths", {})) or [""]
    if not others:
        return rows
    return {name: rows} | {other: model.iti_strengths[other] * (rows != 0) for other in others}


def ungated(model: PreTrainedModel) -> dict[str, bool]:
    """Further arguments of a forward pass, which make its answers those of rows that a gate lets through."""
    held = getattr(model.base_model, "_iti_held", None)
    gated = held is not None and any(given.gate is not None for given in held.directions.values())
    return {"iti_gate": False} if gated else {}
