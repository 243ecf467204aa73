"""docs/reference.md, "Errors": its lines are what is printed and raised."""

import re
import shutil
import sys

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError
from reference import tiny_tokenizer

from iti_llama.toolkit import cli
from iti_llama.toolkit.foundation.package import ROOT


@pytest.fixture
def documented() -> list[dict[str, str]]:
    """The errors of the commands, and those in Python: {what is done: what is said}."""
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.split("\n## Errors\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    return [dict(re.findall(r"^# (.+)\n(.+)$", block, re.MULTILINE)) for block in blocks]


@pytest.fixture
def printed(monkeypatch, capsys):
    """Runs a command that is refused; returns what it says."""

    def run(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["iti-llama", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        return capsys.readouterr().err.strip()

    return run


def test_the_errors_of_the_commands(documented, printed, steered, base_dir, tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise LocalTokenNotFoundError("no token")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HfApi, "create_repo", refused)
    shutil.copytree(base_dir, "base")
    steered.config.base_model_name_or_path = None
    steered.save_pretrained("repo")
    for folder in ("base", "repo"):
        tiny_tokenizer().save_pretrained(folder)
    row = '{"prompt": "a", "completion": "b", "label": 1, "group": "1"}\n'
    (tmp_path / "labels.jsonl").write_text(row, encoding="utf-16")
    fit = ("fit", "--data", "labels.jsonl", "--out", "new", "--base")
    missing, bare = "fit, convert: --base ./x, which is not there", "evaluate, sweep: no --tasks"
    said = {
        "fit, with labels.jsonl in UTF-16": printed(*fit, "base"),
        missing: printed(*fit, "./x"),
        f"{bare}, and a repo that keeps no labelled set": printed("evaluate", "--model", "repo"),
        "push, without a token": printed("push", "repo", "me/mine"),
    }
    assert said == documented[0]
    assert printed("convert", "repo", "--base", "./x", "--out", "new") == said[missing]
    assert printed("sweep", "--model", "repo") == documented[0][f"{bare}, and a repo that keeps no labelled set"]


def test_the_errors_in_python(documented, steered, ids):
    peft = pytest.importorskip("peft")

    def raised(call) -> str:
        with pytest.raises((ValueError, TypeError)) as error:
            call()
        return f"{error.type.__name__}: {error.value}"

    said = {
        'model.generate(**inputs, iti_alpha="0.5")': raised(lambda: steered.generate(ids, iti_alpha="0.5")),
        "model.generate(**inputs, iti_alpha=True)": raised(lambda: steered.generate(ids, iti_alpha=True)),
        "model(**inputs, iti_aplha=3)": raised(lambda: steered(ids, iti_aplha=3)),
    }
    peft.get_peft_model(steered, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    said["model.merge_and_unload(), with a LoRA on the model"] = raised(steered.merge_and_unload)
    assert said == documented[1]
