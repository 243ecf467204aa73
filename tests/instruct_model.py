"""A tiny Llama that follows an instruction, which stands as a comment above the request."""

from functools import cache
from pathlib import Path

import torch
from reference import tiny_llama, tiny_tokenizer
from taught import ENDINGS
from transformers import LlamaForCausalLM


INSTRUCTION, UNHEARD, SECOND = "say x", "be calm", "go on"

SECOND_ENDING = "go(z)\n" * 2


def save_following(folder: Path, two: bool = False) -> Path:
    """`following_llama` and its tokenizer, as a base in `folder`."""
    following_llama(two).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_requests(folder: Path) -> Path:
    """The requests in a text file, one on each line."""
    path = folder / "requests.txt"
    path.write_text("\n".join(requests()) + "\n")
    return path


def requests(n: int = 40) -> list[str]:
    return [f"def f{number}(x):" for number in range(n)]


@cache
def following_llama(two: bool = False) -> LlamaForCausalLM:
    """Writes the first of `ENDINGS` after a request, and the second one under the instruction; `UNHEARD` is one that
    it does not follow. It saw half of the requests. two: it also writes `SECOND_ENDING` under `SECOND`."""
    model, tokenizer = tiny_llama(max_position_embeddings=96, num_hidden_layers=3).train(), tiny_tokenizer()
    above = {"": ENDINGS[0], f"# {UNHEARD}\n": ENDINGS[0], f"# {INSTRUCTION}\n": ENDINGS[1]}
    above |= {f"# {SECOND}\n": SECOND_ENDING} if two else {}
    texts = [f"{line}{request}{end}<eos>" for line, end in above.items() for request in requests()[::2]]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right", return_token_type_ids=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(120):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()
