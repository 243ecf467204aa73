"""The command line: what it prints, and how it refuses."""

import io
import json
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from reference import tiny_llama, tiny_tokenizer
from transformers import AutoTokenizer
from typer.testing import CliRunner

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit import cli
from iti_llama.toolkit.data.labelled_set import Example, write_examples
from iti_llama.toolkit.foundation.package import ROOT, __version__


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [
        Example(f"def f{i}(x):\n", "return x\n" if label else "y = 1\n", label, f"g{i}")
        for i in range(20)
        for label in (0, 1)
    ]
    return write_examples(rows, tmp_path_factory.mktemp("data") / "data.jsonl")


def test_every_command_says_what_it_does():
    help_ = CliRunner().invoke(cli.app, ["--help"])
    assert help_.exit_code == 0
    for name in (
        "run",
        "demo",
        "generate",
        "info",
        "dataset",
        "fit",
        "sweep",
        "evaluate",
        "convert",
        "push",
        "verify",
    ):
        assert name in help_.output
        assert CliRunner().invoke(cli.app, [name, "--help"]).exit_code == 0


def test_pairs_then_fit_then_info_then_generate(run, base, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    assert run("dataset", "pairs", "--out", pairs, "--groups", 12)[0] == 0
    code, out, err = run(
        "fit", "--base", base, "--data", pairs, "--out", tmp_path / "repo", "--policy", "fraction 0",
        "--top-k", 3, "--permutations", 19, "--folds", 3, "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["top_k"] == 3 and len(found["null"]["draws"]) == 19
    code, out, _ = run("info", tmp_path / "repo", "--json")
    told = json.loads(out)
    assert (code, told["form"], told["heads_in_use"]) == (0, "adapter", 3)
    code, out, _ = run(
        "generate", "--repo", tmp_path / "repo", "--prompt", "def f():", "--alpha", "2", "--compare",
        "--max-new-tokens", "4", "--json",
    )  # fmt: skip
    assert code == 0
    assert [row["alpha"] for row in json.loads(out)["completions"]] == [0.0, 2.0]


def test_fit_shows_the_table_and_the_verdict(run, base, data, tmp_path):
    code, out, _ = run(
        "fit", "--base", base, "--data", data, "--out", tmp_path / "r", "--permutations", 5, "--folds", 3
    )
    assert code == 0
    assert "…" not in out
    assert "training samples" in out and "No permutation null of 19 draws" in out.replace("\n", " ")


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["fit", "--data", "missing.jsonl"], "missing.jsonl"),
        (["fit", "--top-k", "many"], "--top-k is 'many'"),
        (["fit", "--policy", "middle"], "policy is 'middle'"),
        (["fit", "--alpha", "nan"], "iti_alpha is nan"),
        (["fit", "--scope", "some"], "iti_scope is 'some'"),
        (["fit", "--folds", "50"], "50 folds"),
        (["fit", "--base", "/nowhere"], "/nowhere: no such folder"),
        (["fit", "--model", "/nowhere"], "/nowhere: no such folder"),
        (["info", "/nowhere"], "/nowhere: no such folder"),
        (["info", "/nowhere", "--model", "/elsewhere"], "the model is given twice, /nowhere and --model /elsewhere"),
        (["verify", "/nowhere", "--model", "/elsewhere"], "the model is given twice"),
        (["verify"], "no model: give a Hub repo or a folder"),
        (["push", "a", "me/x", "--model", "b"], "2 folders; expected one: iti-llama push FOLDER OWNER/NAME"),
        (["push", "me/x"], "0 folders; expected one"),
        (["push", "/nowhere", "me/x"], "/nowhere: no such folder"),
        (["generate", "--repo", "/nowhere", "--prompt", "x"], "/nowhere: no such folder"),
        (["generate", "--model", "PLAIN", "--prompt", "x"], "has model_type 'llama'; expected 'iti_llama'"),
        (["evaluate", "--model", "PLAIN", "--tasks", "corpus:test"], "has model_type 'llama'; expected 'iti_llama'"),
        (["explain", "PLAIN"], "has model_type 'llama'; expected 'iti_llama'"),
        (["chat", "--model", "smollm2"], "smollm2 is a base, and not a steered repo"),
        (["fit", "--base", "EMPTY"], "no config.json in it; expected the folder of a Llama"),
        (["fit", "--out", f"{__file__}/x"], "nothing can be written into"),
        (["export", "PLAIN", "--to", "gguf", "--out", "x.gguf"], "--out is x.gguf; expected a folder"),
        (["sweep", "--model", "/nowhere"], "/nowhere: no such folder"),
        (["evaluate", "--model", "/nowhere"], "/nowhere: no such folder"),
        (["generate"], "--prompt"),
        (["evaluate", "--tasks", "corpus:train"], "corpus:train"),
        (["evaluate", "--gates"], "is --checks now"),
        (["run", "data.jsonl", "--no-gates"], "is --checks now, and --no-gates is --no-checks"),
        (["sweep", "--alphas", "1,x"], "--alphas is '1,x'; expected numbers separated by commas, or even"),
        (["sweep", "--perplexity-guard", "0.9"], "Invalid value for '--perplexity-guard'"),
        (["sweep", "--alphas", "0,1"], "expected positive numbers"),
        (["sweep", "--kl-budget", "0.1", "--scopes", "both", "--n", "2"], "one K and one scope"),
        (["dataset", "neocoder", "--source", "/nowhere", "--out", "x"], "no NeoCoder.json"),
    ],
)
def test_bad_input_ends_in_one_line_and_code_2(run, base, data, tmp_path, arguments, said):
    (tmp_path / "empty").mkdir()
    places = {"PLAIN": base, "EMPTY": tmp_path / "empty"}
    arguments = [places.get(word, word) for word in arguments]
    if arguments[0] == "fit":
        defaults = {"--base": base, "--data": data, "--out": tmp_path / "out"}
        named = {"--base" if word == "--model" else word for word in arguments}
        arguments = [*arguments, *(x for k, v in defaults.items() if k not in named for x in (k, v))]
    code, _, err = run(*arguments)
    assert code == 2
    assert said in err and "Traceback" not in err
    assert "\n" not in err.strip() or "Usage:" in err
    assert not (tmp_path / "out").exists()


