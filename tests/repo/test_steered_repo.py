"""What a repo on disk says of itself."""

import json
from dataclasses import replace

import pytest

from iti_llama import ITIDirections
from iti_llama.toolkit.foundation.hashing import fingerprint_of
from iti_llama.toolkit.repo.steered_repo import state_of


def edit(folder, name: str = "config.json", **fields) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def measured(fitted):
    directions = ITIDirections.load(fitted / "iti_directions.safetensors")
    found = {"alpha": 1.0, "heads": 6, "scope": "all", "directions": fingerprint_of(directions)[:16], "summary": []}
    (fitted / "evaluation.json").write_text(json.dumps(found))
    return fitted


def test_a_fitted_repo_has_a_report_and_held_out_prompts_and_no_measurement(fitted):
    state = state_of(fitted)
    assert (state.behaviour, state.name, state.base, state.adapter, state.heads) == (
        "returns x",
        "taught",
        None,
        True,
        6,
    )
    assert state.report["top_k"] == 6 and state.sweep == state.evaluation == {}
    assert not state.measured and not state.budgeted
    rows = [json.loads(line) for line in (fitted / "labelled_set.jsonl").read_text().splitlines()]
    assert {given for given, _ in state.prompts} == {r["prompt"] for r in rows if r["meta"]["part"] != "fit"}


@pytest.mark.parametrize("fields", [{"iti_alpha": 1.5}, {"iti_top_k": 5}, {"iti_scope": "generated"}])
def test_an_evaluation_is_of_one_alpha_k_and_scope(measured, fields):
    assert state_of(measured).measured
    edit(measured, iti_top_k=6)
    assert state_of(measured).measured  # all of them, said otherwise
    edit(measured, **fields)
    assert not state_of(measured).measured


def test_an_evaluation_is_of_one_set_of_directions(measured):
    path = measured / "iti_directions.safetensors"
    directions = ITIDirections.load(path)
    replace(directions, sigma=directions.sigma * 2).save(path)
    assert not state_of(measured).measured


def test_a_budget_is_of_one_alpha_k_and_scope(fitted):
    edit(fitted, iti_alpha=0.7)
    budget = {"budget": 0.1, "alpha": 0.7, "kl": 0.1, "top_k": 6, "scope": "all", "n": 8}
    (fitted / "sweep.json").write_text(json.dumps({"budget": budget}))
    assert state_of(fitted).budgeted
    edit(fitted, iti_alpha=0.8)
    assert not state_of(fitted).budgeted


def test_the_base_is_the_configs_or_else_the_cards_and_never_a_folder(fitted):
    assert state_of(fitted, "me/given").base == "me/given"
    edit(fitted, base_model_name_or_path="meta/base")
    state = state_of(fitted, "me/given")
    assert (state.base, state.name) == ("meta/base", "base")
    edit(fitted, base_model_name_or_path=None)
    (fitted / "README.md").write_text("---\nbase_model:\n- me/carded\n---\n# x\n")
    assert state_of(fitted).base == "me/carded" and not state_of(fitted).adapter


@pytest.mark.parametrize("name", ["iti_report.json", "sweep.json", "evaluation.json"])
def test_a_file_that_cannot_be_read_is_named(fitted, name):
    (fitted / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name}: no JSON"):
        state_of(fitted)
    (fitted / name).write_text("[1]")
    with pytest.raises(ValueError, match=f"{name}: list; expected an object"):
        state_of(fitted)
