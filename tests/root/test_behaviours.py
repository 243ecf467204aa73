"""Several behaviours in one model: each the shift that hooks on a plain Llama give, alone and together."""

import hashlib
import json
from contextlib import ExitStack

import pytest
import torch
from reference import hooks, some_directions, tiny_llama
from steered import logits, steered_copy

from iti_llama import ITILlamaConfig, ITILlamaForCausalLM


@pytest.fixture(scope="module")
def parts():
    """A plain Llama, and two sets of directions that share a layer but not all of them."""
    base = tiny_llama(seed=3)
    return (
        base,
        some_directions(base.config, k=4, seed=1, layers=[0, 2]),
        some_directions(base.config, 5, 2, layers=[1, 2]),
    )


@pytest.fixture
def model(parts):
    base, first, second = parts
    model = steered_copy(base, first, iti_alpha=1.5)
    model.set_iti_behaviour("typed", second, alpha=-0.5)
    return model


def reference(parts, ids, first, second):
    with ExitStack() as stack:
        for directions, alpha in zip(parts[1:], (first, second), strict=True):
            stack.enter_context(hooks(parts[0], directions, alpha))
        return logits(parts[0], ids)


def close(a, b):
    return torch.allclose(a, b, atol=2e-4)


def test_both_shifts_are_added_each_at_its_strength(model, parts, ids):
    assert model.iti_strengths == {"default": 1.5, "typed": -0.5}
    assert close(logits(model, ids), reference(parts, ids, 1.5, -0.5))
    model.set_iti({"default": 0.3, "typed": 2.0})
    assert close(logits(model, ids), reference(parts, ids, 0.3, 2.0))
    model.set_iti({"typed": 0})
    model.iti_alpha = 2.0
    assert close(logits(model, ids), reference(parts, ids, 2.0, 0.0))
    model.config.iti_behaviours["typed"]["alpha"] = 1.0
    assert close(logits(model, ids), reference(parts, ids, 2.0, 1.0))
    with model.disable_iti():
        assert torch.equal(logits(model, ids), logits(parts[0], ids))
    assert not close(reference(parts, ids, 2.0, 1.0), reference(parts, ids, 2.0, 0.0))


def test_a_name_given_in_the_config_and_an_entry_taken_out_of_it_are_followed(model, parts, ids):
    model.config.iti_behaviours["terse"] = {"file": "iti_directions.safetensors"}
    assert model.iti_strengths == {"terse": 1.5, "typed": -0.5}
    assert close(logits(model, ids), reference(parts, ids, 1.5, -0.5))
    assert close(logits(model, ids, iti_alpha={"terse": 0.3}), reference(parts, ids, 0.3, -0.5))
    del model.config.iti_behaviours["typed"]
    assert close(logits(model, ids), reference(parts, ids, 1.5, 0.0))


def test_a_name_goes_with_its_directions(parts, ids, tmp_path):
    """Another file, or none, in their place is called "default", and the old ones steer no more."""
    base, first, second = parts
    model = steered_copy(base, first, iti_alpha=1.5)
    model.config.iti_behaviours = {"terse": {"file": "iti_directions.safetensors"}}
    model.save_pretrained(tmp_path)
    second.save(tmp_path / "other.safetensors")
    other = ITILlamaForCausalLM.from_pretrained(tmp_path, iti_directions_file="other.safetensors", iti_alpha=0.3)
    assert other.iti_strengths == {"default": 0.3}
    assert close(logits(other, ids), reference((base, second, first), ids, 0.3, 0.0))
    assert ITILlamaForCausalLM.from_pretrained(tmp_path, iti_directions_file=None).iti_strengths == {}
    model.set_iti_directions(None)
    assert model.iti_strengths == {} and torch.equal(logits(model, ids), logits(base, ids))
    model.set_iti_directions(second)
    assert model.iti_strengths == {"default": 1.5}
    assert close(logits(model, ids), reference((base, second, first), ids, 1.5, 0.0))


def test_a_disabled_model_generates_as_plain_llama(model, parts, ids):
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    with model.disable_iti():
        assert torch.equal(model.generate(ids, **settings), parts[0].generate(ids, **settings))


def test_a_call_s_own_strengths_one_for_each_row_of_each_behaviour(model, parts, ids):
    typed = torch.tensor([0.0, 1.0, -2.0])
    assert close(logits(model, ids, iti_alpha={"typed": typed}), reference(parts, ids, 1.5, typed))
    assert close(logits(model, ids, iti_alpha={"typed": 1.0, "default": typed}), reference(parts, ids, typed, 1.0))
    assert close(logits(model, ids, iti_alpha=typed), reference(parts, ids, typed, -0.5))
    assert close(
        logits(model, ids, iti_alpha=torch.stack([typed, typed + 1], 1)), reference(parts, ids, typed, typed + 1)
    )
    assert torch.equal(logits(model, ids, iti_alpha={"typed": -0.5}), logits(model, ids))
    off = logits(model, ids, iti_alpha={"typed": 0.0, "default": 0.0})
    assert torch.equal(off, logits(parts[0], ids))


@pytest.mark.parametrize("scope", ["all", "generated"])
@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"use_cache": False}, {"cache_implementation": "static"}])
def test_rows_of_a_generation_are_those_of_each_alone(model, ids, scope, how):
    model.iti_scope = scope
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0} | how
    typed, own = torch.tensor([0.0, 1.5, -2.0]), torch.tensor([1.0, 0.0, 2.0])
    together = model.generate(
        ids, attention_mask=torch.ones_like(ids), iti_alpha={"typed": typed, "default": own}, **settings
    )
    for row in range(3):
        model.set_iti({"typed": float(typed[row]), "default": float(own[row])})
        alone = model.generate(ids[row : row + 1], attention_mask=torch.ones_like(ids[:1]), **settings)
        assert torch.equal(alone[0], together[row])


