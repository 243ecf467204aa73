"""The conditions under which answers are compared: plain, steered, steered away, along random directions, asked in
words."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from iti_llama import ITIDirections, ITILlamaForCausalLM

from .summary import BOTH, TOLD


@dataclass(frozen=True)
class Condition:
    """One way to answer the tasks.

    alpha: the strength. directions: None for those of the model. asked: the prompt asks for the behaviour in words.
    """

    name: str
    alpha: float = 0.0
    directions: ITIDirections | None = None
    asked: bool = False


def random_directions(directions: ITIDirections, seed: int) -> ITIDirections:
    """The control: random unit directions with the same heads, sigmas and weights, so the offsets have equal norm."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(directions.directions.shape, generator=generator, dtype=torch.float64)
    return replace(directions, directions=torch.nn.functional.normalize(drawn, dim=-1).float(), scores=None)


def standard_conditions(
    model: ITILlamaForCausalLM, alpha: float | None = None, draws: int = 3, asked: bool = True
) -> list[Condition]:
    """Plain, steered, minus alpha, random directions; and if the tasks can be `asked` in words, also asked without
    steering and asked at minus alpha."""
    alpha = model.iti_alpha if alpha is None else alpha
    used = model.iti_directions.top(model.iti_top_k)
    return [
        Condition("plain"),
        Condition("steered", alpha),
        Condition("minus alpha", -alpha),
        *(Condition(f"random {i + 1}", alpha, random_directions(used, i + 1)) for i in range(draws)),
        *([Condition(TOLD, asked=True)] if asked else ()),
        *([Condition("asked in words, minus alpha", -alpha, asked=True)] if asked else ()),
    ]


def told_conditions(model: ITILlamaForCausalLM, alpha: float | None = None) -> list[Condition]:
    """As `standard_conditions`; and what the prompt asks for in words, without steering and with it."""
    standard = standard_conditions(model, alpha, asked=False)
    return [*standard, Condition(TOLD, asked=True), Condition(BOTH, standard[1].alpha, asked=True)]


@contextmanager
def under(model: ITILlamaForCausalLM, condition: Condition) -> Iterator[None]:
    """Inside the block the model has the condition's directions; afterwards it gets its directions and K back."""
    before, top_k = model.iti_directions, model.iti_top_k
    if condition.directions is None:
        yield
        return
    try:
        model.iti_top_k = None
        model.set_iti_directions(condition.directions)
        yield
    finally:
        model.set_iti_directions(before)
        model.iti_top_k = top_k
