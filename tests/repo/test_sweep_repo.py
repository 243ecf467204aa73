"""A sweep of a repo on disk: what it writes, what it applies, and what it goes on from."""

import json
from pathlib import Path

import pytest
from reference import tiny_tokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.foundation.intervals import estimate
from iti_llama.toolkit.measure.choose_strength import Grid
from iti_llama.toolkit.measure.keep_labelled_set import read_parts
from iti_llama.toolkit.measure.labelled_tasks import labelled_set
from iti_llama.toolkit.measure.sweep import Point, Rates
from iti_llama.toolkit.repo.sweep_repo import sweep_model, write_choice


GRID = Grid([0.6, 1.2], kl_guard=0.25)
ALL_RIGHT = Rates(*[estimate([1.0, 1.0], [0, 1])] * 3)


@pytest.fixture
def swept(fitted, tmp_path):
    """Sweeps `fitted`; what is found lands in a folder of its own."""
    model = ITILlamaForCausalLM.from_pretrained(fitted).eval()
    tasks = labelled_set("held-out:validation", read_parts(fitted, "validation"), pairs=True)

    def call(grid=GRID, **kwargs):
        kwargs = {"out": tmp_path / "out", "apply_to": fitted} | kwargs
        return sweep_model(model, tiny_tokenizer(), tasks, grid, None, **kwargs)

    return call


def config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_a_choice_is_written_applied_and_in_the_card(swept, fitted, tmp_path):
    found, choice = swept(command="iti-llama sweep")
    for folder in (tmp_path / "out", fitted):
        assert json.loads((folder / "sweep.json").read_text()) == json.loads(json.dumps(found))
        assert (folder / "figures" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert config(fitted)["iti_alpha"] == choice.best.alpha == found["chosen"]["alpha"] == 1.2
    card = (fitted / "README.md").read_text()
    assert "shifted by alpha = 1.2 standard deviations" in card and "\niti-llama sweep\n" in card
    assert not (tmp_path / "out" / "sweep_completions.jsonl").exists()
    assert (found["target"], found["sound"], found["n"]) == ("prefers label 1", "", 8)


def test_a_choice_that_is_not_made_leaves_the_config_and_is_in_the_card(swept, fitted):
    before = config(fitted)
    found, choice = swept(Grid([1.0], kl_guard=0.0))
    assert choice.best is None and found["chosen"] is None and config(fitted) == before
    assert "No strength was chosen: no point beats plain inside the guard" in (fitted / "README.md").read_text()


def test_without_a_folder_nothing_is_written(swept, fitted, tmp_path):
    files = {path: path.read_bytes() for path in fitted.rglob("*") if path.is_file()}
    swept(out=None, apply_to=None)
    assert {path: path.read_bytes() for path in fitted.rglob("*") if path.is_file()} == files
    assert not (tmp_path / "out").exists()


def test_a_budget_alone_is_applied_and_called_a_budget(swept, fitted, tmp_path):
    (fitted / "figures" / "sweep.png").write_bytes(b"of an earlier sweep")
    found, budget = swept(Grid([1.0], kl_budget=0.02), budget_alone=True)
    assert not (fitted / "figures" / "sweep.png").exists()
    assert found["budget"]["alpha"] == budget.alpha == config(fitted)["iti_alpha"] > 0
    assert "target" not in found and not (tmp_path / "out" / "figures").exists()
    card = (fitted / "README.md").read_text()
    assert f"alpha {budget.alpha:g} is the largest whose mean KL from the plain model stays within 0.02 nats" in card
    assert "That is a budget, not an effect" in card and "model-index" not in card


def test_the_figure_of_an_earlier_sweep_is_not_left_in_the_repo(swept, fitted):
    picture = fitted / "figures" / "sweep.png"
    picture.write_bytes(b"of an earlier sweep")
    swept(out=None)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_killed_sweep_of_a_repo_goes_on_and_applies_the_same(swept, fitted, tmp_path):
    whole, _ = swept(apply_to=None, out=tmp_path / "whole")
    steps = []

    def killed(step, rows):
        steps.append(step)
        if step == "control":
            raise KeyboardInterrupt

    before = (config(fitted), (fitted / "README.md").read_text())
    with pytest.raises(KeyboardInterrupt):
        swept(progress=killed)
    assert (config(fitted), (fitted / "README.md").read_text()) == before
    assert not (tmp_path / "out" / "sweep.json").exists() and not (fitted / "sweep.json").exists()
    found, _ = swept()
    assert found == whole and config(fitted)["iti_alpha"] == 1.2


def test_a_choice_is_written_into_the_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"iti_alpha": 1.0, "iti_scope": "all", "other": 5}))
    chosen = Point(4, 0.8, "generated", *[ALL_RIGHT] * 3, 0.0, 0.0, 1.0)
    write_choice(tmp_path, chosen, heads=8)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields == {"iti_alpha": 0.8, "iti_scope": "generated", "iti_top_k": 4, "other": 5}
    write_choice(tmp_path, chosen, heads=4)
    assert json.loads((tmp_path / "config.json").read_text())["iti_top_k"] is None
