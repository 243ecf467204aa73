# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""What `generate` needs to know about the steering: each row's strength and where its prompt ends."""

import copy
import functools

import torch
from transformers import LlamaForCausalLM
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor

from .iti_directions import behaviours_of, check_alpha


STRENGTHS = ("iti_alpha", "iti_gate")
ONE_STRENGTH = "continuous batching has one strength, the model's own: set model.iti_alpha, and leave it out"


def record_heads(model, read, **inputs) -> dict[int, torch.Tensor]:
    """Run one plain pass of `model`: {layer: `read` of its o_proj's input, [batch, seq, heads * head_dim]}. Under
    tensor parallelism the heads of all ranks are gathered."""
    if not hasattr(model, "iti_strengths"):
        raise TypeError(f"{type(model).__name__} cannot record its heads: load it by ITILlamaForCausalLM.from_base")
    recorded = {}

    def record(layer: int, heads: torch.Tensor) -> None:
        kept = read(heads)
        mesh = getattr(model.base_model.layers[layer].self_attn.o_proj.weight, "device_mesh", None)
        if mesh is not None:
            parts = [torch.empty_like(kept) for _ in range(mesh.size())]
            torch.distributed.all_gather(parts, kept.contiguous(), group=mesh.get_group())
            kept = torch.cat(parts, -1)
        recorded[layer] = kept

    model(**inputs, use_cache=False, iti_record=record, **plain(model))
    return recorded


def plain(model) -> dict:
    """The arguments of a forward pass that adds nothing, whatever the model's strengths are."""
    strengths = model.iti_strengths
    return {"iti_alpha": dict.fromkeys(strengths, 0.0)} if strengths else {}


