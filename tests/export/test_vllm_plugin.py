"""Strengths by name: parsed strictly, inside what was measured, never a strength that was not asked for."""

import json
import time

import pytest

from iti_llama.toolkit.export.adapters import export_vllm
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.source import open_source
from iti_llama.toolkit.export.vllm_plugin import (
    Strengths,
    lora_id,
    parse_mix,
    parse_strength,
    read_adapters,
    scale_adapter,
)


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


SPELLINGS = ["good@0.5", "good@0.50", "good@.5", "good@+5e-1", "good@00.5", f"good@0.5{'0' * 300}"]


def test_all_spellings_of_a_strength_are_one(known, tmp_path):
    strengths = Strengths(known, False, tmp_path / "made")
    name, folder = strengths.resolve("good@0.5")
    assert {strengths.resolve(spelling) for spelling in SPELLINGS} == {(name, folder)}
    assert json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] == 0.5
    zeros = {strengths.resolve(f"good@{zero}") for zero in ("0", "-0", "0.0", "0e9", f"0.{'0' * 300}")}
    assert len(zeros) == 1 and len(list((tmp_path / "made").iterdir())) == 2


def test_all_spellings_of_a_mix_are_one(known, one_repo, tmp_path):
    export(one_repo, "vllm", tmp_path / "other", with_canary=False)
    known = read_adapters(f"good={tmp_path / 'vllm'},other={tmp_path / 'other'}")
    strengths = Strengths(known, False, tmp_path / "made")
    names = ("good@0.5+other@-1", "other@-1+good@.5", "other@-1.0+good@+5e-1")
    assert len({strengths.resolve(name) for name in names}) == 1
    assert strengths.resolve("good@0.5+other@-1+good@0.1") is None


def test_a_server_makes_so_many_strengths_and_keeps_those_it_has(known, tmp_path, caplog):
    strengths = Strengths(known, False, tmp_path / "made", most=3)
    made = [strengths.resolve(f"good@{i / 1000}") for i in range(3)]
    assert len({lora_id(name) for name, _ in made}) == 3
    assert (
        all(strengths.resolve(f"good@{i / 1000}") is None for i in range(3, 40)) and "3 other strengths" in caplog.text
    )
    assert [strengths.resolve(f"good@{i / 1000}") for i in range(3)] == made
    assert len(list((tmp_path / "made").iterdir())) == 3


@pytest.mark.parametrize(
    "name",
    ["a" * 80_000, "a" * 80_000 + "@", "good@" + "1" * 80_000, "good@" + "1" * 80_000 + "x", "+a" * 40_000,
     "good@1+" * 12_000, "good@" + "+" * 80_000, "good@1." + "0" * 80_000, "@" * 80_000, "good@1e" + "9" * 80_000],
)  # fmt: skip
def test_a_long_name_is_refused_at_once(name, known):
    began = time.perf_counter()
    assert parse_mix(name, known, True) is None
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize("unit", ["a", "a+", "+", "1", "good@", "good@1+", ".", "e+", "-"])
def test_what_a_name_costs_grows_with_its_length_alone(unit, known):
    for length in (512, 511, 256):
        name = (unit * 512)[:length]
        began = time.perf_counter()
        parse_mix(name, known, True)
        assert time.perf_counter() - began < 0.05


def test_a_strength_that_float32_cannot_hold_is_refused_where_any_is_allowed(known):
    assert parse_strength("good@1e38", known, True)[1] == 1e38
    assert parse_strength("good@1e39", known, True) is None


@pytest.mark.parametrize("form", ["llama", "peft", "no range", "no weights", "no JSON"])
def test_a_folder_of_another_form_is_refused_when_the_server_starts(form, one_repo, tmp_path):
    export(one_repo, form if form in ("llama", "peft") else "vllm", tmp_path / "out", with_canary=False)
    record = tmp_path / "out" / "iti_export.json"
    if form == "no range":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"range": [float("nan"), 1.0]}))
    elif form == "no weights":
        (tmp_path / "out" / "adapter_model.safetensors").unlink()
    elif form == "no JSON":
        record.write_text("[1]")
    with pytest.raises(ValueError, match=f"ITI_ADAPTERS: {tmp_path / 'out'}"):
        read_adapters(f"good={tmp_path / 'out'}")


def test_adapters_that_are_none_are_refused(tmp_path):
    for text in (f"name={tmp_path}", "name", f"a b={tmp_path}", f"{'a' * 65}={tmp_path}"):
        with pytest.raises(ValueError, match="ITI_ADAPTERS"):
            read_adapters(text)
    assert read_adapters("") == {}
