# Copyright 2026 The ITI-Llama authors. Licensed under the Apache License, Version 2.0.
"""Configuration of ITI-Llama: a Llama configuration plus what the steering needs."""

from huggingface_hub.errors import HFValidationError
from transformers import LlamaConfig
from transformers.utils.hub import cached_file, extract_commit_hash

from .iti_directions import AUTO_MAP, FIELDS, check_count, check_fields, check_harmless, write_whole


LLAMA_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
    *("num_key_value_heads", "hidden_act", "rms_norm_eps", "attention_bias", "mlp_bias", "tie_word_embeddings"),
    *("rope_parameters", "rope_theta", "rope_scaling"),
)
"""The fields that decide what a Llama computes, counts first (the rope names are those of transformers 5 and 4)."""

FREE_FIELDS = (
    *("max_position_embeddings", "initializer_range", "use_cache", "pretraining_tp", "attention_dropout"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "dtype", "torch_dtype", "quantization_config"),
)
"""What else a Llama's config may say."""

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "token", "revision", "subfolder")


class ITILlamaConfig(LlamaConfig):
    r"""Configuration of an [`ITILlamaForCausalLM`]; every argument of [`~transformers.LlamaConfig`] is accepted too.

    Args:
        iti_alpha (`float`, *optional*, defaults to 1.0): Strength, in units of sigma (Li et al. 2023, equation 2).
        iti_top_k (`int`, *optional*): Use only the k best-ranked heads of the directions file. All of them by default.
        iti_scope (`str`, *optional*, defaults to `"all"`): `"all"` positions, or `"generated"`, as in the paper.
        iti_directions_file (`str`, *optional*, defaults to `"iti_directions.safetensors"`):
            The file's name in the repo, without a folder. `None`: the model has no directions, and is a plain Llama.
        iti_directions_sha256 (`str`, *optional*): Digest of that file; if it is given, another file is refused.
        iti_behaviours (`dict`, *optional*): Further directions, {name: {"file": a name in the repo, "alpha": strength,
            "top_k": heads, all by default, "sha256": digest}}. An entry that holds `iti_directions_file` alone
            gives those directions its name; else they are called "default".
        base_model_name_or_path (`str`, *optional*): Whose weights (adapter form). `None`: those beside the config.
        base_model_revision (`str`, *optional*): Branch, tag or commit of the base model.

    >>> from iti_llama import ITILlamaConfig
    >>> ITILlamaConfig.from_pretrained("steered-llama", iti_alpha=0.8).iti_alpha
    0.8
    """

    model_type = "iti_llama"
    _auto_class = "AutoConfig"

    def __init__(self, **kwargs):
        rope = kwargs.get("rope_parameters")
        if rope and not hasattr(LlamaConfig, "rope_parameters"):
            # Written by transformers 5, read by 4.57, which keeps the two apart and would silently use its defaults.
            rope = dict(kwargs.pop("rope_parameters"))
            kwargs["rope_theta"] = rope.pop("rope_theta", kwargs.get("rope_theta", 10000.0))
            kwargs["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
        checked = check_fields(kwargs)
        super().__init__(**{key: value for key, value in kwargs.items() if key not in FIELDS} | {"auto_map": AUTO_MAP})
        vars(self).update(checked)

    def to_json_file(self, json_file_path, use_diff: bool = True) -> None:
        write_whole(json_file_path, self.to_json_string(use_diff).encode())

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        hub = pinned(pretrained_model_name_or_path, {key: kwargs[key] for key in HUB_ARGUMENTS if kwargs.get(key)})
        fields, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs | hub)
        fields["_commit_hash"] = hub.get("revision")
        return fields, {"_iti_repo": pretrained_model_name_or_path} | kwargs

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        name = kwargs.pop("_iti_repo", kwargs.get("name_or_path"))
        where = f"{name}/config.json" if name else "config.json"
        check_harmless(config_dict, where)
        if (model_type := config_dict.get("model_type")) != cls.model_type:
            advice = "a plain Llama is steered by ITILlamaForCausalLM.from_base"
            raise ValueError(f"config.json has model_type {model_type!r}; expected 'iti_llama': {advice}")
        given = {key: kwargs.pop(key) for key in list(kwargs) if key.startswith("iti_")}
        if "iti_directions_file" in given:  # digest and name are those of the file that this replaces
            old = {"file": config_dict.get("iti_directions_file", FIELDS["iti_directions_file"])}
            others = config_dict.get("iti_behaviours", {})
            if isinstance(others, dict):
                others = {key: entry for key, entry in others.items() if entry != old}
            config_dict = config_dict | {"iti_directions_sha256": None, "iti_behaviours": others}
        if "num_labels" in config_dict:  # transformers would make a list of that length
            raise ValueError(f"{where}: num_labels is {config_dict['num_labels']!r}; expected no such field")
        for field in LLAMA_FIELDS[:7]:
            check_count(f"{where}: {field}", config_dict.get(field))
        try:
            loaded = super().from_dict(config_dict | given, **kwargs)
        except (ValueError, OSError):
            raise
        except Exception as error:  # transformers refuses some fields by errors of many kinds
            raise ValueError(f"{where}: transformers refuses it: {type(error).__name__}: {error}") from error
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        config._commit_hash = config_dict.get("_commit_hash")  # transformers 5.24 drops it
        config.name_or_path = str(name or "")  # the repo of that commit
        return loaded

    def to_llama(self, **overrides) -> LlamaConfig:
        """The same model as a plain Llama, with the attention implementation in use."""
        fields = {key: value for key, value in self.to_dict().items() if key in (*LLAMA_FIELDS, *FREE_FIELDS)}
        return LlamaConfig(**fields | {"attn_implementation": self._attn_implementation} | overrides)


def pinned(repo, hub: dict) -> dict:
    """The Hub arguments `hub` with their revision resolved to a commit, so that everything read from a repo belongs
    together. A folder has no commit. Raises `OSError` if there is no such repo, or no config.json in it."""
    try:
        commit = extract_commit_hash(cached_file(repo, "config.json", **hub), None)
    except HFValidationError as error:  # transformers 4.57 lets it through
        raise OSError(f"{repo}: no such folder, and no name of a Hub repo: {error}") from error
    return hub | {"revision": commit} if commit else hub
