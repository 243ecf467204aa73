"""Strengths of a request to vLLM: parsed strictly, inside what was measured, each with a cache of its own."""

import json
import time
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from reference import some_directions, tiny_config
from steered import steered_repo

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.iti_directions import ITIDirectionsError
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.vllm_plugin import (
    arguments_of,
    check_arguments,
    offsets_of,
    read_adapters,
    strengths_of_argument,
    strengths_of_model,
)


@pytest.fixture
def known(one_repo, tmp_path):
    export(one_repo, "vllm", tmp_path / "vllm", with_canary=False)
    return read_adapters(f"good={tmp_path / 'vllm'}")


@pytest.fixture
def two(known):
    return known | {"other": replace(known["good"], name="other", scope="generated")}


def test_a_name_is_a_strength(known):
    for name, strength in {
        "good": 1.5, "good@0.5": 0.5, "good@-1.5": -1.5, "good@0": 0.0, "good@1e-1": 0.1, "good@+.5": 0.5,
        "good@1e+0": 1.0,
    }.items():  # fmt: skip
        assert strengths_of_model(name, known, False) == {"good": strength}
    assert strengths_of_model("other@1", known, False) is strengths_of_model("base", known, False) is None


BAD_NUMBERS = ["", "nan", "inf", "1e999", "0x1", " 1", "1 ", "1_0", "\u0660.\u0665", "1@1", "1,2", "1+", "1+other"]


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_what_is_no_number_is_refused(number, known):
    with pytest.raises(ValueError, match="good"):
        strengths_of_model(f"good@{number}", known, True)
    with pytest.raises(ValueError, match="vllm_xargs"):
        strengths_of_argument(f"good={number}", known, True)


@pytest.mark.parametrize("number", ["1.6", "-9", "1e38"])
def test_what_was_not_measured_is_refused_and_the_answer_says_what_was(number, known):
    for parse, value in ((strengths_of_model, f"good@{number}"), (strengths_of_argument, f"good={number}")):
        with pytest.raises(ValueError, match=r"from -1\.5 to 1\.5, which was not measured") as refused:
            parse(value, known, False)
        assert f"is {float(number)}" in str(refused.value)
        assert parse(value, known, True) == {"good": float(number)}
    allowed = replace(known["good"].allowed, measured=True)
    measured = {"good": replace(known["good"], allowed=allowed)}
    with pytest.raises(ValueError, match=r"from -1\.5 to 1\.5, no stronger than what .* measured"):
        strengths_of_model(f"good@{number}", measured, False)


def test_a_strength_that_float32_cannot_hold_is_refused_where_any_is_allowed(known):
    with pytest.raises(ValueError, match="finite"):
        strengths_of_model("good@1e39", known, True)


def test_several_are_named_each_once(two):
    wanted = {"good": 0.5, "other": -1.0}
    for name in ("good@0.5+other@-1", "other@-1+good@.5", "other@-1.0+good@+5e-1", "good@5e-1+other@-1e+0"):
        assert strengths_of_model(name, two, False) == wanted
    assert strengths_of_argument("good=0.5,other=-1", two, False) == wanted
    for name in ("good@0.5+third@1", "good@0.5+other", "good@0.5+other@-1+good@0.1", "good@0.5+", "+good@1"):
        with pytest.raises(ValueError):
            strengths_of_model(name, two, False)
    for text in ("good=0.5,third=1", "good=0.5,", "good=0.5,good=0.1", ",", "good"):
        with pytest.raises(ValueError, match="vllm_xargs"):
            strengths_of_argument(text, two, False)


def test_a_number_alone_is_for_a_server_of_one_adapter(known, two):
    for value in (0.5, "0.5", ".5"):
        assert strengths_of_argument(value, known, False) == {"good": 0.5}
        with pytest.raises(ValueError, match="good, other"):
            strengths_of_argument(value, two, False)
    for value in (True, None, [0.5], {"good": 0.5}, float("nan")):
        with pytest.raises(ValueError, match="vllm_xargs"):
            strengths_of_argument(value, known, False)


def test_equal_strengths_share_a_cache_and_no_others_do(known):
    spellings = ["good@0.5", "good@0.50", "good@.5", "good@+5e-1", f"good@0.5{'0' * 300}"]
    salts = {arguments_of(strengths_of_model(name, known, False), known)[1] for name in spellings}
    assert len(salts) == 1
    names = ["good@0.5", "good@-0.5", "good@0.500001", "good"]
    salts = [arguments_of(strengths_of_model(name, known, False), known)[1] for name in names]
    assert len(set(salts)) == 4
    changed = replace(known["good"].behaviours[0], sha256="0" * 64)
    others = {"good": replace(known["good"], behaviours=(changed,))}
    assert arguments_of({"good": 0.5}, others)[1] != arguments_of({"good": 0.5}, known)[1]
    assert all(len(salt) <= 128 and not set(salt) & set("@/\\\0") for salt in salts)  # what vLLM takes


def test_nothing_steered_is_plain_with_its_own_salt(known):
    for name in ("good@0", "good@-0", "good@0e9"):
        assert arguments_of(strengths_of_model(name, known, False), known) == ({}, None)
    assert arguments_of({}, known, "mine") == ({}, "mine")
    assert arguments_of({"good": 0.5}, known, "mine")[1] not in ("mine", arguments_of({"good": 0.5}, known)[1])


