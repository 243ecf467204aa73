"""A repo at a glance, without loading it."""

import json

import pytest
from reference import some_directions

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.repo.info import inspect


def test_what_a_repo_holds_is_told(adapter_dir, directions, base_dir):
    found = inspect(adapter_dir)
    assert (found.form, found.base, found.alpha, found.scope) == ("adapter", str(base_dir), 1.5, "all")
    assert found.heads_in_file == found.heads_in_use == 4
    layer, head = directions.heads[0].tolist()
    assert found.top_head == f"layer {layer}, head {head}, score 1.000" and head in found.heads_by_layer[layer]


def test_a_field_that_is_absent_has_the_default_it_loads_with(adapter_dir):
    path = adapter_dir / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in fields.items() if not k.startswith("iti_")}))
    found = inspect(adapter_dir)
    assert (found.alpha, found.scope, found.heads_in_use) == (1.0, "all", 4)


def test_what_is_no_steered_repo_is_named(adapter_dir, base_dir, tmp_path):
    with pytest.raises(ValueError, match="model_type 'llama'; expected 'iti_llama'"):
        inspect(base_dir)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        inspect(tmp_path)
    (adapter_dir / "iti_directions.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no iti_directions\.safetensors"):
        inspect(adapter_dir)


def _edit(path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def self_contained(steered, tmp_path):
    """A repo of two behaviours with its weights in it."""
    steered.config.base_model_name_or_path = None
    steered.set_iti_behaviour("second", some_directions(steered.config, k=6, seed=9), alpha=0.5)
    steered.save_pretrained(tmp_path / "repo")
    return tmp_path / "repo"


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "..\\x.safetensors", "a/../../x.safetensors"])
def test_nothing_outside_a_repo_is_read(self_contained, directions, name, tmp_path):
    directions.save(tmp_path / "x.safetensors")
    whole = (self_contained / "config.json").read_text()
    _edit(self_contained / "config.json", iti_directions_file=name, iti_directions_sha256=None)
    with pytest.raises(ValueError, match="iti_directions_file is"):
        inspect(self_contained)
    _edit(self_contained / "config.json", **json.loads(whole) | {"iti_behaviours": {"second": {"file": name}}})
    with pytest.raises(ValueError, match=r"iti_behaviours\['second'\]: file is"):
        inspect(self_contained)
    (self_contained / "config.json").write_text(whole)
    (self_contained / "model.safetensors").rename(tmp_path / "weights.safetensors")
    index = {"weight_map": {"model.layers.0.self_attn.o_proj.weight": "../weights.safetensors"}}
    (self_contained / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json: names '\.\./weights\.safetensors'"):
        inspect(self_contained)


def test_the_overlap_is_that_of_the_weights_that_are_loaded(self_contained):
    """Not of others that lie beside them, as of an earlier checkpoint."""
    told = inspect(self_contained)
    assert told.overlap_of == "shifts" and any(told.overlap["default and second"].values())
    other = ITILlamaForCausalLM.from_pretrained(self_contained)
    for layer in other.model.layers:
        layer.self_attn.o_proj.weight.data.flatten().copy_(layer.self_attn.o_proj.weight.data.flatten().flip(0) ** 3)
    other.save_pretrained(self_contained.parent / "other")
    (self_contained.parent / "other" / "model.safetensors").rename(self_contained / "model-before.safetensors")
    assert inspect(self_contained).overlap == told.overlap


@pytest.mark.parametrize("name", ["a" * 65, "a" * 200, "a" * 80_000, "\u00e9" * 64])
def test_a_name_that_cannot_be_saved_is_refused_in_few_words(self_contained, name):
    with pytest.raises(
        ValueError, match=r"^iti_behaviours\['.*expected a (name of at most 64|plain file name)"
    ) as error:
        ITILlamaForCausalLM.from_pretrained(self_contained, iti_behaviours={name: {}})
    assert len(str(error.value)) < 400
    model = ITILlamaForCausalLM.from_pretrained(self_contained)
    with pytest.raises(ValueError, match="expected a (name of at most 64|plain file name)"):
        model.set_iti_behaviour(name, model.iti_directions, alpha=1.0)
    assert list(model.iti_strengths) == ["default", "second"]


@pytest.mark.parametrize("name", ["a" * 64, "h\u00f6flich"])
def test_a_name_that_is_accepted_can_be_saved(self_contained, name, tmp_path):
    model = ITILlamaForCausalLM.from_pretrained(self_contained)
    model.set_iti_behaviour(name, model.iti_directions, alpha=1.0)
    model.save_pretrained(tmp_path / "saved")
    assert list(ITILlamaForCausalLM.from_pretrained(tmp_path / "saved").iti_strengths) == [
        "default",
        *sorted(("second", name)),
    ]
    assert len(ITIDirections.load(tmp_path / "saved" / f"iti_directions.{name}.safetensors")) == 4
