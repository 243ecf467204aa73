"""Record the activations of every head, at the input of the output projection, for labelled texts.

One forward pass per batch over right-padded rows of similar length; only what the position policy keeps leaves the
device. A row's activations do not depend on the batch it is in: padding is on the right and attention is causal.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from iti_llama import ITIDirections

from .examples import Example, checksum


@dataclass(frozen=True)
class Policy:
    """Where in a text activations are taken.

    kind: "last" (last token), "completion-mean" (mean over the completion's tokens) or "fraction" (last token of the
    first `fraction` of the completion, cut back to the end of a line; 0 is the last token of the prompt).
    """

    kind: str = "last"
    fraction: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """ "last", "completion-mean" or "fraction F" with F from 0 to 1."""
        if text in ("last", "completion-mean"):
            return cls(text)
        match = re.fullmatch(r"fraction[ =:](\d+(?:\.\d*)?|\.\d+)", text)
        if match and 0 <= float(match[1]) <= 1:
            return cls("fraction", float(match[1]))
        raise ValueError(f"policy is {text!r}; expected last, completion-mean, or fraction F with F from 0 to 1")

    def __str__(self) -> str:
        return f"fraction {self.fraction:g}" if self.kind == "fraction" else self.kind

    def cut(self, completion: str) -> str:
        """The part of a completion that is read."""
        if self.kind != "fraction" or self.fraction == 1:
            return completion
        end = completion.rfind("\n", 0, round(len(completion) * self.fraction) + 1)
        return completion[: end + 1]


@dataclass(frozen=True)
class Row:
    """A tokenized text and the first of the tokens, up to the last, whose activations are averaged."""

    ids: list[int]
    first: int


@dataclass(frozen=True)
class Activations:
    """What is kept of each text, float32 on CPU.

    heads: [rows, layers, heads, head_dim], at the input of each layer's output projection.
    residual: [rows, layers, hidden_size], the residual stream after each layer.
    """

    heads: torch.Tensor
    residual: torch.Tensor


def tokenize(example: Example, policy: Policy, tokenizer: PreTrainedTokenizerBase) -> Row:
    """Prompt and completion are tokenized apart, as in generation. Special tokens come from the tokenizer alone; a
    prompt that a chat template wrote holds its own."""
    special = not (tokenizer.bos_token and example.prompt.startswith(tokenizer.bos_token))
    prompt = tokenizer(example.prompt, add_special_tokens=special)["input_ids"]
    completion = tokenizer(policy.cut(example.completion), add_special_tokens=False)["input_ids"]
    ids = prompt + completion
    return Row(ids, len(prompt) if policy.kind == "completion-mean" and completion else len(ids) - 1)


def fits(example: Example, policy: Policy, tokenizer: PreTrainedTokenizerBase, longest: int) -> bool:
    """Whether the model reads the whole text."""
    return len(tokenize(example, policy, tokenizer).ids) <= longest


@contextmanager
def recording(
    model: PreTrainedModel, keep: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Inside the block, a forward pass fills two lists, one entry a layer, with `keep(x)` of the input of o_proj
    [batch, seq, heads * head_dim] and of the layer's output [batch, seq, hidden_size]."""
    layers = model.base_model.layers
    heads, residual = ([torch.empty(0)] * len(layers) for _ in range(2))

    def before_o_proj(index: int):
        def record(module, arguments):
            heads[index] = keep(arguments[0])

        return record

    def after_layer(index: int):
        def record(module, arguments, output):
            residual[index] = keep(output[0] if isinstance(output, tuple) else output)

        return record

    handles = []
    for index, layer in enumerate(layers):
        handles.append(layer.self_attn.o_proj.register_forward_pre_hook(before_o_proj(index)))
        handles.append(layer.register_forward_hook(after_layer(index)))
    try:
        yield heads, residual
    finally:
        for handle in handles:
            handle.remove()


