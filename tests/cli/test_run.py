"""From a labelled file to a measured repo in one command, which goes on where it was killed."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from reference import tiny_tokenizer
from stopped import stopped_at
from taught import two_ways, unseen_tasks
from transformers import LlamaForCausalLM

from iti_llama import ITIDirections
from iti_llama.toolkit.data.labelled_set import write_examples
from iti_llama.toolkit.repo.push import Pushed


RESULTS = ("iti_report.json", "sweep.json", "evaluation.json", "README.md", "config.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_examples(two_ways(), tmp_path_factory.mktemp("data") / "two_ways.jsonl")


@pytest.fixture(scope="module")
def start(run, data, taught_dir):
    """A function: `run` of the labelled set on the taught model into a folder, with further options."""

    def call(out: Path, *options, rows: Path = data, base: Path = taught_dir):
        given = {"--base": base, "--out": out, "--behaviour": "returns x", "--policy": "last", "--top-k": 6}
        given |= {"--alphas": "0.6,1.2"}
        return run("run", rows, *(x for k, v in given.items() if k not in options for x in (k, v)), *options)

    return call


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A run that was never killed: (its folder, what it printed)."""
    out = tmp_path_factory.mktemp("whole") / "repo"
    code, said, err = start(out)
    assert code == 0, err
    return out, said


@pytest.fixture
def again(whole, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(whole[0], tmp_path / "repo"))


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def parts(folder: Path) -> dict[str, list[dict]]:
    rows = [json.loads(line) for line in (folder / "labelled_set.jsonl").read_text().splitlines()]
    return {part: [row for row in rows if row["meta"]["part"] == part] for part in ("fit", "validation", "test")}


def test_a_strength_is_chosen_and_measured_and_the_card_says_so(whole):
    out, said = whole
    sweep, evaluation, config = read(out, "sweep.json"), read(out, "evaluation.json"), read(out, "config.json")
    assert sweep["why"] == "" and sweep["chosen"]["alpha"] == config["iti_alpha"] == evaluation["alpha"] == 1.2
    card = ModelCard.load(out / "README.md")
    assert "# taught, steered: returns x\n" in card.text and "| steered (alpha 1.2) |" in card.text
    assert f"The strength was chosen on {sweep['n']} other tasks, held-out:validation." in card.text
    assert len(card.data.eval_results) == 2
    for line in (
        "1 of 3, fitted: ",
        "2 of 3, strength chosen on 8 tasks: alpha 1.2",
        "3 of 3, measured on 8 other tasks:",
    ):
        assert line in said
    assert not any(".cache" in path.name or path.name == "sweep_completions.jsonl" for path in out.parent.rglob("*"))


def test_before_it_starts_it_says_what_there_is_to_do(whole):
    line = next(line for line in whole[1].splitlines() if line.startswith("to do: "))
    assert whole[1].index(line) < whole[1].index("1 of 3")
    sweep = 8 * (2 * (1 + 2) + 3 * 2 * 2)  # tasks; bare at both signs; three random draws of two alphas at both signs
    measured = 8 * (6 + 4 * 2)  # plain, steered, minus, three random; four phrasings, plain and steered
    assert f"80 texts, then at most {sweep + measured} readings of a pair" in line
    tokenizer = tiny_tokenizer()
    lengths = [len(tokenizer(row.prompt + row.completion)["input_ids"]) for row in two_ways()]
    tokens = sum(lengths) / 80 * (80 + 2 * (sweep + measured))
    assert int(re.search(r"([\d,]+) tokens to read", line)[1].replace(",", "")) == pytest.approx(tokens, rel=0.02)
    assert re.search(r"about (a|[\d.]+) (minute|hour)s?\b.* [\d.]+ GiB", line)


def test_what_is_measured_on_was_neither_fitted_nor_chosen_on(whole):
    out, own = whole[0], parts(whole[0])
    groups = {part: {row["group"] for row in rows} for part, rows in own.items()}
    assert [len(found) for found in groups.values()] == [24, 8, 8]
    assert len(set.union(*groups.values())) == 40
    shown = {one["prompt"] for one in read(out, "evaluation.json")["examples"]}
    assert shown == {row["prompt"] for row in own["test"]}
    assert read(out, "sweep.json")["n"] == len({row["prompt"] for row in own["validation"]})


