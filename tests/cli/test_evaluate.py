"""`evaluate` of a fitted repo: its held-out pairs, or prompts with a target; the card follows."""

import json
import shutil
from pathlib import Path

import pytest

from iti_llama.toolkit.foundation import sandbox


@pytest.fixture
def repo(fitted_dir, tmp_path):
    return Path(shutil.copytree(fitted_dir, tmp_path / "repo"))


def names(found: dict) -> list[str]:
    return [row["condition"] for row in found["conditions"]]


def test_held_out_pairs_are_measured_and_the_card_of_the_folder_says_so(run, repo, tmp_path):
    code, said, err = run("evaluate", "--model", repo, "--out", repo)
    assert code == 0, err
    found = json.loads((repo / "evaluation.json").read_text())
    assert found["tasks"] == "held-out:test" and "asked in words" not in names(found)
    assert "…" not in said and max(map(len, said[: said.index("held-out:test, 8 tasks")].splitlines())) <= 80
    card = (repo / "README.md").read_text()
    assert "| steered (alpha 1) |" in card and str(tmp_path) not in card and "iti-llama evaluate --model repo" in card


def test_checks_are_tried_on_demand_and_are_on_the_card(run, repo):
    code, said, err = run("evaluate", "--model", repo, "--out", repo, "--checks")
    assert code == 0, err
    checks = json.loads((repo / "evaluation.json").read_text())["checks"]
    assert [check["name"] for check in checks] == ["controllability", "utility", "robustness"]
    words, card = " ".join(said.split()), (repo / "README.md").read_text()
    for check in checks:
        verdict = "pass" if check["passed"] else "fail"
        assert f"{check['name']}: {verdict}: {check['why']}" in words and check["why"] in card


def test_a_header_adds_the_condition_that_asks_in_words(run, repo):
    code, out, err = run("evaluate", "--model", repo, "--header", "return x", "--json")
    assert code == 0, err
    rows = {row["condition"]: row for row in json.loads(out)["conditions"]}
    assert list(rows)[-2:] == ["asked in words", "asked in words, minus alpha"]
    assert rows["asked in words"]["measures"] != rows["plain"]["measures"]


def test_prompts_of_a_file_are_measured_by_a_target(run, repo, tmp_path):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"prompt": f"def f{i}(x):\n"}) + "\n" for i in range(4)))
    arguments = ["--tasks", tmp_path / "t.jsonl", "--target", "^(return|y)", "--max-new-tokens", 10]
    code, said, err = run("evaluate", "--model", repo, *arguments, "--out", tmp_path / "out")
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (found["tasks"], found["target"], found["sound"], found["n"]) == ("t", "matches ^(return|y)", "intact", 4)
    assert "…" not in said and "Not measured" in (repo / "README.md").read_text()


def test_a_pattern_is_printed_as_it_was_given(run, repo, tmp_path):
    pattern = r"[a-z]_[a-z]|x[/b]y|\[bold]|:x:"
    (tmp_path / "t[a].jsonl").write_text("".join(json.dumps({"prompt": f"def f{i}(x):\n"}) + "\n" for i in range(2)))
    arguments = ["--tasks", tmp_path / "t[a].jsonl", "--target", pattern, "--max-new-tokens", 4]
    code, said, err = run("evaluate", "--model", repo, *arguments)
    assert code == 0, err
    head, how = said[: said.index("plain")], " ".join(said.split())
    assert pattern in "".join(head.replace("\u2502", "").replace("\u2503", "").split()), head
    assert "t[a], 2 tasks" in how


def test_a_probe_says_how_good_it_is(run, repo):
    code, said, err = run("evaluate", "--model", repo, "--target", "probe", "--max-new-tokens", 8, "--n", 4)
    assert code == 0, err
    assert "The classifier (TF-IDF of the completion) is right on 100.0%" in " ".join(said.split())


def test_answers_are_as_long_as_was_asked(run, repo, tmp_path):
    arguments = ["--target", "x$", "--n", 4, "--out", tmp_path / "out", "--json"]
    lengths = []
    for length in (1, 12):
        code, out, err = run("evaluate", "--model", repo, *arguments, "--max-new-tokens", length)
        if length == 12:  # those in --out are shorter, and are not taken for these
            assert code == 2 and "holds the completions of another run" in err
            arguments[arguments.index("--out") + 1] = tmp_path / "other"
            code, out, err = run("evaluate", "--model", repo, *arguments, "--max-new-tokens", length)
        assert code == 0, err
        lengths.append(json.loads(out)["conditions"][0]["characters"]["mean"])
    assert lengths[1] > lengths[0]


def test_questions_that_are_too_long_are_named_before_anything_is_answered(run, repo, tmp_path):
    damage, out = tmp_path / "damage.jsonl", tmp_path / "out"
    rows = [{"prompt": "q " * n, "positive": " yes", "negative": " no"} for n in (1, 2, 2000)]
    damage.write_text("\n".join(map(json.dumps, rows)))
    code, _, err = run("evaluate", "--model", repo, "--checks", "--damage", damage, "--out", out)
    assert code == 2 and f"{damage}: 2 of 6 texts are longer than the model's" in err
    assert not list(out.glob("*completions*"))


@pytest.mark.parametrize(
    "options,said",
    [
        (["--samples", 2], "samples is 2; expected 1"),
        (["--tasks", "corpus:test", "--target", "labels"], "is 'labels', but corpus:test is not a labelled set"),
        (["--alpha", "nan"], "iti_alpha is nan"),
        (["--tasks", "none.jsonl"], "none.jsonl"),
    ],
)
def test_what_cannot_be_measured_is_refused(run, repo, options, said):
    code, _, err = run("evaluate", "--model", repo, *options)
    assert code == 2 and said in err and "Traceback" not in err


def test_a_repo_without_a_labelled_set_needs_tasks(run, repo):
    (repo / "labelled_set.jsonl").unlink()
    for command in ("evaluate", "sweep"):
        code, _, err = run(command, "--model", repo)
        assert code == 2 and "no --tasks, and the repo keeps no labelled_set.jsonl" in err


def test_a_machine_without_a_sandbox_measures_what_runs_no_program(run, repo, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "TOOLS", ("no-such-tool",))
    code, _, err = run("evaluate", "--model", repo, "--n", 4)
    assert code == 0, err
    (tmp_path / "check.py").write_text("def wanted(prompt, completion):\n    return True\n")
    for options in (["--tasks", "corpus:test"], ["--target", f"{tmp_path / 'check.py'}:wanted"]):
        code, _, err = run("evaluate", "--model", repo, "--n", 4, *options, "--out", tmp_path / "out")
        assert code == 2 and "the sandbox needs no-such-tool" in err
        assert not (tmp_path / "out").exists()  # nothing was answered before it was said
