# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""Llama with Inference-Time Intervention (Li et al., NeurIPS 2023): only what differs from Llama.

The paper adds `alpha * sigma * theta` to the output of chosen heads, before the output projection W_O (equation 2).
W_O is linear, so this equals adding `alpha * shift` to the attention output, `shift = W_O @ concat_h(sigma * theta)`,
one vector a layer, computed once when directions or alpha change. Layers without a chosen head are plain Llama.
"""

import contextlib
import copy
import functools
import os
import threading
from contextvars import ContextVar
from inspect import signature
from itertools import combinations

import torch
from torch import nn
from transformers import GenerationMixin, LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor
from transformers.models.llama import modeling_llama
from transformers.utils import logging

from .configuration_iti_llama import ITILlamaConfig, check_alpha, check_alphas, live_field
from .iti_directions import ITIDirections, ITIGate, device_of
from .loading_iti_llama import ITILlamaLoadingMixin


logger = logging.get_logger(__name__)
FORWARD_INPUTS = tuple(signature(LlamaModel.forward).parameters)[1:]  # the cache is `past_key_values` up to 5.23
ONE_STRENGTH = "continuous batching has one strength, the model's own: set model.iti_alpha, and leave it out"
_blocks: ContextVar[tuple[object, ...]] = ContextVar("iti_blocks", default=())
"""The `disable_iti` blocks, of any model, that this context has entered; a model knows which of its own are open."""


class ITILlamaAttention(modeling_llama.LlamaAttention):
    def __init__(self, config: ITILlamaConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        # alpha * shift, [hidden_size], set once the weights are in place; None in a layer without a chosen head.
        self.register_buffer("iti_shift", None, persistent=False)

    def forward(self, hidden_states: torch.Tensor, *args, iti_shifts=None, iti_mask=None, iti_off=False, **kwargs):
        """`iti_shifts` {layer: [1 or batch, 1, hidden_size]} replaces the model's own alpha * shift, `iti_mask`
        [batch, seq, 1] weighs positions, `iti_off` leaves the shift out."""
        attn_output, attn_weights = super().forward(hidden_states, *args, **kwargs)
        if self.iti_shift is None or iti_off:
            return attn_output, attn_weights
        shift = self.iti_shift if iti_shifts is None else iti_shifts[self.layer_idx]
        if iti_mask is None:
            return attn_output + shift, attn_weights
        return torch.addcmul(attn_output, iti_mask, shift), attn_weights


class ITILlamaDecoderLayer(modeling_llama.LlamaDecoderLayer):
    def __init__(self, config: ITILlamaConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.self_attn = ITILlamaAttention(config, layer_idx)


class ITILlamaPreTrainedModel(ITILlamaLoadingMixin, LlamaPreTrainedModel):
    """Changing the steering, for the model with and without a language-modelling head."""

    config: ITILlamaConfig
    config_class = ITILlamaConfig
    _no_split_modules = ["ITILlamaDecoderLayer"]
    _can_record_outputs = {"hidden_states": ITILlamaDecoderLayer, "attentions": ITILlamaAttention}

    iti_alpha = live_field("iti_alpha", "Strength in units of sigma. Setting it reloads and recompiles nothing.")
    iti_top_k = live_field("iti_top_k", "How many of the best-ranked heads are steered; None for all in the file.")
    iti_scope = live_field("iti_scope", "Positions shifted: 'all', or 'generated' (from the last prompt token on).")

    def set_iti_alpha(self, alpha: float) -> None:
        """`model.iti_alpha = alpha` through a wrapper that forwards methods (PEFT, FSDP; else on `wrapper.module`)."""
        self.iti_alpha = alpha

    @property
    def iti_directions(self) -> ITIDirections | None:
        """Every direction, also those that `iti_top_k` leaves out; None for a model that is not steered."""
        return self.base_model._iti_directions

    def set_iti_directions(self, directions: ITIDirections | None) -> None:
        """Replace the directions; None takes them away. To be called again after a change of the o_proj weights (which
        PEFT adapters are not). Raises `ValueError`, and changes nothing, if they do not fit or weights are missing."""
        base = self.base_model
        if directions is None and base._iti_others:
            raise ValueError(f"the behaviours {', '.join(base._iti_others)} are set beside it: take them away first")
        base._compute_shifts(directions, base._iti_others)

    @property
    def iti_strengths(self) -> dict[str, float]:
        """The strength of every behaviour by name, the default one first."""
        config = self.config
        return {config.iti_name: config.iti_alpha} | {name: e["alpha"] for name, e in config.iti_others.items()}

    def set_iti(self, strengths: dict[str, float]) -> None:
        """Set the strengths of the behaviours that are named; the others stay as they are. The default one is called
        "default", too. Raises `ValueError` for an unknown name or no number, and changes nothing."""
        alphas = {self._iti_known(name): check_alpha(alpha) for name, alpha in strengths.items()}
        for name, alpha in alphas.items():
            if name == self.config.iti_name:
                self.config.iti_alpha = alpha
            else:
                self.config.iti_behaviours[name]["alpha"] = alpha
        self.base_model._follow_config()

    def _iti_known(self, name: str) -> str:
        names = list(self.iti_strengths)
        if name not in (*names, "default") or self.iti_directions is None:
            held = ", ".join(names) if self.iti_directions is not None else "none"
            raise ValueError(f"no behaviour is called {name!r}; this model has {held}")
        return names[0] if name == "default" else name

    def set_iti_behaviour(
        self, name: str, directions: ITIDirections | None, alpha: float = 1.0, top_k: int | None = None
    ) -> None:
        """Add, or replace, directions beside the default ones, with a strength of their own; None takes them away.
        Raises `ValueError`, and changes nothing, if they do not fit or there are no default ones."""
        base, config = self.base_model, self.config
        if base._iti_directions is None or name in (config.iti_name, "default"):
            wanted = "the default directions: call set_iti_directions" if name != "default" else "another name"
            raise ValueError(f"behaviour {name!r} is set beside the default directions; expected {wanted}")
        entries, others = dict(config.iti_behaviours), dict(base._iti_others)
        before = config.iti_behaviours, config.iti_directions_file
        entries.pop(name, None), others.pop(name, None)
        if directions is not None:
            entries[name] = {"file": f"iti_directions.{name}.safetensors", "alpha": alpha, "top_k": top_k}
            others[name] = directions
        try:
            config.iti_behaviours = entries
            config.iti_directions_file = config.iti_directions_file or "iti_directions.safetensors"  # when it is saved
            config.validate_iti()
            base._compute_shifts(base._iti_directions, others)
        except ValueError:
            config.iti_behaviours, config.iti_directions_file = before
            raise

    def iti_overlap(self) -> dict[tuple[str, str], dict[int, float]]:
        """How far the behaviours' shifts point the same way: {pair of names: {layer: cosine}}, of the layers that both
        steer. Where it is large, in either direction, the strength of one changes what the other does."""
        base, found = self.base_model, {}
        base._follow_config()
        for (a, first), (b, second) in combinations(zip(self.iti_strengths, base._iti_shifts, strict=True), 2):
            cosines = nn.functional.cosine_similarity(first, second, dim=-1).tolist()
            both = ((first != 0).any(-1) & (second != 0).any(-1)).tolist()
            found[a, b] = {layer: c for layer, c, here in zip(base._iti_layers, cosines, both, strict=True) if here}
        return found

    def load_iti_directions(
        self, path: str | os.PathLike, name: str | None = None, alpha: float = 1.0, top_k: int | None = None
    ) -> None:
        """Read a directions file and set what it holds: as the default directions, at the model's own strength, or as
        the behaviour `name`. Raises as `ITIDirections.load` and the two methods that set."""
        directions = ITIDirections.load(path)
        if name is None or name in (self.config.iti_name, "default"):
            self.set_iti_directions(directions)
        else:
            self.set_iti_behaviour(name, directions, alpha, top_k)

    @contextlib.contextmanager
    def disable_iti(self):
        """Inside the `with` block the model is plain Llama, bit by bit: for the context that entered it (a thread, a
        task of asyncio), in any order of ends. A thread started inside has its own: pass `iti_alpha=0` there. Compiled
        passes outside `generate` are plain while any block is open."""
        base, block = self.base_model, object()
        base._iti_blocks.add(block)
        base._iti_any_block = True
        _blocks.set((*_blocks.get(), block))
        try:
            yield
        finally:
            base._iti_blocks.discard(block)
            base._iti_any_block = bool(base._iti_blocks)
            _blocks.set(tuple(other for other in _blocks.get() if other is not block))

    def _iti_disabled(self) -> bool:
        base = self.base_model
        blind = torch.compiler.is_compiling() or getattr(base, "_is_replica", False)  # DataParallel's own threads
        return base._iti_any_block if blind else any(block in base._iti_blocks for block in _blocks.get())


class ITILlamaModel(ITILlamaPreTrainedModel, LlamaModel):
    _auto_class = "AutoModel"

    def __init__(self, config: ITILlamaConfig):
        super(LlamaModel, self).__init__(config)  # LlamaModel's own would build every layer a second time
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList([ITILlamaDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = modeling_llama.LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = modeling_llama.LlamaRotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self._iti_directions: ITIDirections | None = None
        self._iti_others: dict[str, ITIDirections] = {}  # by name, beside the default ones
        self._iti_gates: dict[int, ITIGate] = {}  # by the place of their behaviour among the strengths
        self._iti_layers: list[int] = []  # the steered ones
        self._iti_shifts: list[torch.Tensor] = []  # of each behaviour, float32 [layers, hidden_size], at alpha 1
        self._iti_written: tuple = ()  # what the layers' buffers hold
        self._iti_blocks: set[object] = set()
        self._iti_any_block = False
        self.post_init()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_iti_blocks": set(), "_iti_any_block": False}  # a copy starts without blocks

    def forward(self, *args, iti_alpha=None, iti_start=None, iti_mask=None, iti_gate=None, **kwargs):
        """As Llama's forward, with four arguments more, for this call alone.

        Args:
            iti_alpha (`float`, `torch.Tensor` or `dict`, *optional*): strength of every row, or [batch], one for each,
                of the default directions; {name: strength} for those of several behaviours, of which the others keep
                the model's own; or [batch, behaviours], all of them, in the order of `iti_strengths`.
            iti_start (`int` or `torch.Tensor`, *optional*): first position that is shifted, or [batch], one for each
                row; compared with `position_ids`. Overrides the scope.
            iti_mask (`torch.Tensor`, *optional*): [batch, seq], a weight for each position. Overrides both.
            iti_gate (`bool`, *optional*): False shifts every row, where the directions have a gate: only `generate`
                knows where a prompt ends, which the gate reads.

        Raises `ValueError` if one has a wrong shape, or is passed to a model that is not steered or disabled.
        """
        if unknown := [name for name in kwargs if name.startswith("iti_")]:
            raise TypeError(
                f"forward has no argument {unknown[0]}; it has iti_alpha, iti_start, iti_mask and iti_gate"
            )
        call = dict(zip(FORWARD_INPUTS, args, strict=False)) | kwargs
        if self._iti_directions is not None:
            call |= self._steering(call, iti_alpha, iti_start, iti_mask, iti_gate)
        elif not (iti_alpha is None and iti_start is None and iti_mask is None and iti_gate is None):
            raise ValueError("iti_alpha, iti_start, iti_mask and iti_gate steer, but this model has no directions")
        return super().forward(**call)

    forward.__wrapped__ = LlamaModel.forward  # its signature

    def _steering(self, call: dict, alpha, start, mask, gate) -> dict:
        """What the steered layers need, computed once for all of them. Tensor operations only, no device sync."""
        if not torch.compiler.is_compiling():
            self._follow_config()
        alphas = None if alpha is None else self._iti_alphas(alpha)
        zero = alphas is not None and all(isinstance(value, float) and value == 0 for value in alphas)
        disabled = self._iti_disabled()
        if disabled and alpha is not None and not zero:
            raise ValueError("iti_alpha is passed inside disable_iti(): leave the block, or leave it out")
        if disabled or zero:
            return {"iti_off": True}
        if _check_gate(gate) is not False and self._iti_gates:
            advice = "call generate, or pass iti_gate=False to shift every row"
            raise ValueError(
                f"these directions have a gate, and a forward pass does not know where prompts end: {advice}"
            )
        inputs = call["input_ids"] if call.get("inputs_embeds") is None else call["inputs_embeds"]
        (batch, length), device, dtype = inputs.shape[:2], inputs.device, self._iti_weight().dtype
        allowed = {"iti_start": ([batch], []), "iti_mask": ([batch, length],)}
        for (name, shapes), value in zip(allowed.items(), (start, mask), strict=True):
            if isinstance(value, torch.Tensor) and list(value.shape) not in shapes:
                raise ValueError(f"{name} has shape {list(value.shape)}; expected {shapes[0]}")
        if mask is None and start is not None:
            start = start.to(device).reshape(-1, 1) if isinstance(start, torch.Tensor) else start
            positions, cache = call.get("position_ids"), call.get("cache", call.get("past_key_values"))
            if positions is None:  # as LlamaModel numbers them
                seen = 0 if cache is None else cache.get_seq_length()
                positions = torch.arange(length, device=device)[None] + seen
            mask = (positions >= start).expand(batch, length)
        elif mask is None and self.config.iti_scope == "generated" and length > 1:
            mask = _from_last_token(inputs, call)
        steering = {} if mask is None else {"iti_mask": mask.to(device, dtype)[..., None]}
        if alphas is not None:
            for behaviour, value in enumerate(alphas):
                if isinstance(value, torch.Tensor):
                    if list(value.shape) not in ([batch], [1], []):
                        raise ValueError(f"iti_alpha has shape {list(value.shape)}; expected {[batch]}")
                    value = value.to(device, torch.float32 if value.dtype == torch.float64 else None)
                    alphas[behaviour] = value.reshape(-1, 1, 1)
            shifts = mixed(alphas, [held.to(device)[:, None, None] for held in self._iti_shifts]).to(dtype)
            steering["iti_shifts"] = {layer: shifts[slot] for slot, layer in enumerate(self._iti_layers)}
        return steering

    def _iti_alphas(self, alpha) -> list[float | torch.Tensor]:
        """The strength of each behaviour in one call, from what the call was given; see `forward`."""
        behaviours = 1 + len(self._iti_others)
        if isinstance(alpha, torch.Tensor) and alpha.ndim == 2 and alpha.shape[1] == behaviours > 1:
            return list(alpha.unbind(1))
        if isinstance(alpha, dict) or behaviours > 1:
            given = alpha if isinstance(alpha, dict) else {"default": alpha}
            given = {self._iti_known(name): value for name, value in given.items()}
            values = [given.get(name, own) for name, own in self.iti_strengths.items()]
        else:  # does not read the model's own strength: compiled, a change of that would compile again
            values = [alpha]
        return [value if isinstance(value, torch.Tensor) else check_alpha(value) for value in values]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _compute_shifts(self, directions: ITIDirections | None, others: dict[str, ITIDirections]) -> None:
        """Compute the shift of each steered layer, of each behaviour, from its output projection. Where that fails,
        nothing is changed."""
        held = {i: layer.self_attn for i, layer in enumerate(self.layers) if hasattr(layer, "self_attn")}
        dtype, entries = self._iti_weight().dtype, self.config.iti_others
        if entries.keys() != others.keys():
            said = f"iti_behaviours names {list(entries)}, but the model holds the directions of {list(others)}"
            raise ValueError(f"{said}: call set_iti_behaviour")
        top_ks = [self.config.iti_top_k, *(entry["top_k"] for entry in entries.values())]
        everything = [] if directions is None else [directions, *(others[name] for name in entries)]
        found = [each.shifts(self.config, held, dtype, k) for each, k in zip(everything, top_ks, strict=False)]
        layers = list(dict.fromkeys(layer for shifts in found for layer in shifts))
        device = next((shift.device for shifts in found for shift in shifts.values()), None)
        zeros = torch.zeros(self.config.hidden_size, device=device)
        rows = [torch.stack([shifts.get(layer, zeros).to(device) for layer in layers]) for shifts in found if layers]
        self._iti_directions, self._iti_others, self._iti_layers = directions, others, layers
        self._iti_gates = {i: each.gate for i, each in enumerate(everything) if each.gate is not None}
        self._iti_shifts = rows
        for index, attention in held.items():
            empty = {"dtype": dtype, "device": device_of(attention.o_proj)}
            attention.iti_shift = torch.zeros(self.config.hidden_size, **empty) if index in layers else None
        self._write_shifts()

    @torch.inference_mode(False)
    @torch.no_grad()
    def _write_shifts(self) -> None:
        for layer, shift in self._iti_total().items():
            self.layers[layer].self_attn.iti_shift.copy_(shift)
        self._iti_written = self._iti_wanted()

    def _iti_total(self) -> dict[int, torch.Tensor]:
        """What each steered layer adds at the config's strengths: {layer: float32 [hidden_size]}."""
        if not self._iti_layers:
            return {}
        return dict(zip(self._iti_layers, mixed(self.iti_strengths.values(), self._iti_shifts), strict=True))

    def _apply(self, *args, **kwargs):
        self._iti_written = ()  # dtype or device may change, even there and back
        return super()._apply(*args, **kwargs)

    def _iti_weight(self) -> torch.Tensor:
        """A weight of this pipeline stage, of the residual stream's dtype, also where projections are quantised."""
        return next(layer.input_layernorm.weight for layer in self.layers if hasattr(layer, "input_layernorm"))

    def _iti_wanted(self) -> tuple:
        config, weight = self.config, self._iti_weight()
        others = config.iti_others
        alphas = config.iti_alpha, *(entry["alpha"] for entry in others.values())
        made = config.iti_top_k, *((name, entry["top_k"]) for name, entry in others.items())
        return alphas, config.iti_scope, made, weight.dtype, weight.device

    def _follow_config(self) -> None:
        """Bring the shifts to the config's alpha and top_k, and to the model's dtype and device, however they came."""
        wanted, written = self._iti_wanted(), self._iti_written
        if self._iti_directions is not None and wanted != written:
            self.config.validate_iti()
            if wanted[2:] == written[2:]:
                self._write_shifts()
            else:
                self._compute_shifts(self._iti_directions, self._iti_others)


