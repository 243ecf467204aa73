"""What a repo on disk says of itself."""

import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from steered import replace_directions

from iti_llama import ITIDirections
from iti_llama.toolkit.foundation.hashing import fingerprint_of
from iti_llama.toolkit.repo.card import write_card
from iti_llama.toolkit.repo.steered_repo import SteeredRepo, strengths_inside


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
    repo = SteeredRepo.open(fitted)
    assert (repo.does, repo.base_title, repo.base, repo.heads) == ("returns x", "taught", None, 6)
    assert repo.weights_from is not None
    assert repo.report["top_k"] == 6 and repo.sweep == repo.evaluation == {}
    assert not repo.is_measured and not repo.is_budgeted
    rows = [json.loads(line) for line in (fitted / "labelled_set.jsonl").read_text().splitlines()]
    assert {given for given, _ in repo.prompts} == {r["prompt"] for r in rows if r["meta"]["part"] != "fit"}


@pytest.mark.parametrize("fields", [{"iti_alpha": 1.5}, {"iti_top_k": 5}, {"iti_scope": "generated"}])
def test_an_evaluation_is_of_one_alpha_k_and_scope(measured, fields):
    assert SteeredRepo.open(measured).is_measured
    edit(measured, iti_top_k=6)
    assert SteeredRepo.open(measured).is_measured  # all of them, said otherwise
    edit(measured, **fields)
    assert not SteeredRepo.open(measured).is_measured


def test_an_evaluation_is_of_one_set_of_directions(measured):
    path = measured / "iti_directions.safetensors"
    directions = ITIDirections.load(path)
    replace_directions(measured, replace(directions, sigma=directions.sigma * 2))
    assert not SteeredRepo.open(measured).is_measured


def test_an_evaluation_by_an_earlier_version_called_its_checks_gates(measured):
    checks = [{"name": "utility", "passed": False, "why": "x"}]
    edit(measured, "evaluation.json", gates=checks)
    assert SteeredRepo.open(measured).evaluation["checks"] == checks
    assert SteeredRepo.open(measured).failed_checks == ["utility"]


def test_a_repo_is_read_without_torch_and_transformers(measured):
    script = """
        import sys
        sys.modules["torch"] = sys.modules["transformers"] = None
        from iti_llama.toolkit.repo.steered_repo import SteeredRepo
        repo = SteeredRepo.open(sys.argv[1])
        assert (repo.shipped, repo.is_measured) == ((1.0, 6, "all"), True)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script), measured], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_budget_is_of_one_alpha_k_and_scope(fitted):
    edit(fitted, iti_alpha=0.7)
    budget = {"budget": 0.1, "alpha": 0.7, "kl": 0.1, "top_k": 6, "scope": "all", "n": 8}
    (fitted / "sweep.json").write_text(json.dumps({"budget": budget}))
    assert SteeredRepo.open(fitted).is_budgeted
    edit(fitted, iti_alpha=0.8)
    assert not SteeredRepo.open(fitted).is_budgeted


def point(alpha: float, whole: float | None = 1.0, own: float = 1.0) -> dict:
    """A strength of a sweep. whole: the share of intact answers, None if none was given. own: that of answers to their
    own request."""
    at = None if whole is None else {"correct": {"mean": whole}}
    return {"alpha": alpha, "top_k": 6, "scope": "all", "kl": 0.1, "perplexity": 0.9, "at": at} | {
        "answering": None if whole is None else {"mean": own, "low": own - 0.02, "high": 1.0}
    }


def test_strengths_are_inside_up_to_the_first_that_loses_more_than_the_guards_allow():
    plain, mild = point(0.0), point(0.85)

    def inside(*points, chosen=None) -> list[float]:
        sweep = {"points": [plain, *points], "guard": 0.05, "perplexity_guard": 1.1, "chosen": chosen}
        return strengths_inside(sweep, 6, "all")

    assert inside(mild, point(1.0, own=0.93), point(1.2)) == [0.85]  # too many answers miss their request
    assert inside(mild, point(1.0, whole=0.94), point(1.2)) == [0.85]
    assert inside(mild, point(1.0, whole=None)) == [0.85]  # beyond the guard on perplexity nothing was answered
    chosen = point(1.1)
    assert inside(mild, point(1.0, own=0.93), chosen, point(1.2, own=0.9), chosen=chosen) == [0.85, 1.0, 1.1]
    plain["answering"]["low"] = 0.45  # plain answers are not told from others, so that guards nothing
    assert inside(mild, point(1.0, own=0.4)) == [0.85, 1.0]


def test_the_base_is_the_configs_or_else_the_cards_and_never_a_folder(fitted):
    assert SteeredRepo.open(fitted, base="me/given").base == "me/given"
    edit(fitted, base_model_name_or_path="meta/base")
    repo = SteeredRepo.open(fitted, base="me/given")
    assert (repo.base, repo.base_title) == ("meta/base", "base")
    edit(fitted, base_model_name_or_path=None)
    (fitted / "README.md").write_text("---\nbase_model:\n- me/carded\n---\n# x\n")
    assert SteeredRepo.open(fitted).base == "me/carded" and SteeredRepo.open(fitted).weights_from is None


@pytest.mark.parametrize("name", ["iti_report.json", "sweep.json", "evaluation.json"])
def test_a_file_that_cannot_be_read_is_named(fitted, name):
    (fitted / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name}: not JSON"):
        write_card(fitted)
    (fitted / name).write_text("[1]")
    with pytest.raises(ValueError, match=f"{name}: list; expected an object"):
        write_card(fitted)
