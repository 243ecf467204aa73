# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""Loading, checking and saving a steered Llama: adapter form (weights from a base model) and self-contained form."""

import copy
import json
import math
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import cached_file

from .configuration_iti_llama import FREE_FIELDS, LLAMA_FIELDS, ITILlamaConfig, check_harmless
from .iti_directions import UNFINISHED, ITIDirections, write_whole


HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "token", "revision", "subfolder")
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
QUANTISATION = ("quant_method", "bits", "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "group_size")


class ITILlamaLoadingMixin:
    """`from_pretrained`, `from_base`, `save_pretrained` and `push_to_hub` of the models in `modeling_iti_llama`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Config and directions from this repo or folder, and the weights too (self-contained form) or from the base
        model that its config names (adapter form). Takes the arguments of transformers' `from_pretrained` and every
        field of the config. `revision` and `subfolder` belong to this repo, `base_model_revision` to the base; other
        Hub arguments hold for both. No code of the base is run. Raises `OSError` if the repo, its directions or its
        base are not there, `ValueError` if they are wrong, or the base is not what the config describes.
        """
        repo = pretrained_model_name_or_path
        hub = {name: value for name in HUB_ARGUMENTS if (value := kwargs.pop(name, None)) is not None}
        if not isinstance(config, PretrainedConfig):
            kept = {key: kwargs.pop(key) for key in ("dtype", "torch_dtype", "quantization_config") if key in kwargs}
            config, kwargs = ITILlamaConfig.from_pretrained(config or repo, return_unused_kwargs=True, **hub, **kwargs)
            kwargs |= kept
        config.validate_iti()
        if repo is None:  # weights as `state_dict=`: there is no repo to read directions from
            if config.iti_directions_file is not None or config.base_model_name_or_path is not None:
                advice = "pass the repo, or iti_directions_file=None, and then set_iti_directions"
                raise ValueError(f"the config names {config.iti_directions_file}, but there is no repo: {advice}")
            return super().from_pretrained(None, *model_args, config=config, **kwargs)
        commit = getattr(config, "_commit_hash", None)
        hub |= {"revision": commit} if commit else {}  # what belongs together comes from one commit
        name = config.iti_directions_file
        directions = None if name is None else ITIDirections.from_pretrained(repo, name, **hub)
        entries = config.iti_others.items()
        others = {name: ITIDirections.from_pretrained(repo, entry["file"], **hub) for name, entry in entries}
        return cls._load(repo, config, directions, others, hub, *model_args, **kwargs)

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
        `from_pretrained`, for the base. Raises as `from_pretrained`."""
        hub = {name: value for name in HUB_ARGUMENTS if (value := kwargs.pop(name, None)) is not None}
        revision, subfolder = hub.pop("revision", None), hub.pop("subfolder", "")
        base = os.path.join(base_model_name_or_path, subfolder) if subfolder else os.fspath(base_model_name_or_path)
        if os.path.isdir(base):
            base = os.path.abspath(base)
        elif subfolder:
            raise ValueError(f"subfolder is {subfolder!r}: an adapter can only name a base at the root of its repo")
        if directions is not None and not isinstance(directions, ITIDirections):
            directions = ITIDirections.load(directions)
        config = ITILlamaConfig(
            **_read_base_config(base, revision, hub)[0],
            **{"iti_alpha": alpha, "iti_top_k": top_k, "iti_scope": scope},
            iti_directions_file=None if directions is None else "iti_directions.safetensors",
            base_model_name_or_path=base,
            base_model_revision=revision,
        )
        return cls._load(None, config, directions, {}, hub, **kwargs)

    @classmethod
    def _load(
        cls, repo, config: PretrainedConfig, directions: ITIDirections | None, others: dict, hub: dict, *args, **kwargs
    ):
        """Weights from the base or the repo into this class, steered. Nothing of the repo's reaches the base."""
        if directions is not None:
            name = "the directions" if repo is None else f"{repo}/{config.iti_directions_file}"
            directions.check_geometry(config, name)
            directions.top(config.iti_top_k)
        for behaviour, held in others.items():
            entry = config.iti_behaviours[behaviour]
            held.check_geometry(config, f"{repo}/{entry['file']}")
            held.top(entry["top_k"])
        base, source, stored = config.base_model_name_or_path, repo, hub
        if base is not None:
            fields, commit = _read_base_config(base, config.base_model_revision, hub)
            _check_base(config, fields)
            revision = commit or config.base_model_revision or "main"
            source, stored = base, {name: hub[name] for name in hub if name != "subfolder"} | {"revision": revision}
            config._commit_hash = None
            kwargs |= {"trust_remote_code": False, "adapter_kwargs": {}, "_commit_hash": None}
        loaded = super().from_pretrained(source, *args, config=config, **stored, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.base_model._iti_loaded = (hub.get("revision"), _samples(model, base is not None))
        if base is not None:
            model.base_model._iti_base = (fields.get("quantization_config"), model.base_model._iti_loaded[1])
            if repo is not None:
                model.name_or_path = model.config.name_or_path = str(repo)
                quiet = {"_raise_exceptions_for_missing_entries": False}
                if model.can_generate() and cached_file(repo, "generation_config.json", **hub, **quiet) is not None:
                    model.generation_config = GenerationConfig.from_pretrained(repo, **hub)
        model.base_model._compute_shifts(directions, others)
        return loaded

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs) -> None:
        """Write code, config, generation config and directions; and the weights, unless the config names a base model
        (adapter form). Raises `ValueError` where that would lose weights that were changed."""
        if getattr(self, "_hf_peft_config_loaded", False):  # saves the PEFT adapter alone
            return super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if kwargs.pop("push_to_hub", False):
            raise ValueError("push_to_hub=True would leave out tokenizer and card: call model.push_to_hub(repo_id)")
        self.config.validate_iti()
        base, name = self.config.base_model_name_or_path, self.config.iti_directions_file
        quantisation, samples = getattr(self.base_model, "_iti_base", (None, {}))
        held = "state_dict=" if kwargs.get("state_dict") is not None else None
        changed = base is not None and (held or _first_change(samples, _samples(self, True)))
        if changed:
            advice = "set model.config.base_model_name_or_path = None to save them; a LoRA is saved by PEFT"
            raise ValueError(f"{changed} may not be what {base} holds; the adapter form saves no weights: {advice}")
        self.config.iti_directions_file = (name or "iti_directions.safetensors") if self.iti_directions else None
        (folder := Path(save_directory)).mkdir(parents=True, exist_ok=True)
        files = {}
        if self.iti_directions is not None and is_main_process:
            files[folder / self.config.iti_directions_file] = self.iti_directions
            others = self.base_model._iti_others.items()
            files |= {folder / self.config.iti_behaviours[behaviour]["file"]: own for behaviour, own in others}
        with _unfinished(folder / "config.json", files):
            for path, directions in files.items():
                directions.save(path)
            if base is None:
                super().save_pretrained(folder, is_main_process=is_main_process, **kwargs)
            elif is_main_process:
                config = copy.deepcopy(self.config)
                config.architectures, config.dtype = [type(self).__name__], str(self.dtype).removeprefix("torch.")
                config.__dict__.pop("quantization_config", None)  # how the base is stored, not how it was loaded here
                if quantisation is not None:
                    config.quantization_config = quantisation
                custom_object_save(self, folder, config=config)
                config.save_pretrained(folder)
                if self.can_generate():
                    self.generation_config.save_pretrained(folder)
        if is_main_process and (folder / "README.md").is_file() and find_spec("iti_llama"):
            import_module("iti_llama").renew_card(folder)

    def push_to_hub(self, repo_id: str, **kwargs):
        """Publish the whole repo, with tokenizer and card, by `iti_llama.push`, whose arguments it takes."""
        try:
            package = import_module("iti_llama")
        except ImportError as error:
            raise ImportError("it needs the package, for tokenizer and card: `pip install iti-llama`") from error
        return package.push(self, repo_id, **kwargs).info

    def load_custom_generate(self, pretrained_model_name_or_path=None, *args, **kwargs):
        """Refuses, also for a local base, where transformers 4.57 would not ask; `OSError` means "there is none"."""
        raise OSError(f"{pretrained_model_name_or_path}: custom_generate would replace the steering; not supported")


class ITILlamaForSequenceClassification(PreTrainedModel):
    """There is none: says so in a sentence, where transformers would list every model that it knows."""

    config_class = ITILlamaConfig

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        raise ValueError("an ITI-Llama has no head for classification: load it by AutoModelForCausalLM")


def _read_base_config(base: str, revision: str | None, hub: dict) -> tuple[dict, str | None]:
    """What the base's config.json says of a Llama, and its commit. Raises as `from_pretrained`."""
    hub = {name: hub[name] for name in hub if name not in ("revision", "subfolder")}
    try:
        fields, _ = PretrainedConfig.get_config_dict(base, revision=revision or "main", **hub)
    except OSError as error:
        advice = "If the model is gated, accept its licence on its Hub page and log in with `hf auth login`; if it is"
        advice = f"{advice} private, the latter; if you are offline, download it first."
        raise OSError(f"base model {base!r}: its config.json cannot be read: {error}\n{advice}") from error
    if (found := fields.get("model_type")) != "llama":
        raise ValueError(f"base model {base!r}: config.json has model_type {found!r}; expected 'llama'")
    check_harmless(fields, f"base model {base!r}: config.json")
    return {k: v for k, v in fields.items() if k in (*LLAMA_FIELDS, *FREE_FIELDS)}, fields.get("_commit_hash")


def _check_base(config: PretrainedConfig, base_fields: dict) -> None:
    """Raises `ValueError` unless the base is the model that the config describes."""
    base, name = ITILlamaConfig(**copy.deepcopy(base_fields)), config.base_model_name_or_path
    for field in LLAMA_FIELDS:
        ours, theirs = getattr(config, field, None), getattr(base, field, None)
        if ours != theirs:
            raise ValueError(f"base model {name!r} has {field}={theirs!r}, but config.json says {ours!r}")
    ours, theirs = (c.to_dict().get("quantization_config") or {} for c in (config, base))
    for field in QUANTISATION:
        if (found := theirs.get(field)) != (said := ours.get(field)):
            advice = f"config.json says {said!r}: to quantise while loading, pass quantization_config="
            raise ValueError(f"base model {name!r} is stored with quantisation {field}={found!r}, but {advice}")


@contextmanager
def _unfinished(config: Path, files: Collection[Path]) -> Iterator[None]:
    """While these files are written anew, the config.json that is there says so and is refused by whoever loads it. It
    is as before where the save fails and none of them has changed."""

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in files if path.is_file()}

    before, said, marked = contents(), None, None
    with suppress(FileNotFoundError, ValueError, TypeError):  # none, or none that anything would load
        said = config.read_bytes()
        marked = json.dumps(json.loads(said) | {UNFINISHED: True}, indent=2).encode()
    if marked is None or not files:
        yield
        return
    write_whole(config, marked)
    try:
        yield
    except BaseException:
        if contents() == before and config.read_bytes() == marked:
            write_whole(config, said)
        raise