class ITILlamaForCausalLM(ITILlamaPreTrainedModel, LlamaForCausalLM, GenerationMixin):
    """A Llama whose chosen heads are shifted. `generate(iti_alpha=)` takes a number or [batch], a strength for each
    row, which its beams and several returns share; as a mask does, it travels in that call's own `model_kwargs`. With
    several behaviours, {name: number or [batch]}. Directions with a gate read each prompt's end in one plain pass at
    the start, and steer the rows that they are for; `generate(iti_gate=False)` steers them all."""

    _auto_class = "AutoModelForCausalLM"

    def __init__(self, config: ITILlamaConfig):
        super(LlamaForCausalLM, self).__init__(config)  # LlamaForCausalLM's own would build a plain LlamaModel first
        self.model = ITILlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        ours = ("iti_alpha", "iti_gate")
        super()._validate_model_kwargs({key: value for key, value in model_kwargs.items() if key not in ours})

    def _prepare_generation_config(self, *args, **kwargs):
        # A strength may come in a GenerationConfig: generation_config.json's, or that of a request to a server.
        config, model_kwargs = super()._prepare_generation_config(*args, **kwargs)
        for name in ("iti_alpha", "iti_gate"):
            value = config.__dict__.pop(name, None)
            if value is not None and (name in kwargs or not self._iti_disabled()):
                model_kwargs[name] = value
        return config, model_kwargs

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **model_kwargs):
        """Adds strength and start, [batch], to what is repeated for beams and several returns."""
        gate, alphas = _check_gate(model_kwargs.pop("iti_gate", None)), None
        if model_kwargs.get("iti_alpha") is not None and self.iti_directions is not None:
            alphas = self._iti_rows(model_kwargs["iti_alpha"], len(input_ids))
        if self.model._iti_gates:
            if gate is not False and not self._iti_disabled():
                alphas = self._iti_rows({}, len(input_ids)) if alphas is None else alphas
                alphas = alphas * self._iti_open(input_ids, model_kwargs) if alphas.any() else alphas
            model_kwargs["iti_gate"] = False  # what it says is in the strengths
        elif gate is not None:
            raise ValueError(f"iti_gate is {gate!r}, but the directions of this model have no gate")
        if alphas is not None:
            alphas = alphas.to(input_ids.device)
            model_kwargs["iti_alpha"] = alphas if alphas.shape[1] > 1 else alphas[:, 0]
        if self.iti_scope == "generated" and self.iti_directions is not None:
            positions, mask = model_kwargs.get("position_ids"), model_kwargs.get("attention_mask")
            last = mask.long().sum(-1) - 1 if positions is None else positions[:, -1]
            model_kwargs["iti_start"] = last.expand(len(input_ids))
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)

    def _iti_rows(self, alpha, rows: int) -> torch.Tensor:
        """Strengths of a call as float32 [rows, behaviours]. Raises `ValueError` for what is none."""
        own = self.iti_strengths
        if not isinstance(alpha, dict):
            alpha = {self.config.iti_name: alpha}
        alpha = {self._iti_known(name): check_alphas(value, rows) for name, value in alpha.items()}
        columns = [torch.tensor(alpha.get(name, [value])).expand(rows) for name, value in own.items()]
        return torch.stack(columns, 1)

    def _iti_open(self, input_ids: torch.Tensor, model_kwargs: dict) -> torch.Tensor:
        """What each gate lets through of each row's prompt, float32 [batch, behaviours]: one plain forward pass."""
        gates = self.model._iti_gates
        if getattr(self, "tp_size", None) or getattr(self, "_tp_size", None):
            raise ValueError("a gate reads whole heads, which tensor parallelism splits: pass iti_gate=False")
        call = {name: model_kwargs.get(name) for name in ("attention_mask", "position_ids", "inputs_embeds")}
        if call["inputs_embeds"] is None:
            call["input_ids"] = input_ids
        rows = len(input_ids) if call["inputs_embeds"] is None else len(call["inputs_embeds"])
        length = (input_ids if call["inputs_embeds"] is None else call["inputs_embeds"]).shape[1]
        mask, last = call["attention_mask"], torch.full((rows,), length - 1)
        if mask is not None and mask.ndim == 2:
            last = (mask.cpu().long() * torch.arange(length)).argmax(-1)
        if call["position_ids"] is None and mask is not None and mask.ndim == 2:
            call["position_ids"] = (mask.long().cumsum(-1) - 1).clamp_min(0)
        read, handles, here = {}, [], threading.get_ident()
        for layer in sorted({layer for gate in gates.values() for layer in gate.layers}):

            def keep(module, arguments, layer=layer):
                if threading.get_ident() == here:  # the model may serve other threads meanwhile
                    x = arguments[0]
                    read[layer] = x[torch.arange(rows, device=x.device), last.to(x.device)]

            handles.append(self.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(keep))
        try:
            self.model(**call, use_cache=False, iti_alpha=dict.fromkeys(self.iti_strengths, 0.0))
        finally:
            for handle in handles:
                handle.remove()
        opened = torch.ones(rows, len(self.iti_strengths))
        for behaviour, gate in gates.items():
            opened[:, behaviour] = gate.strength(read).cpu()
        return opened

    @functools.wraps(LlamaForCausalLM.prepare_inputs_for_generation)  # `generate` reads its signature
    def prepare_inputs_for_generation(self, input_ids, *args, **kwargs) -> dict:
        model_inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        if self._iti_disabled() and model_inputs.get("iti_alpha") is None:
            model_inputs["iti_alpha"] = 0.0  # said here, where contexts can be seen: the pass may be compiled
        fed = model_inputs.get("input_ids")
        if fed is not None and fed.shape[1] == 1 < input_ids.shape[1]:  # past the prompt, so no mask is needed
            model_inputs.pop("iti_start", None)
        return model_inputs

    def _get_candidate_generator(self, *args, model_kwargs: dict, **kwargs):
        """An assistant model, steered or not, keeps its own strength."""
        theirs = {key: value for key, value in model_kwargs.items() if not key.startswith("iti_")}
        return super()._get_candidate_generator(*args, model_kwargs=theirs, **kwargs)

    def _get_logits_processor(self, *args, model_kwargs: dict | None = None, **kwargs):
        """The unconditional branch of guided decoding is steered as its call, from its own prompt's last token on."""
        processors = super()._get_logits_processor(*args, model_kwargs=model_kwargs, **kwargs)
        for place, given in enumerate(processors):
            if isinstance(given, UnbatchedClassifierFreeGuidanceLogitsProcessor) and given.model is self:
                processors[place] = processor = copy.copy(given)  # it may be the caller's
                theirs = {key: (model_kwargs or {}).get(key) for key in ("iti_alpha", "iti_gate")}
                processor.model = functools.partial(self, **theirs)
                # each pass starts where the last one ended
                processor.unconditional_context = given.unconditional_context | {"use_cache": True}
        return processors

    def generate_batch(self, *args, **kwargs):
        if given := [name for name, value in kwargs.items() if name.startswith("iti_") and value is not None]:
            raise ValueError(f"{given[0]} is passed, but {ONE_STRENGTH}")
        return super().generate_batch(*args, **kwargs)

    def init_continuous_batching(self, generation_config=None, *args, **kwargs):
        if any(getattr(given, "iti_alpha", None) is not None for given in (generation_config, self.generation_config)):
            raise ValueError(f"the generation config has an iti_alpha, but {ONE_STRENGTH}")
        if self.iti_directions is not None:
            blind = self.iti_scope != "all" or self._iti_disabled()
            if blind or self.model._iti_gates:
                said = "continuous batching sees neither the ends of prompts nor disable_iti()"
                raise ValueError(f"{said}: use scope 'all', and directions without a gate")
        return super().init_continuous_batching(generation_config, *args, **kwargs)

    def merge_and_unload(self) -> LlamaForCausalLM:
        """The same model as a plain `LlamaForCausalLM`: the steering, at its present alpha, is the bias of each output
        projection (zero biases for q, k and v). Shares the other weights. Raises `ValueError` where that cannot be."""
        devices = set(getattr(self, "hf_device_map", {}).values())
        for why, found in {
            "iti_scope is 'generated', but a bias acts on every position": self.iti_scope != "all",
            "the directions have a gate, but a bias acts on every prompt": bool(self.model._iti_gates),
            "the steering is off inside disable_iti()": self._iti_disabled(),
            "the weights are quantised: load the model in full precision": hasattr(self.config, "quantization_config"),
            "a PEFT adapter is on it: merge that first": any(hasattr(part, "base_layer") for part in self.modules()),
            "the weights are spread over devices": len(devices) > 1 or any(part.is_meta for part in self.parameters()),
        }.items():
            if found:
                raise ValueError(f"the steering cannot be merged: {why}")
        self.model._follow_config()
        with torch.device("meta"):
            merged = LlamaForCausalLM(self.config.to_llama(attention_bias=True))
        state = dict(self.state_dict())
        for name, module in self.named_modules():
            if name.endswith((".q_proj", ".k_proj", ".v_proj", ".o_proj")):
                zeros = torch.zeros_like(module.weight[:, 0])
                state[f"{name}.bias"] = zeros if module.bias is None else module.bias.clone()
        for layer, shift in self.model._iti_total().items():
            bias = state[f"model.layers.{layer}.self_attn.o_proj.bias"].detach()
            bias.copy_(bias.float() + shift.to(bias.device))
        merged.load_state_dict({name: value.detach() for name, value in state.items()}, assign=True)
        merged.model.rotary_emb = copy.deepcopy(self.model.rotary_emb)
        merged.tie_weights()
        merged.generation_config = copy.deepcopy(self.generation_config)
        return merged.train(self.training)


