# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""Llama with Inference-Time Intervention (Li et al., NeurIPS 2023): only what differs from Llama.

The paper adds `alpha * sigma * theta` to the output of chosen heads, before the output projection W_O (equation 2).
Here `LlamaAttention.forward` runs with a view of the attention whose `o_proj` gets the shifted heads.
"""

import copy
from inspect import signature

import torch
from torch import nn
from transformers import GenerationMixin, LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel
from transformers.models.llama import modeling_llama
from transformers.utils import logging

from .configuration_iti_llama import ITILlamaConfig
from .generation_iti_llama import ITILlamaGenerationMixin
from .iti_directions import Behaviour, behaviours_of, check_alpha, check_fields
from .loading_iti_llama import ITILlamaLoadingMixin
from .steering_iti_llama import HeldDirections, ITILlamaSteeringMixin, Steering


logger = logging.get_logger(__name__)
FORWARD_INPUTS = tuple(signature(LlamaModel.forward).parameters)[1:]
CACHE = "cache" if "cache" in FORWARD_INPUTS else "past_key_values"  # the latter up to transformers 5.23


class SteeredView:
    """An attention with one difference: its `o_proj` gets the shifted heads."""

    def __init__(self, attention: nn.Module, steering: Steering):
        self.attention, self.steering = attention, steering

    def __getattr__(self, name: str):
        return getattr(self.attention, name)

    def o_proj(self, heads: torch.Tensor) -> torch.Tensor:
        if self.steering.record is not None:
            self.steering.record(self.attention.layer_idx, heads)
        output = self.attention.o_proj(self.steering.add("head", self.attention, heads))
        return self.steering.add("residual", self.attention, output)


class ITILlamaAttention(modeling_llama.LlamaAttention):
    def forward(self, hidden_states: torch.Tensor, *args, iti_steering: Steering | None = None, **kwargs):
        attention = self if iti_steering is None else SteeredView(self, iti_steering)
        return modeling_llama.LlamaAttention.forward(attention, hidden_states, *args, **kwargs)


class ITILlamaPreTrainedModel(ITILlamaLoadingMixin, ITILlamaSteeringMixin, LlamaPreTrainedModel):
    config: ITILlamaConfig
    config_class = ITILlamaConfig


class ITILlamaModel(ITILlamaPreTrainedModel, LlamaModel):
    _auto_class = "AutoModel"

    def __init__(self, config: ITILlamaConfig):
        super().__init__(config)
        for layer in self.layers:
            layer.self_attn.__class__ = ITILlamaAttention  # keeps its parts, which are not built a second time
        self._iti_held = HeldDirections({})
        self._iti_blocks = []

    def forward(self, *args, iti_alpha=None, iti_start=None, iti_mask=None, iti_gate=None, iti_record=None, **kwargs):
        """Llama's forward, with five more arguments for this call alone. Raises `ValueError` if one has a wrong shape,
        or is passed to a model that is not steered, or is disabled.

        Args:
            iti_alpha (`float`, `torch.Tensor` or `dict`, *optional*): strength of the default directions, for all
                rows or [batch], one for each; or {name: strength} of several behaviours, while the others keep the
                model's own; or [batch, behaviours], all strengths, in the order of `iti_strengths`.
            iti_start (`int` or `torch.Tensor`, *optional*): first position that is shifted, or [batch], one for each
                row; compared with `position_ids`. Overrides the scope.
            iti_mask (`torch.Tensor`, *optional*): [batch, seq], a weight for each position. Overrides both.
            iti_gate (`bool`, *optional*): False shifts every row. Directions with a gate need it here: the gate reads
                the end of a prompt, and only `generate` knows where that is.
            iti_record (`Callable`, *optional*): called in each layer with its number and the input of its o_proj,
                [batch, seq, heads * head_dim], before the shift of that layer.
        """
        positions, disabled = kwargs.pop("iti_positions", None), kwargs.pop("iti_disabled", None)
        disabled = self._iti_disabled() if disabled is None else disabled
        if unknown := [name for name in kwargs if name.startswith("iti_")]:
            wanted = "iti_alpha, iti_start, iti_mask, iti_gate and iti_record"
            raise TypeError(f"forward has no argument {unknown[0]}; it has {wanted}")
        call = dict(zip(FORWARD_INPUTS, args, strict=False)) | kwargs
        behaviours, held = self._iti_behaviours()
        if not behaviours and any(given is not None for given in (iti_alpha, iti_start, iti_mask, iti_gate)):
            raise ValueError("iti_alpha, iti_start, iti_mask and iti_gate steer, but this model has no directions")
        inputs = call["input_ids"] if call.get("inputs_embeds") is None else call["inputs_embeds"]
        if not isinstance(iti_gate, bool | None):
            raise ValueError(f"iti_gate is {iti_gate!r}; expected True or False")
        shifts, mask, alphas = {}, None, self._iti_alphas(behaviours, inputs, iti_alpha, disabled)
        if behaviours and alphas is not None:
            if iti_gate is not False and held.gates(behaviours):
                advice = "call generate, or pass iti_gate=False to shift every row"
                raise ValueError(f"a forward pass does not know where prompts end, which the gate reads: {advice}")
            # The dtype of the residual stream, also if projections are quantised, and in a stage of a pipeline.
            dtype = next(layer.input_layernorm.weight.dtype for layer in self.layers if hasattr(layer, "self_attn"))
            mask = self._iti_mask(call, inputs, iti_start, iti_mask, positions)
            mask = None if mask is None else mask.to(inputs.device, dtype)[..., None]
            totals = held.totals(behaviours, alphas, inputs.device)
            shifts = {site: (rows, total.to(dtype)) for site, (rows, total) in totals.items()}
        if shifts or iti_record is not None:
            call["iti_steering"] = Steering(shifts, mask, iti_record)
        output = super().forward(**call)
        cache = getattr(output, CACHE, None)
        if shifts and cache is not None and not torch.compiler.is_compiling():
            cache.iti_shifted = True  # so that `generate` does not go on from it after another prompt
        return output

    forward.__wrapped__ = LlamaModel.forward  # its signature

    def _iti_behaviours(self) -> tuple[dict[str, Behaviour], HeldDirections]:
        """The behaviours in the config at this moment, and the directions of the model. Raises `ValueError` if the
        config is wrong, or names directions that the model does not hold: that is never taken for a steered model."""
        fields = vars(self.config) if torch.compiler.is_compiling() else check_fields(vars(self.config))
        behaviours, held = behaviours_of(fields), self._iti_held
        for name, behaviour in behaviours.items():
            if name not in held.directions:
                call = "PATH" if name == "default" else f"PATH, {name!r}"
                advice = f"call model.load_iti_directions({call}), or set iti_directions_file to None for a Llama"
                raise ValueError(f"the config names {behaviour.file}, which the model does not hold: {advice}")
        return behaviours, held

    def _iti_alphas(self, behaviours: dict[str, Behaviour], inputs: torch.Tensor, alpha, disabled) -> dict | None:
        """The strength of each behaviour in one call, a number or [rows, 1, 1]; None if nothing is added."""
        alphas = {name: behaviour.alpha for name, behaviour in behaviours.items()}
        if isinstance(alpha, torch.Tensor) and alpha.ndim == 2 and alpha.shape[1] == len(alphas):
            alphas = dict(zip(alphas, alpha.unbind(1), strict=True))
        elif alpha is not None:
            given = alpha if isinstance(alpha, dict) else {"default": alpha}
            alphas |= {self._iti_key(name): value for name, value in given.items()}
        for name, value in alphas.items() if alpha is not None else ():
            if isinstance(value, torch.Tensor):
                if list(value.shape) not in ([len(inputs)], [1], []):
                    raise ValueError(f"iti_alpha has shape {list(value.shape)}; expected {[len(inputs)]}")
                value = value.to(inputs.device, torch.float32 if value.dtype == torch.float64 else None)
                alphas[name] = value.reshape(-1, 1, 1)
            else:
                alphas[name] = check_alpha(value)
        # The model's own strength is not compared with 0 in a compiled pass: each comparison would compile again.
        numbers = alpha is not None or not torch.compiler.is_compiling()
        zero = numbers and all(isinstance(value, float) and value == 0 for value in alphas.values())
        if disabled and alpha is not None and not zero:
            raise ValueError("iti_alpha is passed inside disable_iti(): leave the block, or leave it out")
        return None if zero or disabled else alphas

    def _iti_mask(self, call: dict, inputs: torch.Tensor, start, mask, positions) -> torch.Tensor | None:
        """Weights of the positions of one call, [batch, seq]; None if all are shifted."""
        batch, length = inputs.shape[:2]
        start = torch.as_tensor(start) if hasattr(start, "__len__") else start
        mask = None if mask is None else torch.as_tensor(mask)
        for name, value, shapes in (("iti_start", start, ([batch], [])), ("iti_mask", mask, ([batch, length],))):
            if isinstance(value, torch.Tensor) and list(value.shape) not in shapes:
                raise ValueError(f"{name} has shape {list(value.shape)}; expected {shapes[0]}")
        if mask is not None:
            return mask
        if start is not None:
            positions = call.get("position_ids") if positions is None else positions
            if positions is None:  # as LlamaModel numbers them
                cache = call.get("cache", call.get("past_key_values"))
                seen = 0 if cache is None else cache.get_seq_length()
                positions = torch.arange(length, device=inputs.device)[None] + seen
            start = start.to(inputs.device).reshape(-1, 1) if isinstance(start, torch.Tensor) else start
            mask = (positions >= start).expand(batch, -1)
            return nn.functional.pad(mask, (length - mask.shape[1], 0))  # virtual tokens before the prompt stay plain
        if self.config.iti_scope == "all" or length == 1:
            return None
        if call.get("cu_seq_lens_q") is not None:
            raise ValueError("scope 'generated' cannot tell prompts in a packed sequence: pass iti_mask [batch, seq]")
        if not torch.compiler.is_compiling():
            advice = "only the last is shifted, as in a prompt. Pass iti_start to score an answer, or use scope 'all'."
            logger.warning_once(f"iti_scope is 'generated' and forward got several tokens without iti_start: {advice}")
        columns, attended = torch.arange(length, device=inputs.device), call.get("attention_mask")
        padded = isinstance(attended, torch.Tensor) and attended.ndim == 2
        return columns >= (attended[:, -length:] * columns if padded else columns[None]).argmax(-1, keepdim=True)


class ITILlamaForCausalLM(ITILlamaGenerationMixin, ITILlamaPreTrainedModel, LlamaForCausalLM, GenerationMixin):
    """A Llama whose chosen heads are shifted; see `generation_iti_llama` for what `generate` takes.

    >>> from iti_llama import ITIDirections, ITILlamaForCausalLM
    >>> model = ITILlamaForCausalLM.from_pretrained("steered-llama")
    >>> model.set_iti_alpha(0.8)  # or model.iti_alpha = 0.8
    >>> with model.disable_iti():  # the plain Llama, bit for bit
    ...     plain = model.generate(max_new_tokens=20)
    >>> model.load_iti_directions("other.safetensors", "other", alpha=0.2)
    >>> model.set_iti({"other": 0.4})
    >>> model.iti_strengths
    {'default': 0.8, 'other': 0.4}
    >>> model.set_iti_directions(ITIDirections.load("other.safetensors"))  # in place of the default ones
    >>> type(model.merge_and_unload()).__name__  # the steering is in its biases
    'LlamaForCausalLM'
    """

    _auto_class = "AutoModelForCausalLM"

    def __init__(self, config: ITILlamaConfig):
        super(LlamaForCausalLM, self).__init__(config)  # LlamaForCausalLM's own would build a plain LlamaModel first
        self.model = ITILlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def merge_and_unload(self) -> LlamaForCausalLM:
        """The same model as a plain `LlamaForCausalLM`: the steering, at its present alpha, is the bias of each output
        projection (zero biases for q, k and v). Shares the other weights. Raises `ValueError` if that cannot be."""
        devices, quantised = (
            set(getattr(self, "hf_device_map", {}).values()),
            vars(self.config).get("quantization_config"),
        )
        behaviours, held = self.model._iti_behaviours()
        for why, applies in {
            "iti_scope is 'generated', but a bias acts on every position": self.iti_scope != "all",
            "the directions have a gate, but a bias acts on every prompt": bool(held.gates(behaviours)),
            "the steering is off inside disable_iti()": self._iti_disabled(),
            "the weights are quantised: load the model in full precision": quantised is not None,
            "a PEFT adapter is on it: merge that first": any(hasattr(part, "base_layer") for part in self.modules()),
            "the weights are spread over devices": len(devices) > 1 or any(part.is_meta for part in self.parameters()),
        }.items():
            if applies:
                raise ValueError(f"the steering cannot be merged: {why}")
        with torch.device("meta"):
            merged = LlamaForCausalLM(self.config.to_llama(attention_bias=True))
        state = {name: value.detach() for name, value in self.state_dict().items()}
        for name in merged.state_dict().keys() - state.keys():  # biases
            state[name] = torch.zeros_like(state[name.replace(".bias", ".weight")][:, 0])
        alphas = {name: behaviour.alpha for name, behaviour in behaviours.items()}
        for site, (rows, total) in held.totals(behaviours, alphas, self.device).items():
            for layer, row in rows.items():
                o_proj, offset = f"model.layers.{layer}.self_attn.o_proj", total[row].flatten()
                shift = offset if site == "residual" else state[f"{o_proj}.weight"].float() @ offset
                bias = state[f"{o_proj}.bias"]
                state[f"{o_proj}.bias"] = (bias.float() + shift).to(bias.dtype)
        merged.load_state_dict(state, assign=True)
        merged.model.rotary_emb = copy.deepcopy(self.model.rotary_emb)
        merged.tie_weights()
        merged.generation_config = copy.deepcopy(self.generation_config)
        return merged.train(self.training)


__all__ = ["ITILlamaForCausalLM", "ITILlamaModel", "ITILlamaPreTrainedModel"]
