"""Strengths by name: parsed strictly, inside what was measured, never a strength that was not asked for."""

import json

import pytest

from iti_llama.toolkit.export.adapters import export_vllm
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.source import open_source
from iti_llama.toolkit.export.vllm_plugin import parse_strength, read_adapters, scale_adapter


@pytest.fixture
def known(one_repo, tmp_path):
    export(one_repo, "vllm", tmp_path / "vllm", with_canary=False)
    return read_adapters(f"good={tmp_path / 'vllm'}")


def test_a_name_is_a_strength(known, tmp_path):
    for name, strength in {
        "good@0.5": 0.5,
        "good@-1.5": -1.5,
        "good@0": 0.0,
        "good@1e-1": 0.1,
        "good@+.5": 0.5,
    }.items():
        assert parse_strength(name, known, False) == (tmp_path / "vllm", strength)


@pytest.mark.parametrize(
    "name", ["good", "good@", "good@nan", "good@inf", "good@1e999", "good@0x1", "good@ 1", "good@1 ", "good@1_0",
             "other@1", "@1", "good@1.6", "good@-9", "good@\u0660.\u0665", "good@1@1", "good@1,2"],
)  # fmt: skip
def test_what_is_no_strength_or_was_not_measured_is_refused(name, known):
    assert parse_strength(name, known, False) is None


def test_a_server_may_allow_more(known, tmp_path):
    assert parse_strength("good@9", known, True) == (tmp_path / "vllm", 9.0)
    assert parse_strength("good@nan", known, True) is None


def test_the_adapter_at_a_strength_is_scaled_by_it(known, one_repo, tmp_path):
    made = scale_adapter(tmp_path / "vllm", -0.25, tmp_path / "made")
    config = json.loads((made / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["r"]) == (-0.25, 1)
    weights = (made / "adapter_model.safetensors").read_bytes()
    export_vllm(open_source(one_repo, alpha=-0.25), tmp_path / "again")
    assert weights == (tmp_path / "again" / "adapter_model.safetensors").read_bytes()


def test_adapters_that_are_none_are_refused(tmp_path):
    for text in (f"name={tmp_path}", "name", f"a b={tmp_path}"):
        with pytest.raises(ValueError, match="ITI_ADAPTERS"):
            read_adapters(text)
    assert read_adapters("") == {}
