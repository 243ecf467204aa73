"""Every command on a model without a pad token, in its tokenizer or its config, as Llama 2 and 3.1 are."""

import json
import shutil
from pathlib import Path

import pytest
from reference import tiny_tokenizer
from taught import two_ways, unseen_tasks
from transformers import AutoTokenizer, LlamaForCausalLM

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import write_examples
from iti_llama.toolkit.space.steered import Asked, Steered


@pytest.fixture(scope="module")
def base(taught_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("no_pad") / "base"
    model, tokenizer = LlamaForCausalLM.from_pretrained(taught_dir), tiny_tokenizer()
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_examples(two_ways(), tmp_path_factory.mktemp("data") / "two_ways.jsonl")


@pytest.fixture(scope="module")
def repo(run, base, data, tmp_path_factory) -> Path:
    """What `run` makes with a target, so that it completes prompts of several lengths in one batch."""
    out = tmp_path_factory.mktemp("made") / "repo"
    words = ["--base", base, "--out", out, "--behaviour", "returns x", "--policy", "last", "--top-k", 6]
    tasks = ["--tasks", unseen_tasks(out.parent / "tasks.jsonl")]
    code, _, err = run("run", data, *words, "--alphas", 0.1, "--target", "return", "--max-new-tokens", 10, *tasks)
    assert code == 0, err
    return out


def test_run_measures_and_its_repo_has_no_pad_token_either(repo):
    evaluation = json.loads((repo / "evaluation.json").read_text())
    assert evaluation["alpha"] == 0.1 and evaluation["conditions"]
    assert AutoTokenizer.from_pretrained(repo).pad_token is None


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "--target", "return", "--alphas", "0.6", "--max-new-tokens", 8, "--n", 6],
        ["sweep", "--kl-budget", 0.05, "--n", 6],
        ["evaluate", "--target", "return", "--max-new-tokens", 8, "--n", 6],
        ["generate", "--prompt", "def f1(x):", "--compare", "--max-new-tokens", 8],
        ["demo", "--n", 1],
    ],
)
def test_the_command_works(run, repo, words):
    code, said, err = run(words[0], "--model", repo, *words[1:])
    assert code == 0 and said, err


def test_fit_and_export_with_a_canary_work(run, base, data, tmp_path):
    code, _, err = run("fit", "--data", data, "--base", base, "--out", tmp_path / "fitted", "--top-k", 6)
    assert code == 0, err
    words = ["--to", "llama", "--out", tmp_path / "plain", "--alpha", 2, "--canary-prompt", "def f1(x):\n"]
    code, _, err = run("export", "--model", tmp_path / "fitted", *words)
    assert code == 0, err
    assert (tmp_path / "plain" / "iti_canary.json").is_file()


def test_the_page_answers(repo, tmp_path):
    folder = shutil.copytree(repo, tmp_path / "repo")
    page = Steered(ITILlamaForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder))
    *_, answers = page.answers(Asked("def f1(x):\n", 1.0, "all", (0, 1), max_new_tokens=5))
    assert all(answer.text for answer in answers)
    assert len(page.curve(Asked("def f1(x):\n", 1.0, "all", (0,)), answers, [0.0, 1.0])) == 3
