"""Capture, against plain forward passes one text at a time."""

import pytest

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.positions import Policy, tokenize


def test_policies_keep_the_positions_they_name(tokenizer):
    example = Example("def f():\n", "x = 1\ny = 2\nreturn x\n", 1, "g")
    whole = tokenize(example, Policy("last"), tokenizer)
    prompt = tokenizer(example.prompt)["input_ids"]
    assert whole.first == len(whole.ids) - 1
    assert tokenize(example, Policy("completion-mean"), tokenizer).first == len(prompt)
    assert tokenize(example, Policy("fraction", 0.0), tokenizer).ids == prompt
    half = tokenize(example, Policy("fraction", 0.6), tokenizer)
    assert tokenizer.decode(half.ids).endswith("y = 2\n")
    assert tokenize(example, Policy("fraction", 1.0), tokenizer) == whole


@pytest.mark.parametrize("text", ["first", "fraction", "fraction 2", "fraction -1", "fraction 1.2.3", "fraction ."])
def test_an_unknown_policy_is_refused(text):
    with pytest.raises(ValueError, match="policy is"):
        Policy.parse(text)