def mixed(alphas, shifts: list[torch.Tensor]) -> torch.Tensor:
    """The sum of `alpha * shift` over behaviours. One way of multiplying and rounding for the model's own strengths
    and those of a call, so that they give the same bits."""
    total, *others = (alpha * shift for alpha, shift in zip(alphas, shifts, strict=True))
    return sum(others, start=total)


def _check_gate(gate):
    if gate is not None and not isinstance(gate, bool):
        raise ValueError(f"iti_gate is {gate!r}; expected True or False")
    return gate


def _from_last_token(inputs: torch.Tensor, call: dict) -> torch.Tensor:
    """Scope "generated" outside `generate`: [batch, seq], from the last token of each row on."""
    if call.get("cu_seq_lens_q") is not None:
        raise ValueError("scope 'generated' cannot tell prompts in a packed sequence: pass iti_mask [batch, seq]")
    if not torch.compiler.is_compiling():
        said = "iti_scope is 'generated' and forward got several tokens without iti_start: only the last is shifted"
        logger.warning_once(f"{said}, as for a prompt. To score an answer, pass iti_start, or use scope 'all'.")
    columns, mask = torch.arange(inputs.shape[1], device=inputs.device), call.get("attention_mask")
    padded = isinstance(mask, torch.Tensor) and mask.ndim == 2
    return columns >= (mask[:, -len(columns) :] * columns if padded else columns[None]).argmax(-1, keepdim=True)


__all__ = ["ITILlamaForCausalLM", "ITILlamaModel", "ITILlamaPreTrainedModel"]
