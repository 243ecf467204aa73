"""Measuring: against independent computations, resumable, and honest about nothing."""

import pytest

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.measure.keep_labelled_set import read_parts
from iti_llama.toolkit.measure.labelled_tasks import labelled_set


@pytest.fixture(scope="session")
def taught(fitted_dir):
    """A steered model on which the steering has an effect."""
    return ITILlamaForCausalLM.from_pretrained(fitted_dir).eval()


@pytest.fixture(scope="session")
def held_out_pairs(fitted_dir):
    """A function: the pairs of a part of the set that `taught` was fitted on."""

    def of(part: str, header: str | None = None, pairs: bool = True):
        return labelled_set(f"held-out:{part}", read_parts(fitted_dir, part), header, pairs)

    return of
