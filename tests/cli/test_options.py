"""What the commands share: their options, naming a model once, the behaviour in words, and what a record keeps of a
command."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import neocoder_files
import pytest
import typer
from reference import tiny_tokenizer
from typer.testing import CliRunner

from iti_llama.toolkit.cli.app import app
from iti_llama.toolkit.cli.options import ask_behaviour, command_line, load, one_repo
from iti_llama.toolkit.export.canary import Canary, Way


def commands(group=None, before: tuple[str, ...] = ()) -> dict[str, typer.main.TyperCommand]:
    """Every command, by its words."""
    found = {}
    for name, command in (group or typer.main.get_command(app)).commands.items():
        words = (*before, name)
        found |= commands(command, words) if hasattr(command, "commands") else {" ".join(words): command}
    return found


OPEN_NONE = {"convert", "canary", "from-gguf", "dataset pairs", "dataset neocoder", "dataset neocoder-humans"}
"""Those that are given no model, steered or to be steered, by its name alone."""

LOAD_NONE = OPEN_NONE - {"convert", "canary"} | {"info", "push", "serve"}
"""Those that load none, or in one way alone."""


@pytest.mark.parametrize("name", commands())
def test_what_is_one_idea_is_one_option_on_every_command(name):
    options = {option for parameter in commands()[name].params for option in parameter.opts}
    expected = set() if name == "serve" else {"--quiet"}  # whose further options are the server's
    expected |= set() if name in OPEN_NONE else {"--model"}
    expected |= set() if name in LOAD_NONE else {"--device-map", "--dtype"}
    expected |= {"--limit"} if "--n" in options else set()
    expected |= set() if name in ("demo", "chat", "space", "serve") and "--json" not in options else {"--json"}
    assert expected <= options, f"{name} has no {', '.join(sorted(expected - options))}"


@pytest.mark.parametrize("name", commands())
def test_the_help_cuts_nothing_off_at_80_columns(name):
    found = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80"})
    assert found.exit_code == 0 and "…" not in found.output, found.output


def test_the_server_is_given_its_model_as_argument_or_option_and_its_own_options(run, monkeypatch, fitted_dir):
    given = []
    monkeypatch.setattr("iti_llama.toolkit.export.serve.serve", lambda *arguments: given.append(arguments))
    own = ["--port", "8000", "--continuous-batching"]
    for arguments in ([fitted_dir, *own], ["--model", fitted_dir, *own], [*own, "--repo", fitted_dir]):
        code, _, err = run("serve", *arguments)
        assert code == 0 and given.pop() == (str(fitted_dir), own, False), err
    code, _, err = run("serve", fitted_dir, *own, "--any-strength")
    assert code == 0 and given.pop() == (str(fitted_dir), own, True), err
    for arguments, said in (
        (["--port", "8000"], "no model: give a Hub repo or a folder"),
        ([fitted_dir, "--model", fitted_dir], "the model is given twice"),
    ):
        code, _, err = run("serve", *arguments)
        assert code == 2 and said in " ".join(err.split()) and not given


def test_export_and_canary_load_the_model_where_and_how_they_are_told(run, monkeypatch, fitted_dir, tmp_path):
    given = []
    monkeypatch.setattr("iti_llama.toolkit.export.export.export", lambda *a, **k: given.append(k) or (None, []))
    monkeypatch.setattr("iti_llama.toolkit.export.canary.read_canary", lambda path: CANARY)
    form = SimpleNamespace(continues=lambda ids, tokens: "b")
    monkeypatch.setattr("iti_llama.toolkit.export.forms.load_form", lambda *a, **k: given.append(k) or form)
    how = ["--device-map", "cpu", "--dtype", "bfloat16"]
    assert run("export", fitted_dir, "--out", tmp_path / "x", *how)[0] == 0
    code, said, _ = run("canary", tmp_path, *how)
    assert code == 3 and said.startswith("plain\nnext: ")
    assert [(one["device_map"], one["dtype"]) for one in given] == [("cpu", "bfloat16")] * 2


WAY = Way("a", [6], {})

CANARY = Canary("p", [1], 1.0, 1, 0, replace(WAY, text="b"), WAY)


def test_what_makes_data_says_what_is_next_or_json(run, tmp_path, base):
    base.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    out, groups = tmp_path / "pairs.jsonl", ["--groups", 2]
    code, said, _ = run("dataset", "pairs", "--out", out, *groups)
    assert code == 0 and said.endswith(f"next: iti-llama fit --base BASE --data {out} --out REPO\n")
    code, said, _ = run("dataset", "pairs", "--out", out, *groups, "--json")
    assert code == 0 and json.loads(said) == {"out": str(out), "rows": 4, "groups": 2, "behaviour": "idiomatic"}
    samples, source = tmp_path / "samples.jsonl", neocoder_files.write(tmp_path / "neocoder")
    arguments = [
        "dataset",
        "generate",
        "--model",
        tmp_path / "base",
        "--out",
        samples,
        "--source",
        source,
        "--limit",
        1,
    ]
    arguments += ["--n", 1, "--max-new-tokens", 2]
    code, said, err = run(*arguments)
    assert code == 0 and f"next: iti-llama dataset neocoder --machine {samples} --source {source}" in said, err
    code, said, _ = run(*arguments, "--json")
    assert code == 0 and json.loads(said) == {"out": str(samples), "rows": 1, "problems": 1}


def test_the_demo_is_of_any_steered_model(run, fitted_dir, sandbox):
    code, out, err = run("demo", "--model", fitted_dir, "--n", 1, "--json")
    assert code == 0, err
    (row,) = json.loads(out)
    assert row["alpha"] == 1.0 and row["steered"]["program"].startswith(row["prompt"])


def test_the_demo_cuts_no_program_short(run, sandbox):
    code, out, err = run("demo")  # of the three programs one has a long name
    assert code == 0 and "nonzero_mod_total_numbers" in out and "…" not in out, err


@pytest.mark.parametrize(
    "words,kept",
    [
        (["push", "x", "--token", "hf_abc"], "push x --token TOKEN"),
        (["push", "x", "--token=hf_abc"], "push x --token=TOKEN"),
        (["fit", "--data", "/home/me/d.jsonl"], "fit --data d.jsonl"),
        (["fit", "--data=/home/me/d.jsonl"], "fit --data=d.jsonl"),
        (["fit", "--data", "../secret/d.jsonl"], "fit --data d.jsonl"),
        (["fit", "--out", "/home/me/r", "--cache=/home/me/c"], "fit --out DIR --cache=DIR"),
        (["evaluate", "--target", "/home/me/t.py:wanted"], "evaluate --target t.py:wanted"),
        (["evaluate", "--target=/home/me/t.py:wanted"], "evaluate --target=t.py:wanted"),
        (["fit", "--base", "meta/base", "--data", "d/e.jsonl"], "fit --base meta/base --data d/e.jsonl"),
        (["fit", "--behaviour", "writes snake_case"], "fit --behaviour 'writes snake_case'"),
        (["sweep", "--target", "a=b"], "sweep --target a=b"),
    ],
)
def test_a_record_of_the_command_has_nothing_secret_and_no_folder(monkeypatch, words, kept):
    monkeypatch.setattr(sys, "argv", ["/home/me/bin/iti-llama", *words])
    assert command_line() == f"iti-llama {kept}"


def test_a_record_keeps_a_pattern_as_it_was_given(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["iti-llama", "evaluate", "--target", "//.*/$"])
    assert command_line() == "iti-llama evaluate --target '//.*/$'"


def test_a_model_is_given_once():
    assert one_repo("a", None) == one_repo(None, "a") == one_repo(None, None, "a") == "a"
    with pytest.raises(ValueError, match="the model is given twice, a and --model b; expected one"):
        one_repo("a", "b")
    with pytest.raises(ValueError, match="no model: give a Hub repo or a folder"):
        one_repo(None, None)


def test_a_behaviour_is_words_on_one_line():
    assert ask_behaviour(" returns x ", required=True) == "returns x"
    assert ask_behaviour(None) == ask_behaviour("") == ""  # nobody is there to ask
    for missing in (None, "", "  "):
        with pytest.raises(ValueError, match="--behaviour is missing; expected words"):
            ask_behaviour(missing, required=True)
    with pytest.raises(ValueError, match="expected some words on one line"):
        ask_behaviour("a\nb")


@pytest.mark.parametrize("repo", ["/nowhere", "./nowhere", "../no/where", "no/where/at/all"])
def test_a_folder_that_is_not_there_is_said_before_the_hub_is_asked(repo):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load(repo)