def test_the_directions_are_the_mean_differences_of_the_fitted_rows_alone(whole, taught_dir):
    """Activations captured here, from a plain Llama."""
    plain, tokenizer = LlamaForCausalLM.from_pretrained(taught_dir), tiny_tokenizer()
    directions = ITIDirections.load(whole[0] / "iti_directions.safetensors")
    layer, head = directions.heads[0].tolist()
    seen = []
    o_proj = plain.model.layers[layer].self_attn.o_proj
    handle = o_proj.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0][0, -1].double()))
    rows = parts(whole[0])["fit"]
    with torch.no_grad():
        for row in rows:
            plain(torch.tensor([tokenizer(row["prompt"] + row["completion"])["input_ids"]]))
    handle.remove()
    own = torch.stack(seen)[:, head * directions.head_dim : (head + 1) * directions.head_dim]
    labels = torch.tensor([row["label"] for row in rows])
    difference = own[labels == 1].mean(0) - own[labels == 0].mean(0)
    torch.testing.assert_close(directions.directions[0].double(), difference / difference.norm(), atol=1e-4, rtol=0)
    sigma = (own @ (difference / difference.norm())).std(correction=0)
    assert float(directions.sigma[0]) == pytest.approx(float(sigma), rel=1e-3)


def test_no_line_is_cut_at_80_columns(whole):
    said = whole[1]
    assert "…" not in said and "..." not in said
    table = said[said.index("3 of 3") :]
    assert "steered" in table and "plain" in table and "log-odds" in " ".join(table.split())


def test_no_file_that_is_pushed_holds_a_path_of_this_machine(whole, data, taught_dir):
    out = whole[0]
    for name in ("README.md", "iti_report.json", "sweep.json", "evaluation.json"):
        text = (out / name).read_text()
        assert not any(str(path.parent) in text for path in (out, data, taught_dir)), name


def test_a_second_run_does_nothing_again(start, again):
    times = {name: (again / name).stat().st_mtime_ns for name in RESULTS}
    code, said, err = start(again)
    assert code == 0, err
    assert {name: (again / name).stat().st_mtime_ns for name in RESULTS} == times
    assert "1 of 3, fitted before: " in said and "2 of 3, strength chosen on 8 tasks: alpha 1.2" in said


@pytest.mark.parametrize("bar,call", [(1, 8), (2, 1), (2, 2), (3, 1), (3, 8)])
def test_a_killed_run_goes_on_and_gives_the_same(bar, call, whole, start, tmp_path, monkeypatch):
    out = tmp_path / "repo"
    with monkeypatch.context() as patch:
        patch.setattr("iti_llama.toolkit.cli.run.progress_bar", stopped_at(bar, call))
        assert start(out)[0] != 0
    assert (out / "evaluation.json").exists() is False and (out / "iti_report.json").exists() == (bar > 1)
    code, _, err = start(out)
    assert code == 0, err
    for name in ("sweep.json", "evaluation.json", "config.json", "README.md"):
        assert (out / name).read_text() == (whole[0] / name).read_text(), name
    assert sorted(os.listdir(out)) == sorted(os.listdir(whole[0])) and os.listdir(tmp_path) == ["repo"]


def test_a_run_that_was_killed_between_its_files_goes_on(whole, start, again):
    sweep = read(again, "sweep.json")
    del sweep["asked"]  # as it is before the run has written what it was asked
    (again / "sweep.json").write_text(json.dumps(sweep))
    (again / "evaluation.json").unlink()
    code, _, err = start(again)
    assert code == 0, err
    for name in ("sweep.json", "evaluation.json", "README.md"):
        assert (again / name).read_text() == (whole[0] / name).read_text(), name


