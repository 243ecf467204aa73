"""Training from scratch goes on after a kill, and gives a plain Llama that loads."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from iti_llama.examples.bundled_model import train as module
from iti_llama.examples.bundled_model.train import Recipe, batches_from, train, train_tokenizer


RECIPE = Recipe(
    vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, steps=4, batch_size=4, warmup_steps=1,
)  # fmt: skip


def test_a_killed_training_sees_what_an_undisturbed_one_sees(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train_tokenizer", lambda recipe: train_tokenizer(recipe, documents=200))
    clip, steps = torch.nn.utils.clip_grad_norm_, []

    def killed_in_the_third(*args, **kwargs):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return clip(*args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch.nn.utils, "clip_grad_norm_", killed_in_the_third)
        train(RECIPE, tmp_path / "out", checkpoint_every=2)
    state = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2 and [part["last_epoch"] for part in state["schedules"]] == [2, 2]
    train(RECIPE, tmp_path / "out", checkpoint_every=2)
    state = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert [part["last_epoch"] for part in state["schedules"]] == [4, 4]
    model, tokenizer = (
        LlamaForCausalLM.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    assert model.config.num_key_value_heads == 1 and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    with pytest.raises(ValueError, match="belongs to another recipe"):
        train(Recipe(steps=4), tmp_path / "out")


def test_the_documents_of_a_step_do_not_depend_on_where_a_run_starts():
    whole = [batch for _, batch in zip(range(11), batches_from(0, RECIPE), strict=False)]
    rest = [batch for _, batch in zip(range(3), batches_from(8, RECIPE), strict=False)]
    assert whole[8:] == rest


def test_training_goes_on_from_the_weights_and_the_tokenizer_of_a_plain_llama(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train_tokenizer", lambda recipe: train_tokenizer(recipe, documents=200))
    first, other = (train(replace(RECIPE, steps=1, seed=seed), tmp_path / f"seed {seed}") for seed in (1, 2))
    monkeypatch.setattr(module, "train_tokenizer", None)
    second = train(replace(RECIPE, steps=1, learning_rate=0.0), tmp_path / "second", start=first)
    weights = [LlamaForCausalLM.from_pretrained(folder).state_dict() for folder in (first, second)]
    assert all(torch.equal(weights[0][name], weight) for name, weight in weights[1].items())
    assert (first / "tokenizer.json").read_text() == (second / "tokenizer.json").read_text()
    with pytest.raises(ValueError, match="another recipe"):  # that of other weights
        train(replace(RECIPE, steps=1, learning_rate=0.0), tmp_path / "second", start=other)
