"""Measuring: against independent computations, resumable, and honest about nothing."""

import json
import math
import random
import sys
import textwrap
from itertools import combinations

import numpy as np
import pytest
import torch

from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure import evaluate as module
from iti_llama.toolkit.measure.bundled_tasks import corpus_set, frozen_tasks
from iti_llama.toolkit.measure.conditions import Condition
from iti_llama.toolkit.measure.evaluate import Answers, answer
from iti_llama.toolkit.measure.grade import Grade
from iti_llama.toolkit.measure.saved_completions import SavedCompletions
from iti_llama.toolkit.measure.score import Given, log_probabilities


def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples():
    rng = random.Random(0)
    flags = [rng.random() < 0.4 for _ in range(12)]
    answers = Answers("x", 6, [""] * 12, [Grade(flag, "plain", False) for flag in flags])
    for k in (1, 2, 5):
        for task, value in enumerate(answers.pass_at(k)):
            own = flags[6 * task : 6 * task + 6]
            expected = np.mean([any(choice) for choice in combinations(own, k)])
            assert value == pytest.approx(expected)
    assert math.isclose(answers.pass_at(1)[0], sum(flags[:6]) / 6)


def test_a_killed_evaluation_goes_on_and_gives_the_same(bundled, sandbox, tmp_path, monkeypatch):
    model, tokenizer = bundled
    tasks, condition = corpus_set("validation", 6, seed=3), Condition("steered", model.iti_alpha)
    settings = {"seed": 1}
    kwargs = {"samples": 2, "temperature": 1.0, "batch_size": 4, "seed": 1}
    whole = answer(
        model, tokenizer, tasks, condition, sandbox, store=SavedCompletions(tmp_path / "a.jsonl", settings), **kwargs
    )

    respond, calls = module.respond, []

    def killed(*args, **kw):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        return respond(*args, **kw)

    monkeypatch.setattr(module, "respond", killed)
    with pytest.raises(KeyboardInterrupt):
        answer(
            model,
            tokenizer,
            tasks,
            condition,
            sandbox,
            store=SavedCompletions(tmp_path / "b.jsonl", settings),
            **kwargs,
        )
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"condition": "steered", "ind')  # cut off in the middle of a row
    monkeypatch.setattr(module, "respond", lambda *args, **kw: calls.append(1) or respond(*args, **kw))
    torch.manual_seed(12345)
    again = answer(
        model, tokenizer, tasks, condition, sandbox, store=SavedCompletions(tmp_path / "b.jsonl", settings), **kwargs
    )
    assert again.completions == whole.completions and len(calls) == 3
    with pytest.raises(ValueError, match="another run"):
        SavedCompletions(tmp_path / "b.jsonl", {"seed": 2})
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 13


def test_lm_evaluation_harness_steers_the_repo_as_it_is(bundled, tmp_path):
    """The harness's own model type, with remote code, prefers the completions that this repo's own scores do."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    import os
    import subprocess

    tasks = [t for t in frozen_tasks("test") if ":any:" in t.group or ":all:" in t.group][:8]
    (tmp_path / "style.jsonl").write_text("".join(json.dumps({"prompt": task.prompt}) + "\n" for task in tasks))
    (tmp_path / "style.yaml").write_text(
        textwrap.dedent(f"""
            task: iti_style
            dataset_path: json
            dataset_kwargs:
              data_files: {{test: {tmp_path}/style.jsonl}}
            test_split: test
            output_type: multiple_choice
            doc_to_text: "{{{{prompt}}}}"
            doc_to_choice: ["for", "return"]
            doc_to_target: 1
            target_delimiter: ""
            metric_list:
              - metric: acc
        """)
    )
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", "iti_style", "--device", "cpu"]
    command += ["--model_args", f"pretrained={ROOT},trust_remote_code=True,iti_alpha=1.0"]
    command += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    (result,) = (tmp_path / "out").rglob("results*.json")
    share = json.loads(result.read_text())["results"]["iti_style"]["acc,none"]
    ours = {}
    for alpha in (0.0, 1.0):
        rows = [Given(task.prompt, text, alpha) for task in tasks for text in ("for", "return")]
        scores = log_probabilities(*bundled, rows)
        ours[alpha] = sum(b > a for a, b in zip(scores[::2], scores[1::2], strict=True)) / len(tasks)
    assert share == ours[1.0] > ours[0.0] + 0.5
