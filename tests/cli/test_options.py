"""What the commands share: naming a model once, the behaviour in words, and what a record keeps of a command."""

import sys

import pytest

from iti_llama.toolkit.cli.options import ask_behaviour, command_line, load, one_repo


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
