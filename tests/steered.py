"""Steered models made from plain ones, and their logits."""

import torch
from reference import some_directions, tiny_llama, tiny_tokenizer
from transformers import LlamaForCausalLM

from iti_llama import ITILlamaConfig, ITILlamaForCausalLM
from iti_llama.iti_directions import file_sha256
from iti_llama.toolkit.repo.steered_repo import change_fields


def steered_copy(base: LlamaForCausalLM, directions, **fields) -> ITILlamaForCausalLM:
    """The weights of `base` in a steered model, without going through a file."""
    kept = {k: v for k, v in base.config.to_dict().items() if k not in ("model_type", "architectures")}
    model = ITILlamaForCausalLM(ITILlamaConfig(**(kept | fields))).to(base.dtype).eval()
    model.load_state_dict(base.state_dict())
    model.set_iti_directions(directions)
    return model


@torch.no_grad()
def logits(model, ids, **kwargs) -> torch.Tensor:
    return model(input_ids=ids, **kwargs).logits


def replace_directions(folder, directions) -> None:
    """Other directions in a repo on disk, and their digest in its config."""
    path = directions.save(folder / "iti_directions.safetensors")
    change_fields(folder, iti_directions_sha256=file_sha256(path))


def steered_repo(folder, dtype=None, scope="all", site="head", **overrides):
    """`folder`/repo: an adapter on `folder`/base, which is in several shards."""
    base = tiny_llama(**overrides)
    base = base if dtype is None else base.to(dtype)
    base.save_pretrained(folder / "base", max_shard_size="100KB")
    tiny_tokenizer().save_pretrained(folder / "base")
    directions = some_directions(base.config, site=site, layers=range(4))
    model = ITILlamaForCausalLM.from_base(folder / "base", directions, alpha=1.5, scope=scope, dtype="auto")
    model.save_pretrained(folder / "repo")
    tiny_tokenizer().save_pretrained(folder / "repo")
    return folder / "repo"
