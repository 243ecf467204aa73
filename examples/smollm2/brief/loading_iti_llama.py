# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""Loading, checking and saving a steered Llama: adapter form (weights from a base model) and self-contained form."""

import copy
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import GenerationConfig, PretrainedConfig
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import cached_file, logging

from .configuration_iti_llama import FREE_FIELDS, HUB_ARGUMENTS, LLAMA_FIELDS, ITILlamaConfig, pinned
from .iti_directions import FIELDS, ITIDirections, check_fields, check_harmless, file_sha256, hub_file, read_behaviours
from .steering_iti_llama import HeldDirections


logger = logging.get_logger(__name__)
QUIET = {"_raise_exceptions_for_missing_entries": False}
QUANTISATION = ("quant_method", "bits", "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "group_size")


class ITILlamaLoadingMixin:
    """`from_pretrained`, `from_base`, `save_pretrained` and `push_to_hub` of the models in `modeling_iti_llama`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Load config and directions from this repo or folder. The weights are there too (self-contained form), or
        come from the base model that the config names (adapter form). Takes the arguments of transformers'
        `from_pretrained` and every field of the config. `revision` and `subfolder` belong to this repo,
        `base_model_revision` to the base; other Hub arguments hold for both. Each repo is read at one commit. No code
        of the base is run. Raises `OSError` if the repo, its directions or its base are not there, `ValueError` if
        they are wrong, or the base is not what the config describes.
        """
        repo = pretrained_model_name_or_path
        hub = {name: value for name in HUB_ARGUMENTS if (value := kwargs.pop(name, None)) is not None}
        if repo is not None:
            commit = getattr(config, "_commit_hash", None)
            commit = commit if getattr(config, "name_or_path", "") == str(repo) else None
            hub = hub | {"revision": commit} if commit else pinned(repo, hub)
        if not isinstance(config, PretrainedConfig):
            kept = {key: kwargs.pop(key) for key in ("dtype", "torch_dtype", "quantization_config") if key in kwargs}
            config, kwargs = ITILlamaConfig.from_pretrained(config or repo, return_unused_kwargs=True, **hub, **kwargs)
            kwargs |= kept
        if config.model_type != cls.config_class.model_type:
            raise ValueError(f"config is a {type(config).__name__}; expected an ITILlamaConfig, or fields by name")
        if repo is not None:
            directions = read_behaviours(config, lambda name: hub_file(repo, name, **hub), str(repo))
            return cls._load(repo, config, directions, hub, *model_args, **kwargs)
        if config.iti_directions_file is not None or config.base_model_name_or_path is not None:
            advice = "pass the repo, or iti_directions_file=None, and then set_iti_directions"
            raise ValueError(f"the config names {config.iti_directions_file}, but there is no repo: {advice}")
        return super().from_pretrained(None, *model_args, config=config, **kwargs)  # weights as `state_dict=`

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
        """Steer a plain Llama checkpoint, on the Hub or on disk, by `directions` or the file at that path; None leaves
        it plain, for `set_iti_directions` to steer. The model saves in adapter form, without its weights; set
        `model.config.base_model_name_or_path = None` before saving to write them as well. `kwargs` are those of
        `from_pretrained`, for the base. Raises as `from_pretrained`.

        >>> from iti_llama import ITILlamaForCausalLM
        >>> model = ITILlamaForCausalLM.from_base("llama", "other.safetensors", alpha=0.4)
        >>> model.save_pretrained("my-steered-llama")  # code, config and directions; no weights
        """
        hub = {name: value for name in HUB_ARGUMENTS if (value := kwargs.pop(name, None)) is not None}
        revision, subfolder = hub.pop("revision", None), hub.pop("subfolder", "")
        base = os.path.join(base_model_name_or_path, subfolder) if subfolder else os.fspath(base_model_name_or_path)
        if "gguf_file" in kwargs or base.endswith(".gguf"):
            advice = "`iti-llama from-gguf FILE.gguf --out DIR` makes a base of it"
            raise ValueError(f"base model {base!r}: is a GGUF file, or holds one; {advice}")
        if os.path.isdir(base):
            base = os.path.abspath(base)
        elif subfolder:
            raise ValueError(f"subfolder is {subfolder!r}: an adapter can only name a base at the root of its repo")
        if directions is not None and not isinstance(directions, ITIDirections):
            directions = ITIDirections.load(directions)
        fields, hub = read_base_config(base, revision, hub)
        config = ITILlamaConfig(
            **fields,
            **{"iti_alpha": alpha, "iti_top_k": top_k, "iti_scope": scope},
            iti_directions_file=None if directions is None else FIELDS["iti_directions_file"],
            base_model_name_or_path=base,
            base_model_revision=revision,
        )
        if directions is not None:
            directions.check_geometry(config, top_k=top_k)
        return cls._load(None, config, {} if directions is None else {"default": directions}, hub, **kwargs)

    @classmethod
    def _load(cls, repo, config: ITILlamaConfig, directions: dict[str, ITIDirections], hub: dict, *args, **kwargs):
        """Load the weights of the base or repo, and steer them. Nothing that belongs to the repo reaches the base."""
        base, source, stored = config.base_model_name_or_path, repo, hub
        lora = (kwargs.get("adapter_kwargs") or {}).get("_adapter_model_path")
        if base is not None:
            revision = hub.get("revision") if repo is None else config.base_model_revision
            fields, at_commit = read_base_config(base, revision, hub)
            check_base(config, fields)
            source, stored = base, at_commit
            kwargs |= {"trust_remote_code": False, "_commit_hash": None}
            kwargs |= {} if lora else {"adapter_kwargs": {}}
        if lora in (None, source) and cached_file(source, "adapter_config.json", **stored, **QUIET) is not None:
            advice = "load a model without one, and put the adapter on by model.load_adapter"
            raise ValueError(f"{source}: adapter_config.json would change what disable_iti() gives: {advice}")
        loaded = super().from_pretrained(source, *args, config=config, **stored, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if base is not None:
            model._iti_quantisation = fields.get("quantization_config")
        if base is not None and repo is not None:
            model.name_or_path = model.config.name_or_path = str(repo)
            given = kwargs.get("generation_config") is not None or not model.can_generate()
            if not given and cached_file(repo, "generation_config.json", **hub, **QUIET) is not None:
                model.generation_config, source = GenerationConfig.from_pretrained(repo, **hub), repo
        if model.can_generate():
            model._iti_refuse_strength(model.generation_config, f"{source}/generation_config.json")
        model._iti_revision = (hub if repo is not None else stored).get("revision")  # the commit of `name_or_path`
        model._iti_weights = _versions(model)
        model.base_model._iti_held = HeldDirections(directions)
        return loaded

    def __getstate__(self) -> dict:
        """A copy has weights of its own; they count as loaded if those of the original are unchanged. It starts
        outside `disable_iti`."""
        state = self.__dict__ | {"_iti_blocks": []}
        if state.get("_iti_weights") is not None:
            state["_iti_weights"] = {} if weights_changed(self) else None
        return state

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        if "_iti_weights" in state and state["_iti_weights"] is None:
            self._iti_weights = _versions(self)

    def train(self, mode: bool = True):
        """As torch's, but an adapter form warns now of what `save_pretrained` would refuse at the first checkpoint."""
        base = getattr(self.config, "base_model_name_or_path", None)
        trained = (name for name, weight in self.named_parameters() if weight.requires_grad and "lora_" not in name)
        if mode and base is not None and (name := next(trained, None)):
            advice = "set model.config.base_model_name_or_path = None to save the trained weights, or train a LoRA"
            logger.warning_once(f"{name} is trained, but the adapter form on {base} saves no weights: {advice}")
        return super().train(mode)

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs) -> None:
        """Write code, config, generation config and directions; and the weights, unless the config names a base model
        (adapter form). Raises `ValueError` if that would lose changed weights, or the steering."""
        if getattr(self, "_hf_peft_config_loaded", False):  # saves the PEFT adapter alone
            return super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if kwargs.pop("push_to_hub", False):
            raise ValueError("push_to_hub=True would leave out tokenizer and card: call model.push_to_hub(repo_id)")
        config, base, folder = self.config, self.config.base_model_name_or_path, Path(save_directory)
        vars(config).update(check_fields(vars(config)))
        behaviours, held = self.base_model._iti_behaviours()
        for name, behaviour in behaviours.items():
            held.directions[name].check_geometry(config, top_k=behaviour.top_k)
        if base is not None and folder.is_dir() and os.path.isdir(base) and os.path.samefile(folder, base):
            raise ValueError(f"{folder}: is the base of this model, whose config.json would be lost; save elsewhere")
        given = "state_dict=" if kwargs.get("state_dict") is not None else None
        if base is not None and (changed := given or weights_changed(self)):
            advice = "set model.config.base_model_name_or_path = None to save them; a LoRA is saved by PEFT"
            raise ValueError(f"{changed} may not be what {base} holds; the adapter form saves no weights: {advice}")
        renews_card = is_main_process and (folder / "README.md").is_file() and find_spec("iti_llama")
        if renews_card:
            card = import_module("iti_llama.toolkit.repo.card")
            if hasattr(card, "check_card"):  # an installed 0.2 has no such check
                card.check_card(folder)
        folder.mkdir(parents=True, exist_ok=True)
        staged = {}
        try:
            for name, behaviour in behaviours.items() if is_main_process else ():
                path = held.directions[name].save(folder / f".{behaviour.file}.new")
                staged[path], digest = folder / behaviour.file, file_sha256(path)
                if name == "default":
                    config.iti_directions_sha256 = digest
                else:
                    config.iti_behaviours[name]["sha256"] = digest
            # The config comes first, since it holds the digests: if a save is cut off, old directions are refused.
            if base is None:
                super().save_pretrained(folder, is_main_process=is_main_process, **kwargs)
            elif is_main_process:
                saved = copy.deepcopy(config)
                saved.architectures, saved.dtype = [type(self).__name__], str(self.dtype).removeprefix("torch.")
                saved.__dict__.pop("quantization_config", None)  # how the base is stored, not how it was loaded here
                if getattr(self, "_iti_quantisation", None) is not None:
                    saved.quantization_config = self._iti_quantisation
                custom_object_save(self, folder, config=saved)
                saved.save_pretrained(folder)
                if self.can_generate():
                    self.generation_config.save_pretrained(folder)
            for path, final in staged.items():
                os.replace(path, final)
        finally:
            for path in staged:
                path.unlink(missing_ok=True)
        if renews_card:
            import_module("iti_llama").renew_card(folder)

    def push_to_hub(self, repo_id: str, **kwargs):
        """Publish the whole repo, with tokenizer and card. Takes the arguments of `iti_llama.push`, and calls it."""
        try:
            package = import_module("iti_llama")
        except ImportError as error:
            raise ImportError("it needs the package, for tokenizer and card: `pip install iti-llama`") from error
        return package.push(self, repo_id, **kwargs).info

    def load_custom_generate(self, pretrained_model_name_or_path=None, *args, **kwargs):
        """Always refuses; for a local base transformers 4.57 would not ask. `OSError` means "there is none"."""
        raise OSError(f"{pretrained_model_name_or_path}: custom_generate would replace the steering; not supported")


def read_base_config(base: str, revision: str | None, hub: dict) -> tuple[dict, dict]:
    """The Llama fields of the base's config.json, and the Hub arguments of its commit. Raises as `from_pretrained`."""
    hub = {name: hub[name] for name in hub if name not in ("revision", "subfolder")}
    try:
        hub = pinned(base, hub | {"revision": revision or "main"})
        fields, _ = PretrainedConfig.get_config_dict(base, **hub)
    except OSError as error:
        advice = "If the model is gated, accept its licence on its Hub page and log in with `hf auth login`; if it is"
        advice = f"{advice} private, log in; if you are offline, download it first."
        raise OSError(f"base model {base!r}: its config.json cannot be read: {error}\n{advice}") from error
    if (model_type := fields.get("model_type")) != "llama":
        raise ValueError(f"base model {base!r}: config.json has model_type {model_type!r}; expected 'llama'")
    check_harmless(fields, f"base model {base!r}: config.json")
    return {k: v for k, v in fields.items() if k in (*LLAMA_FIELDS, *FREE_FIELDS)}, hub


def check_base(config: PretrainedConfig, base_fields: dict) -> None:
    """Raises `ValueError` unless the base is the model that the config describes."""
    base, name = ITILlamaConfig(**copy.deepcopy(base_fields)), config.base_model_name_or_path
    for field in LLAMA_FIELDS:
        ours, theirs = getattr(config, field, None), getattr(base, field, None)
        if ours != theirs:
            raise ValueError(f"base model {name!r} has {field}={theirs!r}, but config.json says {ours!r}")
    ours, theirs = (c.to_dict().get("quantization_config") or {} for c in (config, base))
    for field in QUANTISATION:
        if (stored := theirs.get(field)) != (expected := ours.get(field)):
            advice = f"config.json says {expected!r}: to quantise while loading, pass quantization_config="
            raise ValueError(f"base model {name!r} is stored with quantisation {field}={stored!r}, but {advice}")


def _versions(model) -> dict[str, tuple]:
    """For each weight: which tensor it is, how often torch saw it written to, and about 64 of its values, since torch
    does not count writes through `weight.data`. Quantised and offloaded weights are replaced at every pass by the
    library that keeps them: only their names count."""
    versions = {}
    for name, weight in model.named_parameters():
        data, versions[name] = getattr(weight.detach(), "_local_tensor", weight.detach()), ()
        if type(data) is torch.Tensor and data.is_floating_point() and not data.is_meta:
            sample = data.flatten()[:: max(1, data.numel() // 64)].clone()
            versions[name] = id(weight), None if weight.is_inference() else weight._version, sample
    return versions


def weights_changed(model) -> str | None:
    """The first weight that was added, removed or written to since the model was loaded; None if all are unchanged. A
    write through `weight.data` is seen if it changes one of the sampled values."""
    before, now = getattr(model, "_iti_weights", None) or {}, _versions(model)
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old is None or new is None or old[:2] != new[:2] or (old and not torch.equal(old[2].to(new[2]), new[2])):
            return name
    return None