def test_no_client_chooses_the_salt_of_a_strength(known):
    _, salt = arguments_of({"good": 0.5}, known)
    for given in (salt, "iti-", 5):
        with pytest.raises(ValueError, match="cache_salt"):
            arguments_of({}, known, given)


def test_in_scope_generated_nothing_is_shared(two):
    assert arguments_of({"other": 0.5}, two)[1] != arguments_of({"other": 0.5}, two)[1]
    assert arguments_of({"other": 0.0}, two) == ({}, None)


def test_the_engine_takes_what_was_given_a_salt_and_nothing_else(known):
    arguments, _ = arguments_of({"good": 0.5}, known)
    assert check_arguments(arguments, known, False) == {"good": 0.5}
    assert check_arguments(None, known, False) == check_arguments({"seed": 1}, known, False) == {}
    for wrong in (
        {"iti": "good=0.5"}, {"iti": 0.5}, {"iti": "good=0.5", "iti_salted": "guessed"}, {"iti_alpha": 0.5},
        {"iti_salted": ""}, arguments | {"iti": "good=9"}, arguments | {"iti_scope": "all"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="vllm_xargs"):
            check_arguments(wrong, known, False)


LONG = ["a" * 80_000, "good@" + "1" * 80_000, "good@1" + "+a" * 40_000, "good@1+" * 12_000, "good@" + "+" * 80_000,
        "good@1." + "0" * 80_000, "good" + "@" * 80_000, "good@1e" + "9" * 80_000]  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_a_long_name_is_refused_at_once(name, known):
    for parse in (strengths_of_model, strengths_of_argument):
        began = time.perf_counter()
        with pytest.raises(ValueError, match="characters; expected at most 512"):
            parse(name, known, True)
        assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize("unit", ["a", "a+", "+", "1", "good@", "good@1+", ".", "e+", "-", "good=", "good=1,"])
def test_what_a_name_costs_grows_with_its_length_alone(unit, known):
    for length in (512, 511, 256):
        text = (unit * 512)[:length]
        for parse in (strengths_of_model, strengths_of_argument):
            began = time.perf_counter()
            with suppress(ValueError):
                parse(text, known, True)
            assert time.perf_counter() - began < 0.05


def test_the_offsets_are_those_of_the_directions(known, one_repo):
    directions = ITIDirections.load(one_repo / "iti_directions.safetensors")
    found = offsets_of(known, tiny_config())
    assert found.keys() == directions.offsets().keys()
    for layer, offset in directions.offsets().items():
        assert torch.equal(found[layer]["head"][0], offset) and found[layer].keys() == {"head"}


def test_a_mix_is_exported_with_its_shares(one_repo, tmp_path):
    model = ITILlamaForCausalLM.from_pretrained(one_repo)
    typed = some_directions(tiny_config(), k=5, seed=8, site="head")
    model.set_iti_behaviour("typed", typed, alpha=-0.5, top_k=3)
    model.save_pretrained(one_repo)
    export(one_repo, "vllm", tmp_path / "mix", with_canary=False)
    found = offsets_of(read_adapters(f"mix={tmp_path / 'mix'}"), tiny_config())
    first, second = model.iti_directions.offsets(), typed.top(3).offsets()
    for layer in first.keys() | second.keys():
        wanted = 1.5 * first.get(layer, torch.zeros(96)) - 0.5 * second.get(layer, torch.zeros(96))
        assert torch.allclose(1.5 * found[layer]["head"][0], wanted, atol=1e-6)


def test_directions_of_another_model_are_refused(known):
    with pytest.raises(ITIDirectionsError, match="made for a model with head_dim=24"):
        offsets_of(known, SimpleNamespace(**vars(tiny_config()) | {"head_dim": 16}))


@pytest.mark.parametrize("scope", ["all", "generated"])
def test_an_export_says_its_scope(scope, tmp_path):
    repo = steered_repo(tmp_path, scope=scope)
    export(repo, "vllm", tmp_path / "out", with_canary=False)
    assert read_adapters(f"x={tmp_path / 'out'}")["x"].about(1.0)["scope"] == scope
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("at every position, of the prompt too" in card) == (scope == "all")


@pytest.mark.parametrize("form", ["llama", "peft", "old", "no range", "no file", "another file", "no JSON", "scope"])
def test_a_folder_of_another_form_is_refused_when_the_server_starts(form, one_repo, tmp_path):
    export(one_repo, form if form in ("llama", "peft") else "vllm", tmp_path / "out", with_canary=False)
    record, file = tmp_path / "out" / "iti_export.json", tmp_path / "out" / "iti_directions.safetensors"
    fields = json.loads(record.read_text())
    if form == "no range":
        fields["range"] = [float("nan"), 1.0]
    elif form == "scope":
        fields["scope"] = "some"
    elif form == "old":
        del fields["behaviours"]
    elif form == "no file":
        file.unlink()
    elif form == "another file":
        some_directions(tiny_config(), seed=9).save(file)
    record.write_text("[1]" if form == "no JSON" else json.dumps(fields))
    with pytest.raises(ValueError, match=f"ITI_ADAPTERS: {tmp_path / 'out'}"):
        read_adapters(f"good={tmp_path / 'out'}")


def test_adapters_that_are_none_are_refused(tmp_path):
    for text in (f"name={tmp_path}", "name", f"a b={tmp_path}", f"{'a' * 65}={tmp_path}"):
        with pytest.raises(ValueError, match="ITI_ADAPTERS"):
            read_adapters(text)
    assert read_adapters("") == {}
