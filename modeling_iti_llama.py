# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""Llama with Inference-Time Intervention (Li et al., NeurIPS 2023): only what differs from Llama.

The paper adds `alpha * sigma * theta` to the output of chosen heads, before the output projection W_O (equation 2). W_O is
linear, so this equals adding `alpha * shift` to the attention output, with `shift = W_O @ concat_h(sigma * theta)`: one
vector a layer, computed once when directions or alpha change. Layers without a chosen head are plain Llama.
"""

import contextlib
import copy
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PretrainedConfig
from transformers.dynamic_module_utils import custom_object_save
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaModel,
    LlamaPreTrainedModel,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)
from transformers.utils import cached_file, logging

from .configuration_iti_llama import ITILlamaConfig, check_alpha, check_scope, check_top_k
from .iti_directions import ITIDirections


logger = logging.get_logger(__name__)

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "token", "revision", "subfolder")
BASE_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "rope_parameters",
    "rope_theta",
    "rope_scaling",
)
"""What the config of an adapter form and its base must agree on (the rope names are those of transformers 5 and 4)."""


@dataclass(frozen=True)
class _Generation:
    """What one call of `generate` asks of every forward pass in it."""

    prompt_length: int
    start: torch.Tensor | None
    alpha: torch.Tensor | None


_generation: ContextVar[_Generation | None] = ContextVar("iti_generation", default=None)


class ITILlamaAttention(LlamaAttention):
    def __init__(self, config: ITILlamaConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        # Both [hidden_size], set once the weights are in place; None in a layer without a chosen head.
        self.register_buffer("iti_shift", None, persistent=False)
        self.register_buffer("iti_scaled_shift", None, persistent=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        *args,
        iti_alpha: torch.Tensor | None = None,
        iti_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`iti_alpha` [batch, 1 or seq, 1] replaces the model's strength, `iti_mask` [batch, seq, 1] weighs positions."""
        attn_output, attn_weights = super().forward(hidden_states, *args, **kwargs)
        if self.iti_shift is None:
            return attn_output, attn_weights
        if iti_alpha is not None:
            attn_output = torch.addcmul(attn_output, iti_alpha, self.iti_shift)
        elif iti_mask is not None:
            attn_output = torch.addcmul(attn_output, iti_mask, self.iti_scaled_shift)
        else:
            attn_output = attn_output + self.iti_scaled_shift
        return attn_output, attn_weights


