"""A repo at a glance, without loading it."""

import json

import pytest

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
