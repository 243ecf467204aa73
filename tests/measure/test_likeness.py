"""Likeness: how likely the told model's answers are to a steered one, against an independent computation."""

import pytest
import torch
from reference import hooks, tiny_tokenizer

from iti_llama.toolkit.measure.likeness import Likeness, ToldAnswers


TEXTS = ToldAnswers(["def f(x):\n", "def g(y):\n"], ["# x\ndef f(x):\n", "# x\ndef g(y):\n"], ["return x", "yes"])


def nats_a_token(plain, prompts) -> float:
    """By plain transformers, text by text."""
    tokenizer, total, tokens = tiny_tokenizer(), 0.0, 0
    for prompt, answer in zip(prompts, TEXTS.answers, strict=True):
        start, ids = len(tokenizer(prompt)["input_ids"]), tokenizer(prompt + answer)["input_ids"]
        with torch.no_grad():
            logs = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
        total += sum(float(logs[at - 1, ids[at]]) for at in range(start, len(ids)))
        tokens += len(ids) - start
    return total / tokens


def test_it_is_the_share_of_the_way_from_plain_to_told(steered, base, directions):
    ends = Likeness.between(steered, tiny_tokenizer(), TEXTS)
    plain, told = nats_a_token(base, TEXTS.bare), nats_a_token(base, TEXTS.told)
    assert (ends.plain, ends.told) == pytest.approx((plain, told), rel=1e-4)
    with hooks(base, directions, 0.8):
        shifted = nats_a_token(base, TEXTS.bare)
    assert ends.of(steered, tiny_tokenizer(), 0.8) == pytest.approx((shifted - plain) / (told - plain), rel=1e-3)
    assert ends.of(steered, tiny_tokenizer(), 0.0) == pytest.approx(0, abs=1e-6)
