"""The training loop of the models that are made here: AdamW, cosine schedule, checkpoints, resumption."""

import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import LlamaForCausalLM, get_cosine_with_min_lr_schedule_with_warmup


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long, and how fast, a model is trained."""

    steps: int
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    checkpoint_every: int = 200


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy of the next token. No attention mask: padding, where there is any, is on the
    right."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    targets = weights[:, 1:].flatten()
    return (losses * targets).sum() / targets.sum()


@functools.lru_cache
def faster_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where this machine multiplies matrices faster in it, else float32: a CPU without instructions for
    bfloat16 is many times slower in it. Asked once, so that one process trains in one type."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=dtype, device=device)
        (a @ a).sum().item()  # the first product sets up what later ones find
        started = time.perf_counter()
        (a @ a @ a).sum().item()
        times[dtype] = time.perf_counter() - started
    return min(times, key=times.get)


def train_llama(
    model: LlamaForCausalLM,
    batches_from: Callable[[int], Iterator[tuple[torch.Tensor, torch.Tensor]]],
    schedule: Schedule,
    checkpoint: Path,
    recipe: object,
) -> LlamaForCausalLM:
    """Train, or go on from `checkpoint`. `batches_from(step)` gives the token ids and loss weights, each [batch,
    length], of that step and of every one after it: they depend on the step alone, so that a resumed run sees what an
    uninterrupted one would have seen. `recipe` is a dataclass, everything that the run depends on. Runs where the
    model is, under autocast in the faster of float32 and bfloat16.

    Raises:
        ValueError: if the checkpoint is another recipe's.
    """
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": schedule.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=schedule.learning_rate,
        betas=(0.9, 0.95),
    )
    rates = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, schedule.warmup_steps, schedule.steps, min_lr_rate=0.02
    )
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=model.device)
        if state["recipe"] != asdict(recipe):
            raise ValueError(f"{checkpoint} belongs to another recipe: {state['recipe']}; delete it or change --out")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rates.load_state_dict(state["schedule"])
        first = state["step"]
        logger.info("resuming from step %d of %s", first, checkpoint)

    dtype = faster_dtype(model.device)
    model.train()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("training", total=schedule.steps, completed=first)
        average, tokens, started = None, 0, time.time()
        for step, (ids, weights) in zip(range(first, schedule.steps), batches_from(first), strict=False):
            ids, weights = ids.to(model.device), weights.to(model.device)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = loss_of(model, ids, weights)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad(set_to_none=True)
            average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
            tokens += ids.numel()
            rate = tokens / (time.time() - started)
            progress.update(bar, advance=1, description=f"loss {average:.4f}, {rate:,.0f} tokens/s")
            if (step + 1) % schedule.checkpoint_every == 0 or step + 1 == schedule.steps:
                state = {"recipe": asdict(recipe), "step": step + 1}
                state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                state["schedule"] = rates.state_dict()
                torch.save(state, checkpoint.with_suffix(".tmp"))
                os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
                progress.console.print(f"step {step + 1}: loss {average:.4f}, {rate:,.0f} tokens/s")
    return model.eval()
