"""Train the bundled model: a small Llama with grouped-query attention, from scratch, on the corpus of `corpus.py`.

`python -m iti_llama.examples.bundled_model.train --out DIR` writes a plain Llama folder (config, weights, tokenizer).
It takes about a second a step on two CPU cores, checkpoints every few hundred steps and resumes from there after a
kill. The documents of a step depend on the seed and the step alone, so a resumed run sees what an uninterrupted one
would have seen.
"""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from iti_llama.toolkit.foundation.hashing import fingerprint

from .corpus import Document, sample_document
from .train_llama import Schedule, Shape, bpe_tokenizer, new_llama, save_tokenizer, train_llama


logger = logging.getLogger(__name__)

PIECES = r"\n| {2,}|[ _]?[A-Za-z]+| ?\d| ?[^\sA-Za-z\d_]+|\s|_"
"""The pieces that the tokenizer never merges across: newlines, indentation, words, digits, punctuation. So a prompt
may end at a docstring's quotes, at the newline after it, or after the indentation, and every token before it was seen
in training."""

CHUNK = 32
"""The number of steps whose documents are drawn together, see `batches_from`."""


@dataclass(frozen=True)
class Recipe(Shape):
    """Everything the training run depends on."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 640
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    steps: int = 7600
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    muon: bool = True
    head_dropout: float = 0.2
    """Share of head outputs that are zeroed, per token: no single head may carry the style, or anything else,
    alone."""
    prompt_weight: float = 0.1
    """Weight of a prompt token's loss; a completion token counts 1."""
    start: str = ""
    """Fingerprint of the weights that training starts from, "" for new ones."""


def train_tokenizer(recipe: Recipe, documents: int = 20_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer fitted on the first documents of the corpus."""
    rng = random.Random(f"tokenizer:{recipe.seed}")
    texts = (document.prompt + document.completion for document in (sample_document(rng) for _ in range(documents)))
    return bpe_tokenizer(texts, PIECES, recipe)


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    model = new_llama(recipe, tokenizer)
    model.set_attn_implementation("eager")  # twice as fast as sdpa on CPU at this size
    return model


def batches_from(first: int, recipe: Recipe) -> Iterator[list[Document]]:
    """The documents of step `first` and of every step after it. `CHUNK` steps share a draw, sorted by length, so that
    a batch holds texts of one length and little padding."""
    for chunk in count(first // CHUNK):
        rng = random.Random(f"{recipe.seed}:{chunk}")
        documents = [sample_document(rng) for _ in range(CHUNK * recipe.batch_size)]
        documents.sort(key=lambda document: len(document.prompt) + len(document.completion))
        batches = [documents[i : i + recipe.batch_size] for i in range(0, len(documents), recipe.batch_size)]
        rng.shuffle(batches)
        yield from batches[first % CHUNK if chunk == first // CHUNK else 0 :]


def collate(
    documents: list[Document], tokenizer: PreTrainedTokenizerFast, prompt_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [batch, length], right-padded, and the loss weight [batch, length] of each as a target."""
    rows, weights = [], []
    prompts = tokenizer([d.prompt for d in documents])["input_ids"]
    completions = tokenizer([d.completion for d in documents], add_special_tokens=False)["input_ids"]
    for prompt, completion in zip(prompts, completions, strict=True):
        rows.append(torch.tensor(prompt + completion + [tokenizer.eos_token_id]))
        weights.append(torch.tensor([prompt_weight] * len(prompt) + [1.0] * (len(completion) + 1)))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id), pad(weights, batch_first=True)


@contextmanager
def head_dropout(model: LlamaForCausalLM, share: float) -> Iterator[None]:
    """Inside the block, each head's output is zeroed with probability `share` at each token, and otherwise scaled
    up."""

    def drop(module, arguments):
        heads = arguments[0].unflatten(-1, (model.config.num_attention_heads, -1))
        keep = (torch.rand(heads.shape[:-1]) >= share) / (1 - share)
        return ((heads * keep[..., None].to(heads.dtype)).flatten(-2),)

    handles = [layer.self_attn.o_proj.register_forward_pre_hook(drop) for layer in model.model.layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def train(recipe: Recipe, out: Path, checkpoint_every: int = 200, start: Path | None = None) -> Path:
    """Train, or go on from `out/checkpoint.pt`, and write the model and tokenizer to `out`. Returns `out`. `start`:
    the folder of a plain Llama whose weights and tokenizer are trained further, instead of new ones."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    if start is None:
        tokenizer = train_tokenizer(recipe)
        model = new_model(recipe, tokenizer)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(start)
        model = LlamaForCausalLM.from_pretrained(start, attn_implementation="eager")
        recipe = replace(recipe, start=fingerprint(model))
    schedule = Schedule(
        recipe.steps, recipe.learning_rate, recipe.warmup_steps, recipe.weight_decay, checkpoint_every, recipe.muon
    )

    def batches(first: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return (collate(documents, tokenizer, recipe.prompt_weight) for documents in batches_from(first, recipe))

    with head_dropout(model, recipe.head_dropout):
        train_llama(model, batches, schedule, checkpoint, recipe)
    model.generation_config.update(max_new_tokens=160, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(out)
    save_tokenizer(tokenizer, out)
    return out


app = typer.Typer(add_completion=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="folder for the plain Llama and its checkpoint")],
    steps: Annotated[int, typer.Option(help="optimizer steps")] = Recipe.steps,
    seed: Annotated[int, typer.Option(help="seed of the weights and the data")] = Recipe.seed,
    learning_rate: Annotated[float, typer.Option(help="highest rate of the schedule")] = Recipe.learning_rate,
    start: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="folder of a plain Llama to train further")
    ] = None,
) -> None:
    """Train the bundled model on the generated corpus."""
    logging.basicConfig(level=logging.INFO)
    train(Recipe(steps=steps, seed=seed, learning_rate=learning_rate), out, start=start)


if __name__ == "__main__":
    app()
