# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""What a pass adds to the heads, and the methods that change it. The config and the directions are the only state."""

import contextlib
import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

from .iti_directions import FIELDS, Behaviour, ITIDirections, ITIGate, behaviours_of, check_alpha, check_fields


_entered: ContextVar[tuple[object, ...]] = ContextVar("iti_blocks", default=())
"""The `disable_iti` blocks, of any model, that this context has entered and not left."""


class HeldDirections:
    """The directions of a model, {"default" or the name of a further behaviour: directions}, and their offsets as a
    pass adds them. It never changes: a model replaces the whole in one assignment, and a pass takes it once."""

    def __init__(self, directions: dict[str, ITIDirections]):
        self.directions = directions
        self.heads = {name: given.heads.tolist() for name, given in directions.items()}
        self.layers = sorted({layer for heads in self.heads.values() for layer, _ in heads})
        self.ranks, self.offsets = {}, {}
        for name, given in directions.items():
            shape = len(self.layers), given.num_attention_heads, given.head_dim
            whole, ranks = torch.zeros(2, *shape, dtype=torch.float32, device="cpu")
            for layer, offset in given.offsets().items():
                whole[self.layers.index(layer)] = offset.detach().unflatten(0, shape[1:])
            self.offsets[name, None, whole.device] = whole.flatten(1)[:, None, None]
            for rank, (layer, head) in enumerate(self.heads[name]):
                ranks[self.layers.index(layer), head] = rank
            self.ranks[name] = ranks.flatten(1)[:, None, None]

    def offset(self, name: str, top_k: int | None, device: torch.device) -> torch.Tensor:
        """What the best heads of a behaviour add at alpha 1, float32 [layers, 1, 1, width]; made once."""
        key = name, top_k, device
        if key not in self.offsets:
            if top_k is not None and top_k > len(self.heads[name]):  # it was set in the config alone
                self.directions[name].top(top_k)
            with torch.inference_mode(False):
                whole = self.offsets[name, None, torch.device("cpu")]
                made = (whole if top_k is None else whole * (self.ranks[name] < top_k)).to(device)
            if type(made) is not torch.Tensor:  # a pass is traced
                return made
            self.offsets[key] = made
        return self.offsets[key]

    def gates(self, behaviours: dict[str, Behaviour]) -> dict[str, ITIGate]:
        """The gates of those behaviours that have one."""
        gates = {name: self.directions[name].gate for name in behaviours}
        return {name: gate for name, gate in gates.items() if gate is not None}

    def totals(self, behaviours: dict[str, Behaviour], alphas: dict, device: torch.device) -> dict[str, tuple]:
        """{site: ({steered layer: its row}, the sum of alpha * offset over behaviours, float32 [layers, rows or 1, 1,
        width])}. An alpha is a number or [rows, 1, 1]."""
        totals = {}
        for name, behaviour in behaviours.items():
            site, term = self.directions[name].site, alphas[name] * self.offset(name, behaviour.top_k, device)
            rows, total = totals.get(site, ({}, None))
            rows = rows | {layer: self.layers.index(layer) for layer, _ in self.heads[name][: behaviour.top_k]}
            totals[site] = rows, term if total is None else total + term
        return totals


@dataclass(frozen=True)
class Steering:
    """What one forward pass adds. It is made at the start of the pass, and never changes.

    shifts: {site: ({steered layer: its row}, [layers, rows or 1, 1, width])}. mask: [batch, seq, 1], weights of the
    positions, or None for all. record: called with the layer and the input of its o_proj, before the shift.
    """

    shifts: dict[str, tuple[dict[int, int], torch.Tensor]]
    mask: torch.Tensor | None = None
    record: Callable[[int, torch.Tensor], None] | None = None
    copies: dict = field(default_factory=dict)

    def add(self, site: str, attention, x: torch.Tensor) -> torch.Tensor:
        """`x` [batch, seq, width], shifted if this layer is steered at this site."""
        rows, shifts = self.shifts.get(site, ({}, None))
        if attention.layer_idx not in rows:
            return x
        mask = self.mask
        if shifts.device != x.device:  # one copy for all layers of another device
            if (site, x.device) not in self.copies:
                self.copies[site, x.device] = shifts.to(x.device), None if mask is None else mask.to(x.device)
            shifts, mask = self.copies[site, x.device]
        shift, width = shifts[rows[attention.layer_idx]].to(x.dtype), x.shape[-1]
        if shift.shape[-1] != width:  # tensor parallelism: the heads of this rank
            shift = shift.narrow(-1, attention.o_proj.weight.device_mesh.get_local_rank() * width, width)
        return x + shift if mask is None else torch.addcmul(x, mask, shift)


def live_field(name: str, doc: str) -> property:
    """A field of the config as a property of its model. A refused value changes nothing."""

    def set_field(self, value: float | int | str | None) -> None:
        checked = check_fields(vars(self.config) | {name: value})[name]
        if name == "iti_top_k" and self.iti_directions is not None:
            self.iti_directions.top(checked)
        setattr(self.config, name, checked)

    return property(lambda self: getattr(self.config, name), set_field, doc=doc)


