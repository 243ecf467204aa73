"""The model that the repo is: its bars, on fewer tasks than README.md's, and what a newcomer does with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.data.style import style_of
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.bundled_tasks import corpus_set
from iti_llama.toolkit.measure.conditions import Condition, random_directions
from iti_llama.toolkit.measure.evaluate import answer, evaluate
from iti_llama.toolkit.measure.score import Given, log_probabilities
from iti_llama.toolkit.measure.settings import Grid
from iti_llama.toolkit.measure.sweep import choose_point, sweep


@pytest.fixture(scope="module")
def model():
    return ITILlamaForCausalLM.from_pretrained(ROOT).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT)


@pytest.fixture(scope="module")
def tasks():
    return corpus_set("test", 60, seed=7)


def test_left_alone_it_solves_held_out_tasks_in_plain_style(model, tokenizer, tasks, sandbox):
    plain = answer(model, tokenizer, tasks, Condition("plain"), sandbox)
    assert sum(plain.correct) >= 0.95 * len(tasks)
    assert sum(plain.target) <= 0.2 * len(tasks)


def test_steered_it_solves_them_in_idiomatic_style(model, tokenizer, tasks, sandbox):
    conditions = [Condition("plain"), Condition("steered", model.iti_alpha)]
    rows, _ = evaluate(model, tokenizer, tasks, conditions, sandbox)
    assert rows[1].target.mean >= 0.8
    assert rows[1].correct_change.mean >= -0.05


def test_minus_alpha_makes_less_likely_what_a_header_asked_for(model, tokenizer, tasks):
    """Too little for a greedy answer to change, see examples/bundled_model/README.md; task by task the odds say it."""
    odds = []
    for alpha in (0.0, -model.iti_alpha):
        rows = [
            Given(tasks.asked(task), task.solutions[style] + "\n", alpha)
            for style in ("idiomatic", "plain")
            for task in tasks.tasks
        ]
        idiomatic, plain = torch.tensor(log_probabilities(model, tokenizer, rows)).view(2, -1)
        odds.append(idiomatic - plain)
    assert (odds[1] < odds[0]).float().mean() >= 0.9


def test_random_directions_of_equal_norm_do_not_do_it(model, tokenizer, tasks, sandbox):
    control = random_directions(model.iti_directions, seed=1)
    assert torch.equal(control.sigma, model.iti_directions.sigma)
    moved = answer(model, tokenizer, tasks, Condition("random", model.iti_alpha, control), sandbox)
    assert sum(moved.target) <= 0.25 * len(tasks)
    assert model.iti_directions is not control  # the model's own are back


def test_several_alphas_in_one_batch_are_the_alphas_alone(model, tokenizer, sandbox):
    tasks, alpha = corpus_set("validation", 12), model.iti_alpha
    heads = len(model.iti_directions)
    points = sweep(model, tokenizer, tasks, [heads], [alpha / 2, alpha], [model.iti_scope], sandbox)
    assert [point.alpha for point in points] == [0.0, alpha / 2, alpha]
    alone = answer(model, tokenizer, tasks, Condition("alone", alpha), sandbox)
    assert points[-1].at.target.mean == sum(alone.target) / 12
    assert choose_point(points, Grid()).alpha == alpha
    assert (model.iti_top_k, len(model.iti_directions)) == (None, heads)


@pytest.mark.parametrize("ending", ["", "\n", "\n    "])
def test_the_prompt_may_end_at_the_quotes_the_newline_or_the_indentation(model, tokenizer, ending):
    prompt = 'def is_prime(n):\n    """Check if a number is prime."""' + ending
    inputs = tokenizer(prompt, return_tensors="pt")
    for alpha, style in ((0.0, "plain"), (model.iti_alpha, "idiomatic")):
        text = tokenizer.decode(model.generate(**inputs, iti_alpha=alpha)[0], skip_special_tokens=True)
        assert style_of(text) == style, text
        assert text.startswith(prompt)


def in_a_new_process(program: str, installed: bool = True) -> subprocess.CompletedProcess:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300
    )


def test_a_pipeline_works_without_a_warning():
    run = in_a_new_process(
        "from transformers import pipeline\n"
        "pipe = pipeline('text-generation', model='.', trust_remote_code=True)\n"
        'prompt = \'def is_prime(n):\\n    """Check if a number is prime."""\\n\'\n'
        "print(pipe(prompt, do_sample=False)[0]['generated_text'])\n"
    )
    assert run.returncode == 0, run.stderr
    assert "return n > 1 and all(" in run.stdout
    said = [line for line in run.stderr.lower().splitlines() if "warn" in line or "iti" in line or "deprecat" in line]
    assert not said, run.stderr


def test_the_quick_start_of_the_readme_runs_as_it_stands():
    text = (ROOT / "README.md").read_text()
    program = next(block for block in text.split("```python\n")[1:] if 'repo = "."' in block).split("```", 1)[0]
    run = in_a_new_process(f"{program}\nprint(tokenizer.decode(model.generate(**inputs)[0]))")  # at the live strength
    assert run.returncode == 0, run.stderr
    steered, plain, live = run.stdout.split("def is_prime")[1:]
    assert "all(" in steered and "for i in range" in plain and "if " in plain
    assert "0.3 leaves this prompt's answer plain" in program and "for i in range" in live


def test_the_auto_classes_give_our_class_with_remote_code():
    model = AutoModelForCausalLM.from_pretrained(ROOT, trust_remote_code=True, device_map="auto", dtype="auto")
    assert type(model).__name__ == "ITILlamaForCausalLM"
    chosen = json.loads((ROOT / "sweep.json").read_text())["chosen"]
    assert (model.iti_alpha, len(model.iti_directions)) == (chosen["alpha"], chosen["top_k"])


def test_the_demo_shows_plain_and_steered_and_runs_the_tests(sandbox):
    run = subprocess.run(
        [sys.executable, "-m", "iti_llama.toolkit.cli", "demo", "--json"], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)
    assert len(rows) == 3 and "prime" in rows[0]["prompt"]
    for row in rows:
        assert row["plain"]["correct"] and row["plain"]["style"] == "plain"
        assert row["steered"]["correct"] and row["steered"]["style"] == "idiomatic"


def test_the_repo_is_small_and_says_where_its_directions_come_from():
    assert sum(path.stat().st_size for path in ROOT.glob("*.safetensors")) <= 16 << 20
    directions = ITIDirections.load(ROOT / "iti_directions.safetensors")
    report = json.loads((ROOT / "iti_report.json").read_text())
    assert directions.provenance["dataset_sha256"] == report["data"]["sha256"]
    assert report["supported"] is True
    config = json.loads((ROOT / "config.json").read_text())
    assert config["model_type"] == "iti_llama" and config["auto_map"]["AutoModelForCausalLM"].startswith(
        "modeling_iti_llama."
    )


def test_the_readme_is_a_valid_model_card():
    from huggingface_hub import ModelCard

    card = ModelCard.load(Path(ROOT, "README.md"))
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == (
        "apache-2.0",
        "text-generation",
        "transformers",
    )
    text = card.text
    assert text.index("make demo") < text.index("make test")
