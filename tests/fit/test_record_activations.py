"""Capture, against plain forward passes one text at a time."""

import pytest
import torch

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.positions import Policy, tokenize
from iti_llama.toolkit.fit.record_activations import capture


def one_by_one(model, rows):
    """Input of every o_proj and output of every layer, mean over each row's span, from batches of one without
    padding."""
    heads, residual = [], []
    for row in rows:
        seen = {}
        handles = [
            layer.self_attn.o_proj.register_forward_pre_hook(lambda m, a, i=i, seen=seen: seen.__setitem__(i, a[0][0]))
            for i, layer in enumerate(model.model.layers)
        ]
        with torch.no_grad():
            states = model.model(torch.tensor([row.ids]), output_hidden_states=True).hidden_states
        for handle in handles:
            handle.remove()
        heads.append(torch.stack([seen[i][row.first :].mean(0) for i in sorted(seen)]))
        residual.append(torch.stack([s[0, row.first :].mean(0) for s in states[1:-1]]))
    return torch.stack(heads), torch.stack(residual)


@pytest.mark.parametrize("policy", ["last", "completion-mean", "fraction 0", "fraction 0.5", "fraction 1"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_any_batch_size_gives_the_activations_of_single_rows(model, tokenizer, examples, policy, batch_size):
    policy = Policy.parse(policy)
    found = capture(model, tokenizer, examples, policy, batch_size)
    heads, residual = one_by_one(model, [tokenize(e, policy, tokenizer) for e in examples])
    layers, width = model.config.num_hidden_layers, model.config.num_attention_heads
    assert found.heads.shape[:3] == (14, layers, width)
    torch.testing.assert_close(found.heads.flatten(2), heads, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.residual[:, :-1], residual, atol=1e-5, rtol=1e-5)


def test_long_texts_are_counted_and_never_cut(model, tokenizer, examples):
    long = Example("x " * 600, "y\n", 0, "g")
    with pytest.raises(ValueError, match=r"2 of 16 texts are longer than the model's \d+ tokens, the first is row 15"):
        capture(model, tokenizer, [*examples, long, long], Policy("last"))


def test_a_model_that_is_spread_over_devices_gives_the_same(model, tokenizer, examples, tmp_path):
    model.save_pretrained(tmp_path / "model")
    layers = {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(model.config.num_hidden_layers)}
    device_map = {
        "model.embed_tokens": "cpu",
        "model.rotary_emb": "cpu",
        "model.norm": "cpu",
        "lm_head": "cpu",
    } | layers
    spread = ITILlamaForCausalLM.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "off"
    )
    found = capture(spread, tokenizer, examples, Policy("last"))
    expected = capture(model, tokenizer, examples, Policy("last"))
    torch.testing.assert_close(found.heads, expected.heads, atol=1e-6, rtol=1e-6)


def test_activations_that_are_not_numbers_are_named(model, tokenizer, examples):
    from copy import deepcopy

    broken = deepcopy(model)
    with torch.no_grad():  # only texts with this token meet it
        broken.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("!")] = float("inf")
    rows = [*examples[:2], Example("def f():!\n", "return 1\n", 1, "h")]
    with pytest.raises(ValueError, match=r"of 1 of 3 texts are NaN or infinite, the first is row 3: .*float32"):
        capture(broken, tokenizer, rows, Policy("last"))
