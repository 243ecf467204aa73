"""Prompts completed in batches are those completed alone."""

import pytest
from reference import tiny_tokenizer

from iti_llama.toolkit.foundation.complete import complete, function_body


def test_each_prompt_gets_the_completion_it_has_alone_at_its_own_strength(steered):
    prompts, alphas = ["def f(x):", "a", "return x + y * z"], [0.0, 1.5, -2.0]
    together = complete(steered, tiny_tokenizer(), prompts, alphas, max_new_tokens=8)
    alone = [
        complete(steered, tiny_tokenizer(), [p], [a], max_new_tokens=8)[0]
        for p, a in zip(prompts, alphas, strict=True)
    ]
    assert together == alone and len(set(together)) == 3


def test_a_prompt_that_fills_the_positions_is_counted_and_not_cut(steered):
    with pytest.raises(ValueError, match="1 of 2 prompts are longer than the model's 256 tokens"):
        complete(steered, tiny_tokenizer(), ["a", "x" * 300])


def test_a_completion_ends_with_the_function():
    assert function_body("    return 1\n\nprint(f())\n") == "    return 1\n"
    assert function_body("return 1\n    # more\n") == "return 1\n    # more\n"
