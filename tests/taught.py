"""A tiny Llama that was taught two ways to go on, and the labelled set of them: steering it has an effect."""

import json
from pathlib import Path

import torch
from reference import tiny_llama, tiny_tokenizer
from transformers import LlamaForCausalLM

from iti_llama.toolkit.data.labelled_set import Example


ENDINGS = ("y = 1\n" * 2, "return x\n" * 2)
"""The completions of label 0 and of label 1: a model that reads them learns to go on as it began."""

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""A chat template that writes BOS itself, as Llama's does."""


def two_ways(groups: int = 40) -> list[Example]:
    """A prompt for each group, with a completion of either label."""
    return [
        Example(f"def f{group}(x):\n", ENDINGS[label], label, f"g{group}")
        for group in range(groups)
        for label in (0, 1)
    ]


def unseen_tasks(path: Path) -> Path:
    """A file of prompts that no row of `two_ways` has. The taught model answers a quarter of them with `return x`; all
    with directions fitted on `two_ways` at alpha 0.1, and with random ones no more than without."""
    rows = [{"prompt": f"def f{number}(x):\n"} for number in range(40, 80)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def taught_llama(steps: int = 50) -> LlamaForCausalLM:
    """Trained on `two_ways`, so that both completions are about as likely. Reads 72 tokens."""
    model, tokenizer = tiny_llama(max_position_embeddings=72, num_hidden_layers=3).train(), tiny_tokenizer()
    texts = [f"{row.prompt}{row.completion}<eos>" for row in two_ways()]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right", return_token_type_ids=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()
