"""Training on natural code: what a step sees does not depend on where a run starts, and a plain Llama comes out."""

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from iti_llama.examples.natural.corpus import Source
from iti_llama.examples.natural.train import Recipe, batches_from, train


RECIPE = Recipe(
    vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, context=32, batch_size=2, epochs=2,
)  # fmt: skip

CODE = "def place(name):\n    return name.strip()\n\n\n" * 12


def test_a_plain_llama_comes_out_that_never_saw_a_held_out_package(tmp_path):
    train(RECIPE, tmp_path, [Source("click", "a.py", CODE), Source("rich", "b.py", "zebra = 1\n" * 50)])
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.max_position_embeddings == 32 and model.dtype == torch.bfloat16
    assert "name" in tokenizer.get_vocab() and "zebra" not in tokenizer.get_vocab()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == state["schedules"][0]["last_epoch"] > 0 and state["dtype"] in ("float32", "bfloat16")


def test_the_windows_of_a_step_do_not_depend_on_where_a_run_starts():
    data = torch.arange(7 * 32).view(7, 32)
    whole = [ids for _, (ids, _) in zip(range(9), batches_from(0, data, RECIPE), strict=False)]
    rest = [ids for _, (ids, _) in zip(range(4), batches_from(5, data, RECIPE), strict=False)]
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True))
    epoch = torch.cat(whole[:3]).flatten().tolist()
    assert len(set(epoch)) == len(epoch) == 6 * 32
