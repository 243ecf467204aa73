"""Whether answers answer their own requests, as the real model sees it."""

import pytest
import torch
from reference import tiny_tokenizer
from transformers import AutoTokenizer

import iti_llama
from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.answering import answering


ANSWERS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "How do I boil an egg?": "Put the egg into boiling water for about nine minutes.",
    "Why is the sky blue?": "Air scatters blue light from the sun more than red light.",
    "Write a haiku about winter.": "Snow on silent roofs, the long night folds its white hands, a crow calls the sun.",
    "What is a good name for a cat?": "Whiskers is a good name for a cat.",
    "How many days has a week?": "A week has seven days, from Monday to Sunday.",
}


@pytest.fixture(scope="module")
def real():
    try:
        base = iti_llama.smollm2()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    folder = ROOT / "examples" / "smollm2" / "brief"
    model = ITILlamaForCausalLM.from_pretrained(folder, base_model_name_or_path=base, dtype=torch.bfloat16).eval()
    return model, AutoTokenizer.from_pretrained(base)


def test_own_answers_are_told_from_those_to_other_requests(real):
    requests, answers = map(list, zip(*ANSWERS.items(), strict=True))
    own = answering(*real, requests, answers)
    assert sum(own) >= 5.5 and all(share in (1 / 3, 2 / 3, 1.0) for share in own)
    assert sum(answering(*real, requests, answers[1:] + answers[:1])) <= 4
    assert answering(*real, requests, ["I do not know."] * len(requests)) == [0.5] * len(requests)


def test_what_cannot_be_compared_is_neither_yes_nor_no(steered):
    tokenizer = tiny_tokenizer()
    assert answering(steered, tokenizer, ["def f(x):"] * 3, ["return x"] * 3) == [0.5] * 3
    longest = "x" * steered.config.max_position_embeddings
    assert answering(steered, tokenizer, ["def f(x):", "def g(x):"], [longest, longest]) == [0.5] * 2