def test_merged_the_mix_is_one_bias(model, parts, ids):
    merged = model.merge_and_unload()
    assert close(logits(merged, ids), reference(parts, ids, 1.5, -0.5))


def test_a_repo_holds_them_and_gives_them_back(model, parts, ids, tmp_path):
    model.config.iti_behaviours["terse"] = {"file": "iti_directions.safetensors"}
    model.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["iti_behaviours"] == {
        "typed": {
            "file": "iti_directions.typed.safetensors",
            "alpha": -0.5,
            "top_k": None,
            "sha256": hashlib.sha256((tmp_path / "iti_directions.typed.safetensors").read_bytes()).hexdigest(),
        },
        "terse": {"file": "iti_directions.safetensors"},
    }
    loaded = ITILlamaForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    assert loaded.iti_strengths == {"terse": 1.5, "typed": -0.5}
    loaded.set_iti({"terse": 1.0, "typed": 0.0})
    assert close(logits(loaded, ids), reference(parts, ids, 1.0, 0.0))
    (tmp_path / "iti_directions.typed.safetensors").unlink()
    with pytest.raises(OSError, match="iti_directions.typed.safetensors"):
        ITILlamaForCausalLM.from_pretrained(tmp_path)


def test_beside_directions_that_came_after_loading(parts, ids, tmp_path):
    base, first, second = parts
    model = steered_copy(base, None, iti_directions_file=None)
    model.set_iti_directions(first)
    model.set_iti_behaviour("typed", second, alpha=-0.5)
    assert close(logits(model, ids), reference(parts, ids, 1.0, -0.5))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(ITILlamaForCausalLM.from_pretrained(tmp_path), ids), logits(model, ids))


def test_top_k_and_files_of_a_behaviour(model, parts, ids, tmp_path):
    base, first, second = parts
    model.set_iti_behaviour("typed", second, alpha=1.0, top_k=2)
    assert close(logits(model, ids), reference((base, first, second.top(2)), ids, 1.5, 1.0))
    model.load_iti_directions(second.save(tmp_path / "x.safetensors"), name="typed", alpha=1.0)
    assert close(logits(model, ids), reference(parts, ids, 1.5, 1.0))
    model.set_iti_behaviour("typed", None)
    assert model.iti_strengths == {"default": 1.5}
    assert close(logits(model, ids), reference(parts, ids, 1.5, 0.0))
    model.load_iti_directions(tmp_path / "x.safetensors")
    assert close(logits(model, ids), reference((base, second, first), ids, 1.5, 0.0))


def test_what_cannot_be_is_refused_and_changes_nothing(model, parts, ids):
    before, wrong = logits(model, ids), some_directions(tiny_llama(head_dim=16).config)
    for act, says in (
        (lambda: model.set_iti_behaviour("tiped", None), "no behaviour is called 'tiped'"),
        (lambda: model.set_iti({"tiped": 1.0}), "no behaviour is called 'tiped'; this model has default, typed"),
        (lambda: model.set_iti({"typed": float("nan")}), "expected a finite number"),
        (lambda: model.set_iti_behaviour("typed", wrong), "head_dim=16"),
        (lambda: model.set_iti_behaviour("a/b", parts[1]), "a name of at most 64 letters"),
        (lambda: model.set_iti_behaviour("default", parts[1]), "expected another name"),
        (lambda: model.set_iti_behaviour("more", parts[1], alpha="x"), "alpha is 'x'"),
        (lambda: model.set_iti_directions(None), "the behaviours typed are set beside it"),
        (lambda: logits(model, ids, iti_alpha={"typed": torch.ones(2)}), r"shape \[2\]; expected \[3\]"),
        (lambda: logits(model, ids, iti_alpha={"tiped": 1.0}), "no behaviour is called 'tiped'"),
        (lambda: model.generate(ids, iti_alpha={"typed": [1.0, 2.0]}), "one for each of 3 rows"),
    ):
        with pytest.raises(ValueError, match=says):
            act()
        assert torch.equal(logits(model, ids), before)
    plain = steered_copy(parts[0], None, iti_directions_file=None)
    with pytest.raises(ValueError, match="expected the default directions"):
        plain.set_iti_behaviour("typed", parts[1])
    model.config.iti_behaviours["ghost"] = {"file": "ghost.safetensors", "alpha": 1.0, "top_k": None}
    with pytest.raises(ValueError, match="ghost.*call model.load_iti_directions.PATH, 'ghost'"):
        logits(model, ids)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([], None),
        ({"a": {"file": "x/y"}}, "file is 'x/y'; expected a plain file name"),
        ({"a": {"alpha": "1"}}, "alpha is '1'"),
        ({"a": {"top_k": 0}}, "top_k is 0"),
        ({"a": {"strength": 1}}, "expected an object of file, alpha, top_k and sha256"),
        ({"a": {"file": "f.safetensors"}, "b": {"file": "f.safetensors"}}, "that of 'a'; expected one of its own"),
        ({"a": {"file": "iti_directions.safetensors", "alpha": 2.0}}, "iti_alpha and iti_top_k are its own"),
        ({"default": {}}, "other than 'default'"),
        ("x", "expected an object"),
    ],
)
def test_a_wrong_field_is_named(entries, says):
    if says is None:
        assert ITILlamaConfig(iti_behaviours=None).iti_behaviours == {}
        return
    with pytest.raises(ValueError, match=says):
        ITILlamaConfig(iti_behaviours=entries)
