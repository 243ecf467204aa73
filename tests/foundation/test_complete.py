"""Prompts completed in batches are those completed alone."""

import pytest
import torch
from reference import tiny_tokenizer
from tokenizers import processors

from iti_llama.toolkit.foundation.complete import complete, function_body


def test_each_prompt_gets_the_completion_it_has_alone_at_its_own_strength(steered):
    prompts, alphas = ["def f(x):", "a", "return x + y * z"], [0.0, 1.5, -2.0]
    together = complete(steered, tiny_tokenizer(), prompts, alphas, max_new_tokens=8)
    alone = [
        complete(steered, tiny_tokenizer(), [p], [a], max_new_tokens=8)[0]
        for p, a in zip(prompts, alphas, strict=True)
    ]
    assert together == alone and len(set(together)) == 3


@pytest.mark.parametrize("longest", [250, 254, 255])
def test_a_long_prompt_takes_no_room_from_the_short_ones_of_its_batch(steered, longest):
    """Every row against `generate` of that row alone, with what the model's 256 positions leave it."""
    prompts = ["def f(x):", "x" * (longest - 1), "y" * 245, "a", "x" * (longest - 1)]
    texts = complete(steered, tiny_tokenizer(), prompts, [1.5] * 5, max_new_tokens=9)
    for prompt, text in zip(prompts, texts, strict=True):
        ids = tiny_tokenizer()(prompt, return_tensors="pt", return_token_type_ids=False)["input_ids"]
        room = min(9, 256 - ids.shape[1])
        out = steered.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, do_sample=False)
        assert tiny_tokenizer().decode(out[0, ids.shape[1] :], skip_special_tokens=True) == text
    assert len(texts[0]) > 256 - longest


def test_a_prompt_without_tokens_is_counted(steered):
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    with pytest.raises(ValueError, match="1 of 2 prompts are empty"):
        complete(steered, tokenizer, ["a", ""])


@pytest.mark.parametrize("pad", [None, 97, 5])
def test_a_row_that_ends_early_is_the_same_without_a_pad_token_or_with_one_that_no_embedding_has(steered, pad):
    """Ends by "(", a token that the tokenizer does not call special: filling may not be read as text."""
    tokenizer, end = tiny_tokenizer(), tiny_tokenizer().convert_tokens_to_ids("(")
    prompts, alphas = ["def f(x):", "a", "return x + y * z", "b"], [0.0, 1.5, -2.0, 0.5]
    steered.generation_config.eos_token_id = [end, tokenizer.convert_tokens_to_ids("=")]
    want = [complete(steered, tokenizer, [p], [a], max_new_tokens=40)[0] for p, a in zip(prompts, alphas, strict=True)]
    assert len({len(text) for text in want}) > 1 and any(text.endswith(("(", "=")) for text in want)
    tokenizer.pad_token = None
    steered.config.pad_token_id = steered.generation_config.pad_token_id = pad
    assert complete(steered, tokenizer, prompts, alphas, max_new_tokens=40) == want
    assert tokenizer.pad_token is None


def test_a_prompt_that_fills_the_positions_is_counted_and_not_cut(steered):
    with pytest.raises(ValueError, match="1 of 2 prompts are longer than the model's 256 tokens"):
        complete(steered, tiny_tokenizer(), ["a", "x" * 300])


def test_a_completion_ends_with_the_function():
    assert function_body("    return 1\n\nprint(f())\n") == "    return 1\n"
    assert function_body("return 1\n    # more\n") == "return 1\n    # more\n"
