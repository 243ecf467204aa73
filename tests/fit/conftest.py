"""Capture, against plain forward passes one text at a time."""

import pytest
from reference import tiny_llama, tiny_tokenizer
from steered import steered_copy

from iti_llama.toolkit.data.labelled_set import Example


@pytest.fixture(scope="module")
def model():
    return steered_copy(tiny_llama(), None)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def examples():
    lines = ["a = 1\n", "for b in c:\n    d += b\n", "return e\n", "f(g)\n", "h\n"]
    return [
        Example("def f" * (1 + i % 4) + ":\n", "".join(lines[: 1 + i % 5]), i % 2, f"g{i // 2}") for i in range(14)
    ]