class ITILlamaSteeringMixin:
    """Changing the steering, for the model with and without a language-modelling head."""

    iti_alpha = live_field("iti_alpha", "Strength in units of sigma. Setting it reloads nothing.")
    iti_top_k = live_field("iti_top_k", "How many of the best-ranked heads are steered; None for all in the file.")
    iti_scope = live_field("iti_scope", "Positions shifted: 'all', or 'generated' (from the last prompt token on).")

    def set_iti_alpha(self, alpha: float) -> None:
        """Set `iti_alpha`, also through a wrapper that forwards methods (PEFT, FSDP; else use `wrapper.module`)."""
        self.iti_alpha = alpha

    @property
    def iti_directions(self) -> ITIDirections | None:
        """All default directions, also those that `iti_top_k` leaves out; None if the model is not steered."""
        return self.base_model._iti_held.directions.get("default")

    @property
    def iti_strengths(self) -> dict[str, float]:
        """The strength of every behaviour by name, the default one first."""
        return {behaviour.name: behaviour.alpha for behaviour in behaviours_of(vars(self.config)).values()}

    def set_iti_directions(self, directions: ITIDirections | None) -> None:
        """Replace the default directions; None takes them away. Raises `ValueError`, and changes nothing, if they do
        not fit, or others stand beside them."""
        base, config = self.base_model, self.config
        if directions is None:
            if others := list(self.iti_strengths)[1:]:
                raise ValueError(f"the behaviours {', '.join(others)} are set beside it: take them away first")
            vars(config).update(iti_directions_file=None, iti_directions_sha256=None, iti_behaviours={})  # its name
            base._iti_held = HeldDirections({})
        else:
            directions.check_geometry(config, top_k=config.iti_top_k)
            base._iti_held = HeldDirections(base._iti_held.directions | {"default": directions})
            config.iti_directions_sha256 = None  # until it is saved
            config.iti_directions_file = config.iti_directions_file or FIELDS["iti_directions_file"]

    def set_iti(self, strengths: dict[str, float]) -> None:
        """Set the strengths of the behaviours that are named; the others stay as they are. The default one is called
        "default", too. Raises `ValueError` for an unknown name or a bad strength, and changes nothing."""
        alphas = {self._iti_key(name): check_alpha(alpha) for name, alpha in strengths.items()}
        alpha, entries = alphas.pop("default", self.config.iti_alpha), self.config.iti_behaviours
        changed = {name: entries[name] | {"alpha": alpha} for name, alpha in alphas.items()}
        vars(self.config).update(iti_alpha=alpha, iti_behaviours=entries | changed)

    def _iti_key(self, name: str) -> str:
        """The key of a behaviour's directions."""
        for key, behaviour in behaviours_of(vars(self.config)).items():
            if name in (key, behaviour.name):
                return key
        raise ValueError(f"no behaviour is called {name!r}; this model has {', '.join(self.iti_strengths) or 'none'}")

    def set_iti_behaviour(
        self, name: str, directions: ITIDirections | None, alpha: float = 1.0, top_k: int | None = None
    ) -> None:
        """Add, or replace, directions beside the default ones, with a strength of their own; None takes them away.
        Raises `ValueError`, and changes nothing, if they do not fit or there are no default ones."""
        base, config = self.base_model, self.config
        default = next(iter(self.iti_strengths), None)
        if default is None or name in (default, "default"):
            wanted = "the default directions: call set_iti_directions" if name != "default" else "another name"
            raise ValueError(f"behaviour {name!r} is set beside the default directions; expected {wanted}")
        entries = {other: entry for other, entry in config.iti_behaviours.items() if other != name}
        held = {other: given for other, given in base._iti_held.directions.items() if other != name}
        if directions is None:
            self._iti_key(name)
            config.iti_behaviours, base._iti_held = entries, HeldDirections(held)
            return
        entries[name] = {"file": f"iti_directions.{name}.safetensors", "alpha": alpha, "top_k": top_k}
        checked = check_fields(vars(config) | {"iti_behaviours": entries})["iti_behaviours"]
        directions.check_geometry(config, top_k=top_k)
        base._iti_held = HeldDirections(held | {name: directions})
        config.iti_behaviours = checked  # set last, so that it never names missing directions

    def load_iti_directions(
        self, path: str | os.PathLike, name: str | None = None, alpha: float = 1.0, top_k: int | None = None
    ) -> None:
        """Read a directions file and set its directions as the default ones, at the model's own strength, or as the
        behaviour `name`. Raises as `ITIDirections.load`, `set_iti_directions` and `set_iti_behaviour`."""
        directions = ITIDirections.load(path)
        if name in (None, "default", next(iter(self.iti_strengths), None)):
            self.set_iti_directions(directions)
        else:
            self.set_iti_behaviour(name, directions, alpha, top_k)

    @contextlib.contextmanager
    def disable_iti(self):
        """Inside the `with` block the model is a plain Llama, bit for bit, in the context that entered it (a thread, a
        task of asyncio). Blocks may end in any order. A thread started inside has its own: pass `iti_alpha=0` there.
        Compiled passes outside `generate` are plain while any block is open."""
        block, open_blocks = object(), self.base_model._iti_blocks
        _entered.set((*_entered.get(), block))
        open_blocks.append(block)
        try:
            yield
        finally:
            open_blocks.remove(block)
            _entered.set(tuple(other for other in _entered.get() if other is not block))

    def _iti_disabled(self) -> bool:
        base = self.base_model
        if torch.compiler.is_compiling() or getattr(base, "_is_replica", False):  # neither sees this context
            return len(base._iti_blocks) > 0
        return any(block in base._iti_blocks for block in _entered.get())
