"""Select what is exported from a steered repo: its behaviours at the chosen strengths, and what they add to a layer.
This module is light: a GGUF file is patched without torch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from iti_llama.iti_directions import Behaviour, check_fields

from ..foundation.output_shift import output_shift
from ..repo.steered_repo import SteeredRepo


class ExportError(ValueError):
    """Says what cannot be exported, and what to do instead."""


def select_behaviours(
    repo: SteeredRepo,
    alpha: float | None = None,
    top_k: int | None = None,
    scope: str | None = None,
    name: str | None = None,
    scopes: Sequence[str] = ("all",),
) -> list[Behaviour]:
    """The behaviours of a repo, or only the one called `name`. alpha, top_k and scope change the first one if they are
    given. At alpha 0 all behaviours are at 0, because that asks for the plain base.

    Raises:
        ExportError: if there is no behaviour of that name, the scope is not one of the `scopes` that the form has, a
            behaviour has a gate, or only the first is at 0.
        ValueError: if alpha, top_k or scope is not valid.
    """
    where = repo.opened.repo
    if name is not None and name not in repo.behaviours:
        raise ExportError(f"{where}: has no behaviour {name!r}; it has {', '.join(repo.behaviours)}")
    first, *others = repo.behaviours.values() if name is None else [repo.behaviours[name]]
    changes = {key: value for key, value in (("alpha", alpha), ("top_k", top_k)) if value is not None}
    first = replace(first, **changes)
    others = [replace(other, alpha=0.0) if alpha == 0 else other for other in others]
    scope = scope or repo.scope
    check_fields({"iti_alpha": first.alpha, "iti_top_k": first.top_k, "iti_scope": scope})
    repo.used(first)
    if scope not in scopes:
        raise ExportError(
            f"{where}: iti_scope is 'generated', but an export acts on every position, of the prompt too; pass "
            "--scope all if you want that"
        )
    for behaviour in (first, *others):
        if repo.directions[behaviour.name].gate is not None and first.alpha != 0:
            raise ExportError(
                f"{where}: the directions of {behaviour.name!r} have a gate, which decides for each prompt, but an "
                "export acts on every prompt; save them without it "
                "(model.set_iti_directions(replace(directions, gate=None)))"
            )
    if first.alpha == 0 and any(other.alpha for other in others):
        raise ExportError(
            f"{where}: iti_alpha is 0, but {', '.join(other.name for other in others)} would still steer, and an "
            "export scales the mix by iti_alpha; name one (--name), set their strengths to 0, or iti_alpha to another "
            "number"
        )
    return [first, *others]


def shares_of(behaviours: Sequence[Behaviour]) -> list[tuple[Behaviour, float]]:
    """The behaviours that act, each with its strength in units of the first one's."""
    first, *others = behaviours
    return [(first, 1.0), *((other, other.alpha / first.alpha) for other in others if other.alpha != 0)]


def mix_shifts(repo: SteeredRepo, behaviours: Sequence[Behaviour], weight_of: Callable) -> dict:
    """What the behaviours add together to each steered layer's attention output, in units of the first one's alpha:
    {layer: float32 [hidden_size]}, in the order of layers. `weight_of` reads a layer's output projection
    [hidden_size, heads * head_dim], one at a time. For a single behaviour it is the shift at alpha 1."""
    shares = shares_of(behaviours)
    offsets = {behaviour.name: repo.used(behaviour).offsets() for behaviour, _ in shares}
    shifts = {}
    for layer in sorted({layer for of_layer in offsets.values() for layer in of_layer}):
        weight = None
        for behaviour, share in shares:
            if layer not in offsets[behaviour.name]:
                continue
            shift = offsets[behaviour.name][layer]
            if repo.directions[behaviour.name].site == "head":
                weight = weight_of(layer) if weight is None else weight
                shift = output_shift(weight, shift)
            shifts[layer] = shifts[layer] + share * shift if layer in shifts else share * shift
    return shifts
