"""Train a small Llama on the corpus of `corpus.py`: Python as people write it.

`python -m iti_llama.examples.natural.train --out DIR` writes a plain Llama folder. It runs on a GPU where there is
one, else on the CPU, and resumes after a kill.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import PreTrainedTokenizerFast

from iti_llama.toolkit.bundled.train_llama import (
    Schedule,
    Shape,
    bpe_tokenizer,
    new_llama,
    save_tokenizer,
    train_llama,
)

from .corpus import Source, differences, sources


PIECES = r"\n[ ]*|[ ]{2,}|[ _]?[A-Za-z]+|[ ]?\d| ?[^\sA-Za-z\d_]+|\s|_"
"""What the tokenizer never merges across: a newline with its indentation, words, digits, punctuation."""


@dataclass(frozen=True)
class Recipe(Shape):
    """Everything the training run depends on, besides the files of the corpus."""

    vocab_size: int = 4096
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    batch_size: int = 8
    epochs: float = 0.6
    learning_rate: float = 2e-3


def windows(texts: list[str], tokenizer: PreTrainedTokenizerFast, context: int) -> torch.Tensor:
    """[windows, context] token ids: the files one after the other, each from BOS to EOS, cut evenly."""
    rows = tokenizer(texts)["input_ids"]
    stream = [token for row in rows for token in (*row, tokenizer.eos_token_id)]
    whole = len(stream) // context * context
    return torch.tensor(stream[:whole], dtype=torch.int32).view(-1, context)


def batches_from(step: int, data: torch.Tensor, recipe: Recipe) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The windows of a step and of every one after it: each epoch in an order of its own."""
    in_epoch = len(data) // recipe.batch_size
    weights = torch.ones(recipe.batch_size, data.shape[1])
    while True:
        epoch, at = divmod(step, in_epoch)
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1000 * recipe.seed + epoch))
        yield data[order[at * recipe.batch_size : (at + 1) * recipe.batch_size]].long(), weights
        step += 1


def train(recipe: Recipe, out: Path, found: list[Source]) -> Path:
    """Train, or go on from `out/checkpoint.pt`, and write model and tokenizer to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    texts = [source.text for source in found if source.part == "train"]
    tokenizer = bpe_tokenizer(texts, PIECES, recipe)
    data = windows(texts, tokenizer, recipe.context)
    steps = int(recipe.epochs * (len(data) // recipe.batch_size))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_llama(recipe, tokenizer).to(device)
    size = sum(p.numel() for p in model.parameters())
    typer.echo(f"{size:,} parameters, {data.numel():,} tokens, {steps:,} steps on {device}")
    schedule = Schedule(steps, recipe.learning_rate, warmup_steps=100, checkpoint_every=100)
    train_llama(model, lambda step: batches_from(step, data, recipe), schedule, out / "checkpoint.pt", recipe)
    model.generation_config.update(max_new_tokens=128, pad_token_id=tokenizer.pad_token_id)
    model.to(torch.bfloat16).save_pretrained(out)
    save_tokenizer(tokenizer, out)
    return out


def main(
    out: Annotated[Path, typer.Option(help="folder for the plain Llama and its checkpoint")],
    epochs: Annotated[float, typer.Option(help="times that each text is seen")] = Recipe.epochs,
    seed: Annotated[int, typer.Option(help="seed of the weights and of the order of the data")] = Recipe.seed,
) -> None:
    """Train a small Llama from scratch on Python as people write it."""
    logging.basicConfig(level=logging.INFO)
    found = sources()
    typer.echo(differences(found))
    train(Recipe(epochs=epochs, seed=seed), out, found)


if __name__ == "__main__":
    typer.run(main)