def test_other_data_or_settings_in_the_same_folder_are_refused_by_name(start, again, tmp_path):
    before = {name: (again / name).read_bytes() for name in RESULTS}
    other = write_examples([replace(row, completion=f"{row.completion} ") for row in two_ways()], tmp_path / "o.jsonl")
    for options, said in (
        ({"rows": other}, "holds a fit of another data"),
        (["--top-k", 5], "holds a fit of another settings"),
        (["--policy", "completion-mean"], "holds a fit of another policy"),
        (["--scope", "generated"], "holds a fit of another scope"),
        (["--behaviour", "says y"], "holds a fit of another about"),
    ):
        code, _, err = start(again, **options) if isinstance(options, dict) else start(again, *options)
        assert code == 2 and said in err and "choose another --out, or delete it" in err
    assert {name: (again / name).read_bytes() for name in RESULTS} == before


def test_another_base_in_the_same_folder_is_refused(start, again, taught_dir, tmp_path):
    other = Path(shutil.copytree(taught_dir, tmp_path / "other"))
    model = LlamaForCausalLM.from_pretrained(other)
    model.model.norm.weight.data.mul_(2)
    model.save_pretrained(other)
    code, _, err = start(again, base=other)
    assert code == 2 and "base" in err


def test_other_alphas_are_swept_and_measured_anew(start, again):
    code, said, err = start(again, "--alphas", "1")
    assert code == 0, err
    assert "1 of 3, fitted before" in said and read(again, "config.json")["iti_alpha"] == 1.0
    assert read(again, "evaluation.json")["alpha"] == 1.0
    assert "| steered (alpha 1) |" in (again / "README.md").read_text()


def test_what_was_chosen_is_pushed_and_where_nothing_was_nothing_is_measured_and_the_card_says_so(
    start, tmp_path, monkeypatch
):
    out, pushed = tmp_path / "repo", []

    def push(*args, **kwargs):
        pushed.append((args, kwargs))
        return Pushed("me/x", "c0ffee", None, ("config.json", "README.md"), None)

    monkeypatch.setattr("iti_llama.toolkit.repo.push.push", push)
    options = ["--self-contained", "--push", "me/x", "--private", "--token", "hf_secret"]
    code, said, err = start(out, *options)
    assert code == 0, err
    assert pushed == [((out, "me/x"), {"private": True, "token": "hf_secret"})]
    assert "me/x at c0ffee: 2 files" in said
    assert not any(b"hf_secret" in path.read_bytes() for path in out.rglob("*") if path.is_file())
    measured = (out / "evaluation.json").read_bytes()
    for _ in range(2):  # the second time from what the first has kept
        code, said, err = start(out, *options, "--kl-guard", 0)
        assert code == 2 and "no strength was chosen: no point beats plain inside the guard" in err
        assert "1 of 3" in said and "of 3, measured" not in said and "next:" not in said and len(pushed) == 1
    assert (out / "evaluation.json").read_bytes() == measured
    assert "No strength was chosen: no point beats plain" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "options,said",
    [
        (
            ["--push", "me/x", "--token", "hf_x"],
            "which nobody else can load; pass --self-contained, or",
        ),
        (
            ["--push", "me/x", "--self-contained"],
            "--push me/x, but there is no token: log in with",
        ),
        (["--push", "a/b/c", "--self-contained", "--token", "hf_x"], "Repo id must be"),
    ],
)
def test_a_push_that_cannot_be_is_refused_before_the_work(start, tmp_path, monkeypatch, options, said):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    code, out, err = start(tmp_path / "repo", *options)
    assert code == 2 and said in err and out == "" and not list(tmp_path.iterdir())


def test_a_target_takes_the_place_of_the_labels(start, whole, tmp_path):
    out = Path(shutil.copytree(whole[0], tmp_path / "repo"))
    for path in (*out.glob("completions*"), out / "sweep.json", out / "evaluation.json"):
        path.unlink()
    options = ["--tasks", unseen_tasks(tmp_path / "tasks.jsonl"), "--alphas", 0.1, "--max-new-tokens", 10]
    code, said, err = start(out, "--target", "^return", "--header", "x", *options)
    assert code == 0, err
    evaluation = read(out, "evaluation.json")
    assert (evaluation["target"], evaluation["sound"]) == ("matches ^return", "intact")
    assert "asked in words" in [row["condition"] for row in evaluation["conditions"]]
    assert "…" not in said and "matches ^return" in " ".join(said.split())


