"""`sweep` of a fitted repo: pairs by default, a target, or a budget alone."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from iti_llama.toolkit.cli.sweep import confirmed_table, sweep_plot, sweep_table
from iti_llama.toolkit.foundation.intervals import estimate
from iti_llama.toolkit.measure.sweep import Point, Rates
from iti_llama.toolkit.measure.tasks import TaskSet


@pytest.fixture
def repo(fitted_dir, tmp_path):
    return Path(shutil.copytree(fitted_dir, tmp_path / "repo"))


def test_pairs_are_swept_within_a_kl_guard_and_the_choice_is_applied(run, repo, tmp_path):
    arguments = ["--alphas", "0.6,1.2,2.4", "--out", tmp_path / "out", "--confirm", "held-out:test", "--apply"]
    code, said, err = run("sweep", "--model", repo, *arguments)
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert (
        found["kl_guard"] == 0.25 and found["chosen"]["kl"] <= 0.25 and found["confirmed"]["tasks"] == "held-out:test"
    )
    assert json.loads((repo / "config.json").read_text())["iti_alpha"] == found["chosen"]["alpha"]
    assert f"alpha {found['chosen']['alpha']:g} (applied to" in said and "log-odds" in said
    table = said[: said.index("chosen:")]
    assert "…" not in table and max(map(len, table.splitlines())) <= 80
    assert str(tmp_path) not in json.dumps(found) and str(tmp_path) not in (repo / "README.md").read_text()


def test_without_alphas_strengths_go_in_even_steps_to_the_first_damage(run, repo, tmp_path):
    code, said, err = run("sweep", "--model", repo, "--out", tmp_path, "--perplexity-guard", 1.05, "--json")
    assert code == 0, err
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert json.loads(said) == found and found["perplexity_guard"] == 1.05
    alphas = [point["alpha"] for point in found["points"]]
    assert len(alphas) == 9 and all(round(alphas[1] * i - alpha, 2) == 0 for i, alpha in enumerate(alphas))
    inside = [point["kl"] <= 0.25 and point["perplexity"] <= 1.05 for point in found["points"]]
    assert inside[:7] == [True] * 7
    assert found["chosen"]["alpha"] in [alpha for alpha, kept in zip(alphas, inside, strict=True) if kept]


def test_the_table_of_a_confirmation_is_not_cut_at_80_columns(run, repo):
    code, said, err = run("sweep", "--model", repo, "--alphas", "1.2", "--confirm", "held-out:test")
    assert code == 0, err
    assert "…" not in said


@pytest.mark.parametrize("target", ["[a-z]_[a-z]", "x[/b]y", r"\[bold]"])
def test_the_tables_show_a_pattern_as_it_was_given(target):
    share = estimate([0, 1], ["a", "b"])
    rates = Rates(share, share, share)
    points = [Point(1, alpha, "all", rates, rates, None, 0.1, 0.1, 1.0) for alpha in (0.0, 1.0)]
    tasks = TaskSet("t[a]", "ab", target, None, None, {}, sound="intact")
    rows = [SimpleNamespace(condition=c, alpha=1, correct=share, target=share, target_change=share) for c in "ab"]
    printed = Console(width=200, file=io.StringIO())
    printed.print(sweep_plot(points, target, "intact"))
    printed.print(sweep_table(SimpleNamespace(points=points, best=points[1], why=""), tasks))
    printed.print(confirmed_table(rows, tasks))
    said = printed.file.getvalue()
    assert said.count(target) == 3 and "confirmed on t[a]" in said


def test_a_pattern_with_two_ends_of_lines_is_swept_and_drawn(run, repo, tmp_path):
    target, out = r"^    return$|^\w+ x$", tmp_path / "out"
    arguments = ["--target", target, "--alphas", "1.2", "--n", 3, "--max-new-tokens", 10, "--out", out]
    code, said, err = run("sweep", "--model", repo, *arguments)
    assert code == 0, err
    assert json.loads((out / "sweep.json").read_text())["target"] == f"matches {target}" in " ".join(said.split("\n"))
    assert (out / "figures" / "sweep.png").is_file()


def test_a_budget_needs_no_target_and_claims_no_effect(run, repo):
    code, said, err = run("sweep", "--model", repo, "--kl-budget", 0.02, "--apply")
    assert code == 0, err
    assert "This is a budget, not an effect" in " ".join(said.split())
    found = json.loads((repo / "sweep.json").read_text())
    assert json.loads((repo / "config.json").read_text())["iti_alpha"] == found["budget"]["alpha"]


def test_a_budget_needs_no_pairs_either(run, repo):
    """Rows of label 1 get prompts of their own, so that no prompt has completions of both labels."""
    path = repo / "labelled_set.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | {"prompt": row["prompt"] + "#" * row["label"]} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, said, err = run("sweep", "--model", repo, "--kl-budget", 0.02)
    assert code == 0, err
    assert "This is a budget, not an effect" in " ".join(said.split())


def test_a_budget_with_a_target_is_measured_against_the_control(run, repo):
    code, out, err = run("sweep", "--model", repo, "--kl-budget", 0.02, "--target", "labels", "--json")
    assert code == 0, err
    assert [point["alpha"] > 0 for point in json.loads(out)["points"]] == [False, True]


def test_prompts_without_a_target_are_refused(run, repo, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    code, _, err = run("sweep", "--model", repo, "--tasks", tmp_path / "t.jsonl")
    assert code == 2 and "do not say what is wanted; pass --target, or --kl-budget alone" in err


def test_a_target_that_cannot_be_read_is_refused(run, repo):
    for target, said in (("(", "a regular expression"), ("/nowhere/t.py:f", "there is no file /nowhere/t.py")):
        code, _, err = run("sweep", "--model", repo, "--target", target)
        assert code == 2 and said in err and "Traceback" not in err


def test_apply_needs_a_folder(run):
    code, _, err = run("sweep", "--model", "me/x", "--apply")
    assert code == 2 and "--apply writes a config.json, but me/x is not a folder" in err