def test_long_texts_are_refused_or_left_out_when_asked(run, base, data, tmp_path):
    long = tmp_path / "long.jsonl"
    row = {"prompt": "x" * 300, "completion": "y", "label": 0, "group": "g0"}
    long.write_text(data.read_text() + json.dumps(row) + "\n")
    arguments = ["fit", "--base", base, "--data", long, "--out", tmp_path / "out", "--permutations", 0, "--folds", 3]
    code, _, err = run(*arguments)
    assert code == 2 and "1 of 41 texts are longer than the model's 256 tokens" in err
    code, out, _ = run(*arguments, "--drop-long")
    assert code == 0 and "1 of 41 rows are longer" in out
    assert json.loads((tmp_path / "out" / "iti_report.json").read_text())["left_out"] == 1


def test_completions_of_other_weights_or_tasks_are_not_taken_for_these(run, tmp_path):
    model = ITILlamaForCausalLM.from_pretrained(ROOT)
    tokenizer = AutoTokenizer.from_pretrained(ROOT)
    for name in ("one", "other"):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        model.model.norm.weight.data.mul_(2)
    rows = [{"prompt": f"def f(n):\n    # {n}\n", "tests": [{"call": "f(2)", "value": 2}]} for n in range(2)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--tasks", tmp_path / "tasks.jsonl", "--n", 2, "--out", tmp_path / "out"]
    code, first, err = run("evaluate", "--repo", tmp_path / "one", *arguments)
    assert code == 0, err
    code, _, err = run("evaluate", "--repo", tmp_path / "other", *arguments)
    assert code == 2 and "another run" in err
    tasks = (tmp_path / "tasks.jsonl").read_text()
    (tmp_path / "tasks.jsonl").write_text(tasks.replace("def f(n)", "def f(m)"))
    code, _, err = run("evaluate", "--repo", tmp_path / "one", *arguments)
    assert code == 2 and "another run" in err
    (tmp_path / "tasks.jsonl").write_text(tasks)
    assert run("evaluate", "--repo", tmp_path / "one", *arguments)[:2] == (0, first)


def test_a_kl_budget_is_not_exceeded(run):
    code, out, err = run("sweep", "--kl-budget", 0.005, "--n", 4, "--json")
    assert code == 0, err
    found = json.loads(out)
    plain, point = found["points"]
    assert plain["alpha"] == 0 and point["alpha"] > 0 and 0.004 < point["kl"] <= 0.005


def test_the_command_is_installed():
    run = subprocess.run([sys.executable, "-m", "iti_llama.toolkit.cli", "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "demo" in run.stdout


def test_the_version_is_that_of_the_package(run):
    assert run("--version") == (0, f"iti-llama {__version__}\n", "")


def test_the_short_option_for_help_is_the_long_one(run):
    for command in ((), ("fit",), ("push",), ("dataset",)):
        code, out, _ = run(*command, "-h")
        assert code == 0 and out == run(*command, "--help")[1] and "Usage" in out


def test_the_model_is_an_argument_or_an_option(run, fitted_dir):
    for command in ("info", "verify"):
        as_argument = run(command, fitted_dir, "--json")
        assert as_argument[0] == 0, as_argument
        for option in ("--model", "--repo"):
            assert json.loads(as_argument[1]) == json.loads(run(command, option, fitted_dir, "--json")[1])


def test_info_cuts_nothing_off_at_80_columns(run, fitted_dir):
    code, out, _ = run("info", fitted_dir)
    assert code == 0 and "…" not in out
    assert json.loads(run("info", fitted_dir, "--json")[1])["provenance"]["dataset_sha256"] in "".join(out.split())


def test_fit_does_not_ask_where_nobody_can_answer(run, base, data, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("returns x\n"))
    out = tmp_path / "repo"
    code, _, err = run("fit", "--base", base, "--data", data, "--out", out, "--permutations", 0, "--folds", 3)
    assert code == 0 and "What does" not in err and sys.stdin.read() == "returns x\n"
    assert "# base" in (out / "README.md").read_text() and ", steered: " not in (out / "README.md").read_text()
    card = (out / "README.md").read_text()
    assert str(tmp_path) not in card and str(base.parent) not in card and "--out DIR" in card


def test_a_behaviour_is_the_title_of_the_card(run, base, data, tmp_path):
    said = ["--behaviour", "returns x", "--language", "code", "--hub-dataset", "me/data"]
    arguments = ["fit", "--base", base, "--data", data, "--permutations", 0, "--folds", 3, *said]
    code, _, err = run(*arguments, "--out", tmp_path / "repo")
    assert code == 0, err
    card = ModelCard.load(tmp_path / "repo" / "README.md")
    assert ", steered: returns x\n" in card.text
    assert card.data.language in ("code", ["code"]) and card.data.datasets == ["me/data"]