class ITILlamaGenerationMixin:
    """`generate(iti_alpha=)` takes a number or [batch], a strength for each row; the beams and returns of a row share
    it. Like a mask, it travels in the `model_kwargs` of that call. With several behaviours it takes {name: number or
    [batch]}. A gate reads each prompt's end in one plain pass at the start, and decides which rows are steered;
    `generate(iti_gate=False)` steers them all."""

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        ours = (*STRENGTHS, "iti_assistant")
        super()._validate_model_kwargs({key: value for key, value in model_kwargs.items() if key not in ours})

    def _prepare_generation_config(self, *args, **kwargs):
        """A request's generation config may hold a strength; the model's may not, since its config holds it."""
        self._iti_refuse_strength(self.generation_config, "model.generation_config")
        config, model_kwargs = super()._prepare_generation_config(*args, **kwargs)
        if config.cache_implementation == "paged":  # continuous batching gets the config alone, and refuses a strength
            return config, model_kwargs
        for name in STRENGTHS:
            if (value := config.__dict__.pop(name, None)) is not None:
                model_kwargs[name] = value
        if isinstance(alpha := model_kwargs.get("iti_alpha"), torch.Tensor):
            model_kwargs["iti_alpha"] = alpha.tolist()  # transformers counts rows by the first tensor that it meets
        if config.is_assistant:  # its guesses are checked, so it may go on from its own cache after a longer prompt
            model_kwargs["iti_assistant"] = True
        return config, model_kwargs

    def _iti_refuse_strength(self, config, where: str) -> None:
        for name in STRENGTHS:
            if (value := getattr(config, name, None)) is not None:
                home = f"a model's strength is iti_alpha of its config.json, here {self.iti_alpha:g}"
                raise ValueError(f"{where}: {name} is {value!r}; expected no such field: {home}")

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **model_kwargs):
        """Add strength and start, [batch], to the inputs that are repeated for beams and several returns."""
        gate, assistant = model_kwargs.pop("iti_gate", None), model_kwargs.pop("iti_assistant", False)
        if not isinstance(gate, bool | None):
            raise ValueError(f"iti_gate is {gate!r}; expected True or False")
        behaviours, held = self.model._iti_behaviours()
        gates, alpha = held.gates(behaviours), model_kwargs.get("iti_alpha")
        if gate is not None and not gates:
            raise ValueError(f"iti_gate is {gate!r}, but the directions of this model have no gate")
        early = self.config.num_hidden_layers < len(self.model.layers)  # a draft of assistant_early_exit
        read = gates and gate is not False and not early and not self._iti_disabled()
        if behaviours and (alpha is not None or read):
            alphas = self._iti_rows({} if alpha is None else alpha, len(input_ids))
            if read and alphas.any():
                for name, opened in self._iti_open(gates, input_ids, model_kwargs).items():
                    alphas[:, list(behaviours).index(name)] *= opened
            model_kwargs["iti_alpha"] = alphas.to(input_ids.device)
        if gates:
            model_kwargs["iti_gate"] = False  # the strengths hold its decision
        if self.iti_scope == "generated" and behaviours:
            cache = model_kwargs.get("cache", model_kwargs.get("past_key_values"))
            if getattr(cache, "iti_shifted", False) and cache.get_seq_length() and not assistant:
                advice = "pass the whole text without it, or use scope 'all', not 'generated'"
                raise ValueError(f"the cache was shifted where another prompt ended: {advice}")
            positions, mask = model_kwargs.get("position_ids"), model_kwargs.get("attention_mask")
            last = mask.long().sum(-1) - 1 if positions is None else positions[:, -1]
            model_kwargs["iti_start"] = last.expand(len(input_ids))
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)

    def _iti_rows(self, alpha, rows: int) -> torch.Tensor:
        """A call's strengths, float32 [rows, behaviours]. Raises `ValueError` unless each is a finite number, or one
        for each of the rows."""
        columns = {key: [behaviour.alpha] for key, behaviour in behaviours_of(vars(self.config)).items()}
        for name, value in alpha.items() if isinstance(alpha, dict) else [("default", alpha)]:
            numbers = value.tolist() if hasattr(value, "tolist") else value
            numbers = list(map(check_alpha, numbers if isinstance(numbers, list | tuple) else [numbers]))
            if len(numbers) not in (1, rows):
                raise ValueError(f"iti_alpha is {numbers}; expected a finite number, or one for each of {rows} rows")
            columns[self._iti_key(name)] = numbers
        return torch.stack([torch.tensor(numbers, device="cpu").expand(rows) for numbers in columns.values()], 1)

    def _iti_open(self, gates: dict, input_ids: torch.Tensor, model_kwargs: dict) -> dict[str, torch.Tensor]:
        """What each gate says about the rows, float32 [batch]: 1 lets a row through, 0 leaves it plain."""
        embeds, mask = model_kwargs.get("inputs_embeds"), model_kwargs.get("attention_mask")
        inputs = {"input_ids": input_ids} if embeds is None else {"inputs_embeds": embeds}
        (rows, length), device = (input_ids if embeds is None else embeds).shape[:2], input_ids.device
        last, positions = torch.full((rows,), length - 1, device=device), model_kwargs.get("position_ids")
        if any(given is not None and given.shape[-1] != length for given in (mask, positions)):
            raise ValueError("the gate reads the whole prompt: pass all its tokens, also those in the cache")
        if mask is not None and mask.ndim == 2:
            last = (mask.long() * torch.arange(length, device=mask.device)).argmax(-1)
            positions = (mask.long().cumsum(-1) - 1).clamp_min(0) if positions is None else positions

        def at_last(heads: torch.Tensor) -> torch.Tensor:
            return heads[torch.arange(rows, device=heads.device), last.to(heads.device)]

        heads = record_heads(self.model, at_last, attention_mask=mask, position_ids=positions, **inputs)
        return {name: gate.opens(heads).float().cpu() for name, gate in gates.items()}

    @functools.wraps(LlamaForCausalLM.prepare_inputs_for_generation)  # `generate` reads its signature
    def prepare_inputs_for_generation(self, input_ids, *args, **kwargs) -> dict:
        model_inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        model_inputs["iti_disabled"] = self._iti_disabled()  # the pass may be compiled, and then sees no context
        fed = model_inputs.get("input_ids")
        if fed is not None and fed.shape[1] == 1 < input_ids.shape[1]:  # past the prompt, so no mask is needed
            model_inputs.pop("iti_start", None)
        elif model_inputs.get("iti_start") is not None:
            # Set here too: with virtual tokens PEFT drops the positions, and numbers the others anew.
            model_inputs["iti_positions"] = model_inputs.get("position_ids")
        return model_inputs

    def _get_candidate_generator(self, *args, model_kwargs: dict, **kwargs):
        """An assistant model, steered or not, keeps its own strength."""
        theirs = {key: value for key, value in model_kwargs.items() if not key.startswith("iti_")}
        return super()._get_candidate_generator(*args, model_kwargs=theirs, **kwargs)

    def _get_logits_processor(self, *args, model_kwargs: dict | None = None, **kwargs):
        """Steers the unconditional branch of guided decoding like its call, from its own prompt's last token on."""
        processors = super()._get_logits_processor(*args, model_kwargs=model_kwargs, **kwargs)
        for place, given in enumerate(processors):
            if isinstance(given, UnbatchedClassifierFreeGuidanceLogitsProcessor) and given.model is self:
                processors[place] = processor = copy.copy(given)  # it may be the caller's
                theirs = {key: (model_kwargs or {}).get(key) for key in STRENGTHS}
                processor.model = functools.partial(self, **theirs)
                # each pass starts where the last one ended
                processor.unconditional_context = given.unconditional_context | {"use_cache": True}
        return processors

    def generate_batch(self, *args, **kwargs):
        if given := [name for name, value in kwargs.items() if name.startswith("iti_") and value is not None]:
            raise ValueError(f"{given[0]} is passed, but {ONE_STRENGTH}")
        return super().generate_batch(*args, **kwargs)

    def init_continuous_batching(self, generation_config=None, *args, **kwargs):
        self._iti_refuse_strength(self.generation_config, "model.generation_config")
        for name in STRENGTHS:
            if getattr(generation_config, name, None) is not None:
                raise ValueError(f"the generation config has an {name}, but {ONE_STRENGTH}")
        behaviours, held = self.model._iti_behaviours()
        if behaviours and (self.iti_scope != "all" or self._iti_disabled() or held.gates(behaviours)):
            blind = "continuous batching sees neither the ends of prompts nor disable_iti()"
            raise ValueError(f"{blind}: use scope 'all', and directions without a gate")
        return super().init_continuous_batching(generation_config, *args, **kwargs)
