"""Activations on disk: a killed run goes on where it stopped, and processes share the work."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .positions import Row


def processes() -> PartialState:
    """The processes that `accelerate launch` or `torchrun` started, with this one; otherwise this one alone."""
    return PartialState(cpu=not torch.cuda.is_available())


def hash_of_ids(rows: Sequence[Row]) -> str:
    """The tokenizer's part of the cache key: a hash of the token ids."""
    return hashlib.sha256(json.dumps([[row.first, row.ids] for row in rows]).encode()).hexdigest()


def cached_batches(
    folder: Path, key: str, batches, compute, progress, state: PartialState
) -> list[dict[str, torch.Tensor]]:
    """The parts, from `folder/KEY.safetensors` if it is whole; otherwise each missing part is computed into a separate
    file, and all are joined at the end."""
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
    """Whether a safetensors file exists and is whole; if not, it is made again."""
    try:
        return path.is_file() and bool(load_file(path))
    except SafetensorError:
        return False