def _samples(model, exactly: bool) -> dict[str, tuple]:
    """Of every weight a checksum, where it is to be known exactly; how often it was written to and some 64 of its
    values, for when not, or when its dtype is no longer the same. Quantised and offloaded: the name."""
    found = {}
    for name, weight in model.named_parameters():
        data = getattr(weight.detach(), "_local_tensor", weight.detach())
        known = type(data) is torch.Tensor and data.is_floating_point() and not data.is_meta
        own = data.flatten() if known else torch.empty(0)
        written = weight._version if known and not weight.is_inference() else 0
        found[name] = _checksum(own) if exactly else None, written, own[:: max(1, own.numel() // 64)].clone()
    return found


def _checksum(flat: torch.Tensor) -> int:
    """Of every bit: sums of up to 4096 parts of it, read as integers, each times an odd number of its own."""
    size = math.gcd(flat.nbytes, 8)
    words = (flat.clone() if flat.storage_offset() * flat.itemsize % size else flat).view(INTEGERS[size])
    sums = words.reshape(math.gcd(len(words), 4096), -1).sum(-1) if len(words) else words
    return (sums * (2 * torch.arange(len(sums), device=sums.device) + 1)).sum().item()


def _first_change(before: dict[str, tuple], after: dict[str, tuple]) -> str | None:
    """The first weight that is not as it was, or that came or went; None if all are."""
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            return name
        (bits, written, old), (bits_now, written_now, new) = before[name], after[name]
        same = bits == bits_now
        if old.dtype != new.dtype or None in (bits, bits_now):
            same = written == written_now and torch.equal(old.to(new), new)
        if not same:
            return name
