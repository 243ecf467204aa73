"""A steered Llama as a plain checkpoint: the same numbers, in the memory of a shard, in the words of every engine."""

import json

import pytest
import torch
from reference import assert_close, hooks, some_directions, tiny_llama
from safetensors.torch import load_file, save_file
from steered import steered_repo
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.export.llama import export_llama
from iti_llama.toolkit.export.select_behaviours import ExportError
from iti_llama.toolkit.export.source import open_source


def test_it_is_the_plain_base_with_hooks(repo, ids, tmp_path):
    export_llama(open_source(repo), tmp_path / "plain")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    assert type(exported) is LlamaForCausalLM
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    with torch.no_grad():
        got, plain = exported(ids).logits, base(ids).logits
        with hooks(base, ITIDirections.load(repo / "iti_directions.safetensors"), 1.5):
            want = base(ids).logits
    assert_close(got, want)
    assert (got - plain).abs().max() > 0.1


def test_a_bias_may_lie_in_another_shard_than_its_weight(tmp_path, ids):
    base = tiny_llama(attention_bias=True)
    with torch.no_grad():
        for name, weight in base.named_parameters():
            if name.endswith(".bias"):
                weight.normal_(0, 0.5)
    base.save_pretrained(tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "model.safetensors").unlink()
    shards = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    for name, tensor in tensors.items():
        shards["model-1.safetensors" if name.endswith(".bias") else "model-2.safetensors"][name] = tensor
    for name, part in shards.items():
        save_file(part, tmp_path / "base" / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (tmp_path / "base" / "model.safetensors.index.json").write_text(json.dumps(index))
    directions = some_directions(base.config)
    ITILlamaForCausalLM.from_base(tmp_path / "base", directions, alpha=1.5).save_pretrained(tmp_path / "repo")
    export_llama(open_source(tmp_path / "repo"), tmp_path / "plain")
    with torch.no_grad(), hooks(base, directions, 1.5):
        want = base(ids).logits
    with torch.no_grad():
        assert_close(AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()(ids).logits, want)


def test_the_bias_is_rounded_once(tmp_path, ids):
    repo = steered_repo(tmp_path, torch.bfloat16)
    source = open_source(repo)
    export_llama(source, tmp_path / "plain")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype="auto")
    for layer, shift in source.shifts().items():
        bias = exported.model.layers[layer].self_attn.o_proj.bias
        assert bias.dtype == torch.bfloat16 and torch.equal(bias, (1.5 * shift).bfloat16())


def test_strength_and_heads_can_be_others(one_repo, ids, tmp_path):
    export_llama(open_source(one_repo, alpha=-0.5, top_k=2), tmp_path / "plain")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    with torch.no_grad(), hooks(base, ITIDirections.load(one_repo / "iti_directions.safetensors").top(2), -0.5):
        want = base(ids).logits
    with torch.no_grad():
        assert_close(AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()(ids).logits, want)


def test_it_says_what_engines_ask_for(one_repo, tmp_path):
    export_llama(open_source(one_repo), tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert (config["architectures"], config["model_type"], config["attention_bias"]) == (
        ["LlamaForCausalLM"], "llama", True,
    )  # fmt: skip
    assert "auto_map" not in config and not any(key.startswith("iti") for key in config)
    assert (config["rope_theta"], config["rope_scaling"]["rope_type"]) == (5e5, "llama3")
    assert not list((tmp_path / "plain").glob("*.py"))
    index = json.loads((tmp_path / "plain" / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name for name in index if name.endswith(".bias")} == {
        f"model.layers.{layer}.self_attn.{name}_proj.bias" for layer in range(4) for name in "qkvo"
    }


def test_what_cannot_be_is_refused(tmp_path):
    scoped = steered_repo(tmp_path / "a", scope="generated")
    with pytest.raises(ExportError, match="pass --scope all"):
        open_source(scoped)
    assert open_source(scoped, scope="all").config().iti_scope == "all"
    config = tmp_path / "a" / "base" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "x"}}))
    with pytest.raises(ExportError, match="the base is quantised"):
        open_source(scoped, scope="all")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": None, "rms_norm_eps": 0.1}))
    with pytest.raises(ValueError, match="has rms_norm_eps=0.1, but config.json says 1e-06"):
        open_source(scoped, alpha=0.0, scope="all")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_source(tmp_path / "nowhere")


def test_a_residual_site_is_a_bias_too(tmp_path, ids):
    repo = steered_repo(tmp_path, site="residual", head_dim=16)
    export_llama(open_source(repo), tmp_path / "plain")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    with torch.no_grad(), hooks(base, ITIDirections.load(repo / "iti_directions.safetensors"), 1.5):
        want = base(ids).logits
    with torch.no_grad():
        assert_close(AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()(ids).logits, want)
