"""The committed behaviours of SmolLM2-135M-Instruct: complete, of its base, and steering it."""

import json

import pytest
import torch
from real_model import need_smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer

import iti_llama
from iti_llama import ITILlamaForCausalLM
from iti_llama.examples.sentences.checkers import brief
from iti_llama.examples.smollm2.keep_repos import HERE, NAMES
from iti_llama.loading_iti_llama import check_base, read_base_config
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.foundation.tokenize import chat_prompt
from iti_llama.toolkit.instruct.read_requests import read_requests, split_requests
from iti_llama.toolkit.repo.card import renewed_card
from iti_llama.toolkit.repo.folder import CODE
from iti_llama.toolkit.repo.push import files_to_push
from iti_llama.toolkit.repo.steered_repo import SteeredRepo
from iti_llama.toolkit.repo.verify import verify


ORIGINAL = "HuggingFaceTB/SmolLM2-135M-Instruct"

HUB_CONFIG = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_act": "silu", "rms_norm_eps": 1e-05,
    "rope_theta": 100000, "rope_scaling": None, "rope_interleaved": False, "tie_word_embeddings": True,
    "attention_bias": False, "mlp_bias": False, "is_llama_config": True, "max_position_embeddings": 8192,
    "initializer_range": 1 / 24, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "torch_dtype": "bfloat16",
}  # fmt: skip
"""What the original's config.json on the Hub says of the model, in the words of transformers 4."""


@pytest.fixture(scope="module")
def base() -> str:
    need_smollm2()
    return iti_llama.smollm2()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_a_whole_repo_of_kilobytes_that_passed_its_checks(name):
    repo = SteeredRepo.open(HERE / name)
    assert repo.weights_from == repo.base == ORIGINAL and repo.does and repo.alpha > 0
    assert repo.is_measured and repo.evaluation["checks"] and not repo.failed_checks
    assert repo.fields["model_type"] == "iti_llama" and not (HERE / name / "labelled_set.jsonl").exists()
    held = {path.name: path for path in (HERE / name).rglob("*") if path.is_file()}
    assert {*CODE, "tokenizer.json", "generation_config.json"} < set(held)
    assert not any(path.is_symlink() for path in held.values())
    assert sum(path.stat().st_size for path in held.values()) < 2_500_000
    card = (HERE / name / "README.md").read_text()
    assert "dequantised from Q4_1" in card and f"base_model: {ORIGINAL}" in card and "/build/" not in card


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", CODE)
def test_its_code_is_that_of_the_root(name, file):
    same = (HERE / name / file).read_bytes() == (ROOT / file).read_bytes()
    assert same, f"examples/smollm2/{name}/{file} is not the root's {file}: run `make example-code`"


@pytest.mark.parametrize("name", NAMES)
def test_its_card_is_what_its_files_say(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the report knows the base's licence
    same = (HERE / name / "README.md").read_text(encoding="utf-8") == renewed_card(HERE / name)
    assert same, f"examples/smollm2/{name}/README.md is not what its files say: run `make example-code`"


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_verified_and_pushed_as_it_lies(name):
    verdict = verify(str(HERE / name))
    assert not verdict.problems and {file.status for file in verdict.code} == {"ours"}
    assert {*CODE, "tokenizer.json", "chat_template.jinja", "config.json"} < set(files_to_push(HERE / name))


@pytest.mark.parametrize("name", NAMES)
def test_the_original_on_the_hub_and_the_dequantised_folder_are_both_its_base(name, base, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HUB_CONFIG))
    config = iti_llama.ITILlamaConfig.from_pretrained(HERE / name)
    for folder in (str(tmp_path), base):
        check_base(config, read_base_config(folder, None, {})[0])
    (tmp_path / "config.json").write_text(json.dumps(HUB_CONFIG | {"rope_theta": 10000}))
    with pytest.raises(ValueError, match="rope"):
        check_base(config, read_base_config(str(tmp_path), None, {})[0])


def test_it_steers_the_real_model_offline(base):
    folder = HERE / "brief"
    model = ITILlamaForCausalLM.from_pretrained(folder, base_model_name_or_path=base, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    held_out = split_requests(read_requests(), seed=0, most=80, most_fitted=120).test[::10]
    prompts = [chat_prompt(tokenizer, request.written) for request in held_out]
    alphas = [0.0] * len(prompts) + [model.iti_alpha] * len(prompts)
    texts = complete(model, tokenizer, prompts * 2, alphas, 48)
    plain, steered = (
        sum(brief(prompt, text) for prompt, text in zip(prompts, half, strict=True))
        for half in (texts[: len(prompts)], texts[len(prompts) :])
    )
    assert steered >= plain + len(prompts) // 4


def test_the_repos_own_code_loads_it_too(base):
    folder, settings = HERE / NAMES[0], {"base_model_name_or_path": base, "dtype": torch.bfloat16}
    remote = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **settings).eval()
    ours = ITILlamaForCausalLM.from_pretrained(folder, **settings).eval()
    assert type(remote).__name__ == type(ours).__name__ and remote.generation_config.max_new_tokens == 512
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("What is a bank?")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(remote(ids).logits, ours(ids).logits)


def test_its_tokenizer_is_that_of_the_base(base):
    ours, theirs = AutoTokenizer.from_pretrained(HERE / NAMES[0]), AutoTokenizer.from_pretrained(base)
    text = "Rivières: 12 345 naïve\n\tdef f(x): return x  # ünï"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"] and ours.chat_template == theirs.chat_template
