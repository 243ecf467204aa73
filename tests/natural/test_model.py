"""The committed model of natural code and its directions: they load, fit each other, and steer."""

import pytest
from transformers import AutoTokenizer

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.examples.natural.corpus import TEST
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.package import ROOT


FOLDER = ROOT / "examples" / "natural"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_directions_say_what_they_do_and_fit_the_model(path):
    directions = ITIDirections.load(path)
    model = ITILlamaForCausalLM.from_base(FOLDER / "model", directions, alpha=1.0, dtype="float32")
    assert directions.provenance["behaviour"] and directions.provenance["dataset"] == path.stem
    assert model.iti_alpha == 1.0 and 0 < len(directions) <= 36


def test_steered_it_annotates_more_arguments_than_left_alone_and_away_fewer():
    model = ITILlamaForCausalLM.from_base(FOLDER / "model", FOLDER / "annotation.safetensors", dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "model")
    names = ("path", "data", "x", "name", "value", "items", "text", "index", "config", "key", "node", "size")
    prompts = [f"\n\ndef {verb}_{name}({name}" for verb in ("load", "check") for name in names]
    shares = {}
    for alpha in (-2.0, 0.0, 2.0):
        texts = complete(model, tokenizer, prompts, [alpha] * len(prompts), max_new_tokens=3)
        shares[alpha] = sum(text.lstrip().startswith(":") for text in texts) / len(texts)
    assert shares[2.0] >= shares[0.0] + 0.25 and shares[2.0] >= 0.5 and shares[-2.0] <= min(0.1, shares[0.0])


def test_the_weights_are_small_and_held_out_packages_have_nothing_in_the_training_part():
    assert (FOLDER / "model" / "model.safetensors").stat().st_size < 16 << 20
    rows = [line.split("\t") for line in (FOLDER / "files.tsv").read_text().splitlines()[1:]]
    assert {row[3] for row in rows if row[0] in TEST} == {"test"}
    hashes = {part: {row[4] for row in rows if row[3] == part} for part in ("train", "validation", "test")}
    assert not hashes["train"] & (hashes["test"] | hashes["validation"])
