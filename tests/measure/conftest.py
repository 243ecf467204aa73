"""Measuring: against independent computations, resumable, and honest about nothing."""

import pytest
from reference import some_directions, tiny_llama, tiny_tokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.keep_labelled_set import read_part
from iti_llama.toolkit.measure.labelled_tasks import labelled_set


@pytest.fixture(scope="module")
def plain():
    return tiny_llama()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(params=["all", "generated"])
def tiny(request, plain, tmp_path):
    plain.save_pretrained(tmp_path / "base")
    directions = some_directions(plain.config)
    return ITILlamaForCausalLM.from_base(tmp_path / "base", directions, alpha=0.7, scope=request.param).eval()


@pytest.fixture(scope="module")
def bundled():
    from transformers import AutoTokenizer

    return ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)


@pytest.fixture(scope="session")
def taught(fitted_dir):
    """A steered model on which the steering has an effect."""
    return ITILlamaForCausalLM.from_pretrained(fitted_dir).eval()


@pytest.fixture(scope="session")
def held_out_pairs(fitted_dir):
    """A function: the pairs of a part of the set that `taught` was fitted on."""

    def of(part: str, header: str | None = None, pairs: bool = True):
        return labelled_set(f"held-out:{part}", read_part(fitted_dir, part), header, pairs)

    return of