def test_another_target_in_the_same_folder_is_measured(start, again, tmp_path):
    options = ["--tasks", unseen_tasks(tmp_path / "tasks.jsonl"), "--alphas", 0.1, "--max-new-tokens", 10]
    code, _, err = start(again, "--target", "^return", "--kl-guard", 0.3, *options)
    assert code == 0, err
    assert read(again, "evaluation.json")["target"] == "matches ^return"


def test_a_target_or_tasks_whose_file_was_edited_are_measured_anew(start, again, tmp_path):
    tasks, check = unseen_tasks(tmp_path / "tasks.jsonl"), tmp_path / "check.py"
    options = ["--tasks", tasks, "--alphas", 0.1, "--target", f"{check}:good", "--max-new-tokens", 10]
    check.write_text("def good(prompt, completion):\n    return False\n")
    code, _, err = start(again, *options)
    assert code == 2 and "no strength was chosen" in err
    check.write_text("def good(prompt, completion):\n    return 'return' in completion\n")
    code, _, err = start(again, *options, "--kl-guard", 0.3)
    assert code == 0, err
    n = read(again, "sweep.json")["n"]
    tasks.write_text("".join(tasks.read_text().splitlines(keepends=True)[:20]))
    code, _, err = start(again, *options, "--kl-guard", 0.3)
    assert code == 0, err
    assert read(again, "sweep.json")["n"] == n // 2


def test_tasks_of_a_file_are_not_chosen_and_measured_on_at_once(start, again, tmp_path):
    tasks = unseen_tasks(tmp_path / "tasks.jsonl")
    for path in (*again.glob("completions*"), again / "sweep.json", again / "evaluation.json"):
        path.unlink()
    options = ["--tasks", tasks, "--alphas", 0.1, "--target", "return", "--max-new-tokens", 10]
    code, _, err = start(again, *options)
    assert code == 0, err
    assert read(again, "sweep.json")["n"] + read(again, "evaluation.json")["n"] == 40
    measured = {row["prompt"] for row in read(again, "evaluation.json")["examples"]}
    assert len(measured) == read(again, "evaluation.json")["n"]


def test_a_behaviour_is_asked_for_by_name(run, data, taught_dir, tmp_path):
    code, _, err = run("run", data, "--base", taught_dir, "--out", tmp_path / "repo")
    assert code == 2 and "--behaviour is missing; expected words" in err and not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    "options,said",
    [
        (["--base", "/nowhere"], "base /nowhere: no such folder"),
        (["--alphas", "0,1"], "expected positive numbers"),
        (["--top-k", "many"], "--top-k is 'many'"),
        (["--test-share", "1.5"], "test_share is 1.5; expected a share between 0 and 1"),
        (["--scope", "some"], "iti_scope is 'some'"),
        (["--target", "["], "--target is '['; expected a regular expression"),
        (["--target", "none.py:good"], "none.py"),
        (["--target", __file__], "expected a regular expression, or FILE.py:FUNCTION"),
        (["--target", ""], "--target is ''; expected a regular expression"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(start, tmp_path, options, said):
    code, _, err = start(tmp_path / "repo", *options)
    assert code == 2 and said in err and "Traceback" not in err and not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_named(start, tmp_path):
    code, _, err = start(tmp_path / "repo", rows=tmp_path / "none.jsonl")
    assert code == 2 and "none.jsonl: no such file; expected a labelled set" in err


def test_one_held_out_group_is_too_few_and_what_to_do_is_said(start, tmp_path):
    few = write_examples(two_ways(8), tmp_path / "few.jsonl")
    code, _, err = start(tmp_path / "repo", "--test-share", 0.1, rows=few)
    assert code == 2 and "add groups" in err
