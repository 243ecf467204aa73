"""The examples in the docstrings of public names run as they stand, in a folder that holds what they name. Two are not
run: `push` writes to the Hub, `smollm2` wants a package that is not on every machine. Both have tests of their own."""

import doctest
import re
import shutil
from importlib import import_module

import pytest
from transformers import LlamaForCausalLM

import iti_llama
from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.card import write_card
from iti_llama.toolkit.repo.folder import CODE, TOKENIZER_FILES


HOMES = {*iti_llama._HOMES.values(), "loading_iti_llama", "steering_iti_llama", "generation_iti_llama"}
MODULES = [import_module(f"iti_llama.{home}") for home in sorted(HOMES)]
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [test for module in MODULES for test in FINDER.find(module, globs={}) if test.examples]
METHODS = (
    "from_pretrained", "from_base", "save_pretrained", "set_iti_alpha", "set_iti", "set_iti_directions",
    "load_iti_directions", "disable_iti", "merge_and_unload", "load", "save",
)  # fmt: skip
SEEN_THROUGH_OTHERS = {"__version__", "ITIDirectionsError", "ITILlamaModel"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """steered-llama: the bundled model with a card. llama: the same without its steering. other.safetensors:
    directions for it."""
    folder = tmp_path_factory.mktemp("docstrings")
    (folder / "steered-llama").mkdir()
    for name in (*CODE, *TOKENIZER_FILES, "config.json", "generation_config.json", *weights()):
        if (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, folder / "steered-llama" / name)
    write_card(folder / "steered-llama")
    model = ITILlamaForCausalLM.from_pretrained(ROOT)
    plain = LlamaForCausalLM(model.config.to_llama())
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder / "llama")
    ITIDirections.load(ROOT / "iti_directions.safetensors").top(3).save(folder / "other.safetensors")
    return folder


def weights() -> list[str]:
    return [path.name for path in ROOT.glob("*.safetensors")]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("iti_llama."))
def test_an_example_runs_and_prints_what_it_says(example, folder, monkeypatch):
    monkeypatch.chdir(folder)
    said = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append, clear_globs=False)
    assert result.attempted > 0 and result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", [*sorted({*iti_llama.__all__} - SEEN_THROUGH_OTHERS), *METHODS])
def test_every_public_name_is_shown(name):
    shown = "".join(example.source for test in EXAMPLES for example in test.examples)
    assert re.search(rf"\b{name}\b", shown)