class ITILlamaDecoderLayer(LlamaDecoderLayer):
    def __init__(self, config: ITILlamaConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.self_attn = ITILlamaAttention(config, layer_idx)


class ITILlamaPreTrainedModel(LlamaPreTrainedModel):
    """Loading, saving and changing the steering, for the model with and without a language-modelling head."""

    config: ITILlamaConfig
    config_class = ITILlamaConfig
    _no_split_modules = ["ITILlamaDecoderLayer"]
    _can_record_outputs = {"hidden_states": ITILlamaDecoderLayer, "attentions": ITILlamaAttention}

    # The steering, live ------------------------------------------------------------------------------------------

    @property
    def iti_directions(self) -> ITIDirections | None:
        """Every direction of the model, also those that `iti_top_k` leaves out; None for a model that is not steered."""
        return self.base_model._iti_directions

    @property
    def iti_alpha(self) -> float:
        """Strength in units of sigma. Setting it takes effect at the next forward pass, without reload or recompile."""
        return self.base_model._iti_alpha

    @iti_alpha.setter
    def iti_alpha(self, alpha: float) -> None:
        base = self.base_model
        base._iti_alpha = self.config.iti_alpha = check_alpha(alpha)
        base._write_scaled_shifts()

    @property
    def iti_top_k(self) -> int | None:
        """How many of the best-ranked heads are steered; None for all in the file."""
        return self.base_model._iti_top_k

    @iti_top_k.setter
    def iti_top_k(self, top_k: int | None) -> None:
        base = self.base_model
        check_top_k(top_k)
        if base._iti_directions is not None:
            base._iti_directions.top(top_k)
        base._iti_top_k = self.config.iti_top_k = top_k
        base._write_shifts()

    @property
    def iti_scope(self) -> str:
        """Which positions are shifted: "all", or "generated" (the last prompt token and every generated token)."""
        return self.base_model._iti_scope

    @iti_scope.setter
    def iti_scope(self, scope: str) -> None:
        self.base_model._iti_scope = self.config.iti_scope = check_scope(scope)

    def set_iti_directions(self, directions: ITIDirections | None) -> None:
        """Replace the directions; None takes them away. Also to be called after a change of the o_proj weights.

        Raises:
            ITIDirectionsError: if they do not fit the model, or hold fewer heads than `iti_top_k`. Nothing changes then.
        """
        if directions is not None:
            directions.check_geometry(self.config)
            directions.top(self.iti_top_k)
        base = self.base_model
        base._iti_directions = directions
        base._write_shifts()

    def load_iti_directions(self, path_or_repo: str | os.PathLike, filename: str | None = None, **hub_kwargs) -> None:
        """Replace the directions by those of a file, or of a folder or Hub repo that holds `filename`.

        `hub_kwargs` are those of `from_pretrained`: revision, token, cache_dir, local_files_only, subfolder and so on.
        """
        if os.path.isfile(path_or_repo):
            self.set_iti_directions(ITIDirections.load(path_or_repo))
        else:
            name = filename or self.config.iti_directions_file or "iti_directions.safetensors"
            self.set_iti_directions(_fetch_directions(path_or_repo, name, **hub_kwargs))

    @contextlib.contextmanager
    def disable_iti(self) -> Iterator[None]:
        """Inside the `with` block the model is plain Llama, bit by bit."""
        base = self.base_model
        before, base._iti_disabled = base._iti_disabled, True
        base._write_scaled_shifts()
        try:
            yield
        finally:
            base._iti_disabled = before
            base._write_scaled_shifts()

    # Loading and saving ------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Load a steered model: code, config and directions from this repo or folder; weights from there too
        (self-contained form) or from the base model that its config names (adapter form).

        Takes the arguments of [`~transformers.PreTrainedModel.from_pretrained`] and every field of the config.
        `revision` and `subfolder` belong to this repo, `base_model_revision` to the base; `token`, `cache_dir` and
        `local_files_only` hold for both. No code is ever run from the base repo.

        Raises:
            FileNotFoundError: if the config asks for directions that are not there.
            ITIDirectionsError: if the directions cannot be used with this model.
            OSError: if the repo or its base cannot be found or read.
            ValueError: if a field of the config is wrong, or the base is not the model that the config describes.
        """
        repo = pretrained_model_name_or_path
        hub = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        if repo is None:  # weights as `state_dict=`: there is no repo to read directions from
            return super().from_pretrained(None, *model_args, config=config, **kwargs)
        if not isinstance(config, PretrainedConfig):
            config, kwargs = cls._read_config(repo if config is None else config, hub, kwargs)
        config.validate_iti()
        directions = None
        if config.iti_directions_file is not None:
            directions = _fetch_directions(repo, config.iti_directions_file, **hub)
            directions.check_geometry(config, f"{repo}/{config.iti_directions_file}")
            directions.top(config.iti_top_k)
        if config.base_model_name_or_path is None:
            loaded = super().from_pretrained(repo, *model_args, config=config, **hub, **kwargs)
        else:
            loaded = cls._load_from_base(config, hub, *model_args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if config.base_model_name_or_path is not None:
            model.name_or_path = model.config.name_or_path = str(repo)
            if model.can_generate() and _fetch(repo, "generation_config.json", **hub) is not None:
                model.generation_config = GenerationConfig.from_pretrained(repo, **hub)
        model.set_iti_directions(directions)
        return loaded

    @classmethod
    def from_base(
        cls,
        base_model_name_or_path: str | os.PathLike,
        directions: ITIDirections | str | os.PathLike | None,
        alpha: float = 1.0,
        top_k: int | None = None,
        scope: str = "all",
        **kwargs,
    ):
        """Steer a plain Llama checkpoint, on the Hub or on disk. The model saves in adapter form, without its weights;
        set `model.config.base_model_name_or_path = None` before saving to write them as well.

        `directions` are an `ITIDirections` or the path of a file; None leaves the model plain, for `set_iti_directions` to
        steer. `kwargs` are those of `from_pretrained`, for the base.

        Raises: as `from_pretrained`.
        """
        base = os.fspath(base_model_name_or_path)
        if os.path.isdir(base):
            base = os.path.abspath(base)
        if directions is not None and not isinstance(directions, ITIDirections):
            directions = ITIDirections.load(directions)
        hub = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        revision = hub.pop("revision", None)
        fields = _read_base_config(base, revision, hub)
        config = ITILlamaConfig(
            **{key: value for key, value in fields.items() if key not in ("model_type", "architectures", "auto_map")},
            iti_alpha=alpha,
            iti_top_k=top_k,
            iti_scope=scope,
            base_model_name_or_path=base,
            base_model_revision=revision,
        )
        if directions is None:
            config.iti_directions_file = None
        else:
            directions.check_geometry(config)
            directions.top(top_k)
        loaded = cls._load_from_base(config, hub, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.set_iti_directions(directions)
        return loaded

    @classmethod
    def _read_config(cls, repo, hub: dict, kwargs: dict) -> tuple[PretrainedConfig, dict]:
        """The config with the fields that `kwargs` override, and the `kwargs` that are left for the weights."""
        fields, _ = cls.config_class.get_config_dict(repo, **hub)
        if fields.get("model_type") != cls.config_class.model_type:
            raise ValueError(
                f"{repo}: config.json has model_type {fields.get('model_type')!r}; expected "
                f"{cls.config_class.model_type!r}. To steer a plain Llama, use {cls.__name__}.from_base(...)."
            )
        kept = {key: kwargs.pop(key) for key in ("dtype", "torch_dtype", "quantization_config") if key in kwargs}
        config, kwargs = cls.config_class.from_dict(fields, return_unused_kwargs=True, **kwargs)
        return config, kwargs | kept

    @classmethod
    def _load_from_base(cls, config: PretrainedConfig, hub: dict, *model_args, **kwargs):
        """Weights from the base model into this class. Nothing that belongs to the steered repo reaches the base."""
        base, revision = config.base_model_name_or_path, config.base_model_revision
        hub = {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}
        fields = _read_base_config(base, revision, hub)
        _check_base(config, fields)
        config._commit_hash = None
        kwargs.pop("_commit_hash", None)
        kwargs |= {"trust_remote_code": False, "adapter_kwargs": {}, "revision": revision or "main"}
        loaded = super().from_pretrained(base, *model_args, config=config, **hub, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.base_model._iti_base_quantization = fields.get("quantization_config")
        return loaded

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs) -> None:
        """Write code, config (with the live alpha, top_k and scope), generation config and directions; and the weights,
        unless the config names a base model (adapter form): then some tens of kilobytes. Set
        `model.config.base_model_name_or_path = None` first to save weights that were changed."""
        if getattr(self, "_hf_peft_config_loaded", False):  # saves the PEFT adapter alone
            return super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        push_to_hub = kwargs.pop("push_to_hub", False)
        names = (
            "repo_id",
            "commit_message",
            "commit_description",
            "private",
            "token",
            "revision",
            "create_pr",
            "tags",
        )
        push_kwargs = {name: kwargs.pop(name) for name in names if name in kwargs}
        base, directions = self.base_model, self.iti_directions
        self.config.iti_alpha, self.config.iti_top_k, self.config.iti_scope = (
            base._iti_alpha,
            base._iti_top_k,
            base._iti_scope,
        )
        if directions is None:
            self.config.iti_directions_file = None
        elif self.config.iti_directions_file is None:
            self.config.iti_directions_file = "iti_directions.safetensors"

        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if directions is not None and is_main_process:
            directions.save(folder / self.config.iti_directions_file)
        if self.config.base_model_name_or_path is None:
            super().save_pretrained(folder, is_main_process=is_main_process, **kwargs)
        elif is_main_process:
            config = copy.deepcopy(self.config)
            config.architectures = [type(self).__name__]
            config.dtype = str(self.dtype).removeprefix("torch.")
            if hasattr(config, "quantization_config"):  # how the base is stored, not how it was loaded here
                del config.quantization_config
            if base._iti_base_quantization is not None:
                config.quantization_config = base._iti_base_quantization
            custom_object_save(self, folder, config=config)
            config.save_pretrained(folder)
            if self.can_generate():
                self.generation_config.save_pretrained(folder)
        if push_to_hub and is_main_process:
            self.push_to_hub(push_kwargs.pop("repo_id", folder.name), **push_kwargs)

    def push_to_hub(self, repo_id: str, *args, **kwargs) -> str:
        """As [`~transformers.PreTrainedModel.push_to_hub`]. Refuses an adapter form whose base is a folder of this machine."""
        base = self.config.base_model_name_or_path
        if base is not None and os.path.isdir(base):
            raise ValueError(
                f"base_model_name_or_path is the folder {base}, which nobody else can load. Set it to the base's Hub "
                "repo, or to None to push the weights as well."
            )
        return super().push_to_hub(repo_id, *args, **kwargs)


class ITILlamaModel(ITILlamaPreTrainedModel, LlamaModel):
    _auto_class = "AutoModel"

    def __init__(self, config: ITILlamaConfig):
        super(LlamaModel, self).__init__(config)  # LlamaModel's own would build every layer a second time
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList([ITILlamaDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.gradient_checkpointing = False

        self._iti_alpha, self._iti_top_k, self._iti_scope = config.iti_alpha, config.iti_top_k, config.iti_scope
        self._iti_directions: ITIDirections | None = None
        self._iti_shifts: dict[int, torch.Tensor] = {}  # layer -> float32 [hidden_size] on CPU, at alpha 1
        self._iti_disabled = False
        self._iti_base_quantization: dict | None = None
        self.post_init()

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.FloatTensor | None = None,
        *,
        iti_alpha: float | torch.Tensor | None = None,
        iti_start: int | torch.Tensor | None = None,
        iti_mask: torch.Tensor | None = None,
        **kwargs,
    ):
        """As Llama's forward, with three arguments more, for this call alone.

        Args:
            iti_alpha (`float` or `torch.Tensor`, *optional*): strength of every row, or [batch], one for each.
            iti_start (`int` or `torch.Tensor`, *optional*): first position that is shifted, or [batch], one for each row;
                compared with `position_ids`. Overrides the scope.
            iti_mask (`torch.Tensor`, *optional*): [batch, seq], a weight for each position of this call. Overrides both.

        Raises:
            ValueError: if one of them has a wrong shape, or is passed to a model that is not steered or disabled.
        """
        if self._iti_directions is not None:
            inputs = input_ids if inputs_embeds is None else inputs_embeds
            if position_ids is None and isinstance(iti_start, torch.Tensor):
                position_ids = _default_position_ids(inputs, past_key_values, kwargs.get("cache_position"))
            kwargs |= self._weights(inputs, attention_mask, position_ids, iti_alpha, iti_start, iti_mask, kwargs)
        elif iti_alpha is not None or iti_start is not None or iti_mask is not None:
            raise ValueError(
                "iti_alpha, iti_start and iti_mask steer, but this model has no directions: set_iti_directions"
            )
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )

    def _weights(self, inputs, attention_mask, position_ids, iti_alpha, iti_start, iti_mask, kwargs) -> dict:
        """What the steered layers need to know, computed once for all of them. Tensor operations only, no device sync."""
        batch, length = inputs.shape[:2]
        like = self.layers[next(iter(self._iti_shifts))].self_attn.iti_shift
        if iti_mask is not None:
            if iti_mask.shape != (batch, length):
                raise ValueError(
                    f"iti_mask has shape {list(iti_mask.shape)}; expected [batch, seq] = {[batch, length]}"
                )
        elif isinstance(iti_start, torch.Tensor):
            if iti_start.shape != (batch,):
                raise ValueError(f"iti_start has shape {list(iti_start.shape)}; expected [batch] = {[batch]}")
            iti_mask = position_ids >= iti_start.to(inputs.device)[:, None]
        elif iti_start is not None:
            if iti_start > 0:
                position_ids = _default_position_ids(inputs, None, None) if position_ids is None else position_ids
                iti_mask = (position_ids >= iti_start).expand(batch, length)
        elif self._iti_scope == "generated":
            iti_mask = self._last_token(inputs, attention_mask, kwargs)
        if iti_mask is not None:
            iti_mask = iti_mask.to(inputs.device, like.dtype)[..., None]
        if iti_alpha is None:
            return {"iti_mask": iti_mask}
        if self._iti_disabled:
            raise ValueError("iti_alpha is passed to a model inside disable_iti(); leave the block, or leave it out")
        if not isinstance(iti_alpha, torch.Tensor):
            iti_alpha = torch.full((1,), check_alpha(iti_alpha), device=inputs.device)
        if iti_alpha.shape not in ((batch,), (1,)):
            raise ValueError(f"iti_alpha has shape {list(iti_alpha.shape)}; expected [batch] = {[batch]}")
        iti_alpha = iti_alpha.to(inputs.device, like.dtype)[:, None, None]
        return {"iti_alpha": iti_alpha if iti_mask is None else iti_alpha * iti_mask}

    def _last_token(self, inputs, attention_mask, kwargs) -> torch.Tensor | None:
        """Scope "generated" outside `generate`: [batch, seq], from the last token of each row on; None for all of them."""
        batch, length = inputs.shape[:2]
        if length == 1:
            return None
        if kwargs.get("cu_seq_lens_q") is not None:
            raise ValueError("scope 'generated' cannot tell prompts in a packed sequence: pass iti_mask [batch, seq]")
        if not torch.compiler.is_compiling():
            logger.warning_once(
                "iti_scope is 'generated' and forward got several tokens without iti_start: only the last one is shifted, "
                "as for a prompt. To score an answer, pass iti_start, or set iti_scope to 'all'."
            )
        columns = torch.arange(length, device=inputs.device)
        last = torch.full((batch,), length - 1, device=inputs.device)
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            last = (attention_mask[:, -length:] * columns).argmax(-1)
        return columns >= last[:, None]

    @torch.no_grad()
    def _write_shifts(self) -> None:
        """Compute the shift of each steered layer from its output projection, and put it where the layer is."""
        directions = self._iti_directions
        offsets = {} if directions is None else directions.top(self._iti_top_k).offsets()
        dtype = self.norm.weight.dtype  # that of the residual stream, also where projections are quantised
        shifts = {}
        for index, offset in offsets.items():
            o_proj = self.layers[index].self_attn.o_proj
            shifts[index] = (
                project(o_proj, offset, dtype) if directions.site == "head" else offset.to(_device_of(o_proj))
            )
        self._iti_shifts = {index: shift.cpu() for index, shift in shifts.items()}
        for index, layer in enumerate(self.layers):
            shift = shifts.get(index)
            layer.self_attn.iti_shift = None if shift is None else shift.to(dtype)
            layer.self_attn.iti_scaled_shift = None if shift is None else torch.zeros_like(shift, dtype=dtype)
        self._write_scaled_shifts()

    @torch.no_grad()
    def _write_scaled_shifts(self) -> None:
        """Write alpha * shift into the buffers that the forward pass, compiled or not, adds."""
        alpha = 0.0 if self._iti_disabled else self._iti_alpha
        for index, shift in self._iti_shifts.items():
            self.layers[index].self_attn.iti_scaled_shift.copy_(alpha * shift)


class ITILlamaForCausalLM(ITILlamaPreTrainedModel, LlamaForCausalLM):
    """A Llama whose chosen heads are shifted at inference time. See the repo's README.md for a first example."""

    _auto_class = "AutoModelForCausalLM"

    def __init__(self, config: ITILlamaConfig):
        super(LlamaForCausalLM, self).__init__(config)  # LlamaForCausalLM's own would build a plain LlamaModel first
        self.model = ITILlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def generate(self, inputs: torch.Tensor | None = None, *args, iti_alpha=None, **kwargs):
        """As [`~transformers.GenerationMixin.generate`], with `iti_alpha` (`float` or `torch.Tensor` [batch], *optional*):
        the strength of this call, or of each row; beams and several returns of a row share it."""
        if self.iti_directions is None:
            if iti_alpha is not None:
                raise ValueError("iti_alpha steers, but this model has no directions: set_iti_directions")
            return super().generate(inputs, *args, **kwargs)
        prompt = next(
            (x for x in (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if x is not None), None
        )
        if prompt is None:
            raise ValueError("generate needs a prompt: pass input_ids or inputs_embeds")
        batch, length = prompt.shape[:2]
        if iti_alpha is not None:
            iti_alpha = torch.as_tensor(iti_alpha, dtype=torch.float32, device=prompt.device).reshape(-1)
            if len(iti_alpha) not in (1, batch) or not bool(torch.isfinite(iti_alpha).all()):
                raise ValueError(
                    f"iti_alpha is {iti_alpha.tolist()}; expected a finite number, or one for each of {batch} rows"
                )
            iti_alpha = iti_alpha.expand(batch)
        start = self._prompt_end(prompt, kwargs, *args) if self.iti_scope == "generated" else None
        token = _generation.set(_Generation(prompt_length=length, start=start, alpha=iti_alpha))
        try:
            return super().generate(inputs, *args, **kwargs)
        finally:
            _generation.reset(token)

    def _prompt_end(self, prompt: torch.Tensor, kwargs: dict, generation_config=None, *_) -> torch.Tensor:
        """The position [batch] of each row's last prompt token. Sets the attention mask where `generate` would guess it,
        so that both guess the same."""
        batch, length = prompt.shape[:2]
        if kwargs.get("position_ids") is not None:
            return kwargs["position_ids"][:, -1].expand(batch)
        if kwargs.get("attention_mask") is None and not prompt.is_floating_point():
            config = kwargs.get("generation_config") or generation_config or self.generation_config
            pad, eos = (kwargs.get(name, getattr(config, name)) for name in ("pad_token_id", "eos_token_id"))
            if pad is not None and pad not in (eos if isinstance(eos, (list, tuple)) else [eos]):
                real = prompt.ne(pad).long()
                if not bool(real.all()):
                    kwargs["attention_mask"] = real
        mask = kwargs.get("attention_mask")
        if mask is None or mask.ndim != 2:
            return torch.full((batch,), length - 1, device=prompt.device)
        return mask.to(prompt.device).long().sum(-1) - 1

    def load_custom_generate(self, pretrained_model_name_or_path=None, *args, **kwargs):
        """Refuses: a repo's own `generate` would replace the one that steers, and transformers 4.57 runs that of a local
        base unasked. `from_pretrained` takes the `OSError` as "there is none"."""
        raise OSError(
            f"{pretrained_model_name_or_path}: custom_generate is not supported, it would replace the steering"
        )

    @functools.wraps(LlamaForCausalLM.prepare_inputs_for_generation)  # `generate` reads its signature
    def prepare_inputs_for_generation(self, input_ids, *args, **kwargs) -> dict:
        model_inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        generation = _generation.get()
        if generation is None:
            return model_inputs
        fed = model_inputs.get("inputs_embeds")
        fed = model_inputs["input_ids"] if fed is None else fed

        def expanded(rows: torch.Tensor) -> torch.Tensor:  # beams and several returns stand side by side
            return rows if len(rows) == len(fed) else rows.repeat_interleave(len(fed) // len(rows))

        if generation.alpha is not None:
            model_inputs["iti_alpha"] = expanded(generation.alpha)
        if generation.start is not None:
            known, end = input_ids.shape[1], generation.prompt_length - 1
            after = known > end and known - fed.shape[1] >= end
            model_inputs["iti_start"] = 0 if after else expanded(generation.start)
        return model_inputs

    def merge_and_unload(self) -> LlamaForCausalLM:
        """The same model as a plain `LlamaForCausalLM` without custom code: the steering, at its present alpha, is the bias of
        each output projection (`attention_bias=True`, zero biases for q, k and v). Shares the other weights with this model.

        Raises:
            ValueError: for scope "generated", a quantised model, or one that is spread over devices.
        """
        if self.iti_scope != "all":
            raise ValueError(
                "iti_scope is 'generated': a bias acts on every position, so only scope 'all' can be merged. Set "
                "model.iti_scope = 'all' if that is what you want, and measure it: it is another intervention."
            )
        if getattr(self, "hf_quantizer", None) is not None or getattr(self.config, "quantization_config", None):
            raise ValueError("the weights are quantised: load the model in full precision to merge the steering")
        if len(set(getattr(self, "hf_device_map", {}).values())) > 1 or any(p.is_meta for p in self.parameters()):
            raise ValueError("the weights are spread over devices or offloaded: load the model on one device to merge")
        ours = ("model_type", "architectures", "auto_map", "attention_bias")
        fields = {key: value for key, value in self.config.to_dict().items() if key not in ours}
        fields = {key: value for key, value in fields.items() if not key.startswith(("iti_", "base_model_"))}
        config = LlamaConfig(**fields, attention_bias=True, attn_implementation=self.config._attn_implementation)
        config.name_or_path = ""
        with torch.device("meta"):
            merged = LlamaForCausalLM(config)
        state = dict(self.state_dict())
        for index, layer in enumerate(self.model.layers):
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                projection = getattr(layer.self_attn, name)
                bias = (
                    torch.zeros_like(projection.weight[:, 0]) if projection.bias is None else projection.bias.clone()
                )
                if name == "o_proj" and index in self.model._iti_shifts:
                    bias = (bias.float() + (self.iti_alpha * self.model._iti_shifts[index]).to(bias.device)).to(
                        bias.dtype
                    )
                state[f"model.layers.{index}.self_attn.{name}.bias"] = bias
        merged.load_state_dict({name: value.detach() for name, value in state.items()}, assign=True)
        merged.model.rotary_emb = copy.deepcopy(self.model.rotary_emb)
        merged.tie_weights()
        merged.generation_config = copy.deepcopy(self.generation_config)
        return merged.train(self.training)


def project(o_proj: nn.Module, offset: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """W_O @ offset, without the bias: float32 [hidden_size], on the device where the projection runs.

    In float32 from the weight where that is a plain tensor, else (quantised, offloaded) through the module itself, fed
    with `dtype`. `offset` is float32 [num_attention_heads * head_dim].
    """
    weight = getattr(o_proj, "weight", None)
    if hasattr(weight, "full_tensor"):  # tensor parallelism
        weight = weight.full_tensor()
        return weight.float() @ offset.to(weight.device)
    if (
        type(o_proj) is nn.Linear
        and type(weight.data) is torch.Tensor
        and weight.is_floating_point()
        and not weight.is_meta
    ):
        return weight.float() @ offset.to(weight.device)
    rows = torch.stack([offset, torch.zeros_like(offset)]).to(_device_of(o_proj), dtype)
    with_offset, without = o_proj(rows).float()
    if with_offset.is_meta:
        raise ValueError("the weights are on the meta device: load them before setting directions")
    return with_offset - without


def _device_of(module: nn.Module) -> torch.device:
    """Where a module runs, also when accelerate keeps its weights elsewhere."""
    device = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    hook = getattr(module, "_hf_hook", None)
    if device.type == "meta" and hook is not None:
        return torch.device(hook.execution_device)
    return device


def _default_position_ids(inputs, past_key_values, cache_position) -> torch.Tensor:
    """[1, seq], as LlamaModel numbers the positions when it is not told."""
    if cache_position is not None:
        return cache_position[None]
    seen = past_key_values.get_seq_length() if past_key_values is not None else 0
    return (torch.arange(inputs.shape[1], device=inputs.device) + seen)[None]


def _fetch(repo: str | os.PathLike, name: str, **hub) -> str | None:
    """The local path of a file of a repo or folder; None if the repo has no such file."""
    return cached_file(repo, name, _raise_exceptions_for_missing_entries=False, **hub)


def _fetch_directions(repo: str | os.PathLike, name: str, **hub) -> ITIDirections:
    path = _fetch(repo, name, **hub)
    if path is None:
        raise FileNotFoundError(
            f"{repo}: the config asks for directions in {name}, but there is no such file. A steered model is never loaded "
            "without its directions; to load the weights alone, use the base model."
        )
    return ITIDirections.load(path)


def _read_base_config(base: str, revision: str | None, hub: dict) -> dict:
    """The base model's config.json. Raises `OSError` with what to do if it cannot be had, `ValueError` if it is no Llama."""
    try:
        fields, _ = PretrainedConfig.get_config_dict(base, revision=revision or "main", **hub)
    except OSError as error:
        raise OSError(
            f"base model {base!r} (revision {revision or 'main'}): its config.json cannot be read: {error}\n"
            "Check the name. If the model is gated, accept its licence on its Hub page and log in with `hf auth login` "
            "or pass token=; if it is private, do the same; if you are offline, download it first."
        ) from error
    if fields.get("model_type") != "llama":
        raise ValueError(
            f"base model {base!r}: config.json has model_type {fields.get('model_type')!r}; expected 'llama'"
        )
    return fields


def _check_base(config: PretrainedConfig, base_fields: dict) -> None:
    """Raises `ValueError` unless the base is the model that the config describes."""
    base = LlamaConfig.from_dict(copy.deepcopy(base_fields))
    name = config.base_model_name_or_path
    for field in BASE_FIELDS:
        ours, theirs = getattr(config, field, None), getattr(base, field, None)
        if ours != theirs:
            raise ValueError(f"base model {name!r} has {field}={theirs!r}, but config.json says {ours!r}")
    quantisation = getattr(config, "quantization_config", None) or {}
    ours = quantisation if isinstance(quantisation, dict) else quantisation.to_dict()
    theirs = base_fields.get("quantization_config") or {}
    for field in ("quant_method", "bits", "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "group_size"):
        if ours.get(field) != theirs.get(field):
            raise ValueError(
                f"base model {name!r} is stored with quantisation {field}={theirs.get(field)!r}, but config.json says "
                f"{ours.get(field)!r}. To quantise while loading, pass quantization_config= to from_pretrained."
            )


__all__ = ["ITILlamaForCausalLM", "ITILlamaModel", "ITILlamaPreTrainedModel"]
