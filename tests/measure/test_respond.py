"""Answers: what generate writes, or the log-odds of two texts, at each row's own strength."""

from dataclasses import replace

import pytest
import torch
from reference import hooks, tiny_tokenizer

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.measure.labelled_tasks import labelled_set
from iti_llama.toolkit.measure.respond import respond


ROWS = [Example(f"def {name}(x):\n", text, label, name) for name in "abc" for label, text in enumerate(("y\n", "x\n"))]


def log_probability(model, prompt: str, completion: str) -> float:
    tokenizer = tiny_tokenizer()
    start = tokenizer(prompt)["input_ids"]
    ids = torch.tensor([start + tokenizer(completion, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logs = model(ids).logits.double().log_softmax(-1)[0, :-1]
    return logs.gather(-1, ids[0, 1:, None])[len(start) - 1 :].sum().item()


def test_the_answer_to_a_pair_is_the_difference_of_two_scores(steered, base, tokenizer):
    tasks = labelled_set("x", ROWS, "# Be brief.", pairs=True)
    units = [(task, asked, alpha) for task in tasks.tasks for asked, alpha in ((False, 0), (False, 1.2), (True, -0.7))]
    counted = []
    answers = respond(steered, tokenizer, tasks, *zip(*units, strict=True), batch_size=6, progress=counted.append)
    for (task, asked, alpha), found in zip(units, answers, strict=True):
        prompt = ("# Be brief.\n" if asked else "") + task.prompt
        with hooks(base, steered.iti_directions, alpha):
            odds = log_probability(base, prompt, "x\n") - log_probability(base, prompt, "y\n")
        assert float(found) == pytest.approx(odds, abs=2e-4)
    assert sum(counted) == len(units)


def test_the_answer_to_a_prompt_is_what_a_plain_llama_with_hooks_generates(steered, base, tokenizer):
    tasks = replace(labelled_set("x", ROWS), max_new_tokens=12)
    answers = respond(steered, tokenizer, tasks, tasks.tasks, [False] * 3, [0, 1.2, -0.7])
    for task, alpha, found in zip(tasks.tasks, (0, 1.2, -0.7), answers, strict=True):
        ids = tokenizer(task.prompt, return_tensors="pt", return_token_type_ids=False)
        with hooks(base, steered.iti_directions, alpha):
            out = base.generate(**ids, max_new_tokens=12, do_sample=False)
        assert found == tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