def _batches(rows: Sequence[Row], batch_size: int) -> list[list[int]]:
    """Indices of the rows of each batch, longest rows first: a batch that does not fit in memory fails at the start."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


@torch.no_grad()
def _forward(model: PreTrainedModel, rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """What is kept of one batch of rows: {"heads": [batch, layers, heads * head_dim], "residual": [batch, layers, hidden]}."""
    length = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (length - len(row.ids)) for row in rows])
    weights = mask.float() * (torch.arange(length) >= torch.tensor([[row.first] for row in rows]))
    weights = weights / weights.sum(-1, keepdim=True)

    def keep(activations: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bs,bsd->bd", weights.to(activations.device), activations.float()).cpu()

    device = model.get_input_embeddings().weight.device
    device = model.device if device.type == "meta" else device
    with recording(model, keep) as (heads, residual):
        model.base_model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
    return {"heads": torch.stack(heads, 1), "residual": torch.stack(residual, 1)}


def fingerprint(model: PreTrainedModel) -> str:
    """A short name for the weights and shape of a model, wherever it lies: a hash over 256 values of each weight."""
    ours = (
        "name",
        "_",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "iti_",
        "base_model",
        "auto_map",
        "architectures",
    )
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith(ours)}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        if tensor.device.type != "meta":
            flat = tensor.detach().flatten()
            digest.update(flat[:: max(1, len(flat) // 256)][:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def fingerprint_of(directions: ITIDirections) -> str:
    """A short name for what directions do: a hash over heads, unit vectors and sigmas."""
    parts = (directions.heads, directions.directions, directions.sigma)
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def processes() -> PartialState:
    """The processes that `accelerate launch` or `torchrun` started, this one among them; one alone else."""
    return PartialState(cpu=not torch.cuda.is_available())


def capture(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    policy: Policy,
    batch_size: int = 32,
    cache: str | os.PathLike | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Activations:
    """Activations of every head and layer for every example, in their order.

    Under `accelerate launch` the batches are shared among the processes, which need a `cache` on a disk that all of
    them see; each returns all activations. With a `cache` folder, finished batches survive a kill, and a second call for the same
    model, data, policy and batch size reads what the first one wrote.

    Raises:
        ValueError: if a text is longer than the model reads; the message counts them. Nothing is cut in silence.
    """
    config, state = model.config, processes()
    rows = [tokenize(example, policy, tokenizer) for example in examples]
    longest = config.max_position_embeddings
    over = [index for index, row in enumerate(rows) if len(row.ids) > longest]
    if over:
        raise ValueError(
            f"{len(over)} of {len(rows)} texts are longer than the model's {longest} tokens, the first is row "
            f"{over[0] + 1} ({len(rows[over[0]].ids)} tokens): shorten them, or leave them out with --drop-long"
        )
    if cache is None and state.num_processes > 1:
        raise ValueError(f"{state.num_processes} processes share the work through files: pass a cache folder")
    batches = _batches(rows, batch_size)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def compute(batch: list[int]) -> dict[str, torch.Tensor]:
        return _forward(model, [rows[index] for index in batch], pad)

    if cache is None:
        parts = []
        for batch in batches:
            parts.append(compute(batch))
            progress(len(batch))
    else:
        key = f"{fingerprint(model)} {checksum(examples)} {policy} {batch_size} {hash_of_ids(rows)}"
        parts = _cached(Path(cache), hashlib.sha256(key.encode()).hexdigest()[:24], batches, compute, progress, state)
    order = torch.tensor([index for batch in batches for index in batch])
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("heads", "residual")}
    back = torch.argsort(order)
    heads = joined["heads"][back].unflatten(-1, (config.num_attention_heads, -1))
    return Activations(heads, joined["residual"][back])


def hash_of_ids(rows: Sequence[Row]) -> str:
    """The tokenizer's part of the cache's key: what it made of the texts."""
    return hashlib.sha256(json.dumps([[row.first, row.ids] for row in rows]).encode()).hexdigest()


def _cached(folder: Path, key: str, batches, compute, progress, state: PartialState) -> list[dict[str, torch.Tensor]]:
    """The parts, from `folder/KEY.safetensors` if it is whole; else the missing ones are computed, each into a file of its own,
    and joined at the end."""
    whole, pieces = folder / f"{key}.safetensors", folder / key

    def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{state.process_index}")
        save_file(tensors, temporary)
        os.replace(temporary, path)

    def piece(number: int) -> Path:
        return pieces / f"{number:06d}.safetensors"

    if not _readable(whole):
        mine = range(state.process_index, len(batches), state.num_processes)
        for number in mine:
            if not _readable(piece(number)):
                save(compute(batches[number]), piece(number))
            progress(len(batches[number]) * state.num_processes)
        state.wait_for_everyone()
        if state.is_main_process:
            parts = [load_file(piece(number)) for number in range(len(batches))]
            save({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, whole)
            shutil.rmtree(pieces)
        state.wait_for_everyone()
    return [load_file(whole)]


def _readable(path: Path) -> bool:
    """Whether a safetensors file is there and whole; one that is not is made anew."""
    try:
        return path.is_file() and bool(load_file(path))
    except SafetensorError:
        return False
