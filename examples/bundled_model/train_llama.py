"""Train the models of this repo from scratch: a tokenizer, a new Llama, and a loop that resumes."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_with_min_lr_schedule_with_warmup,
)


logger = logging.getLogger(__name__)


BOS, EOS, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"


@dataclass(frozen=True)
class Shape:
    """The shape of a small Llama; the names are those of `LlamaConfig`. context: tokens of the longest text."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    context: int = field(default=512, kw_only=True)
    seed: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a model is trained."""

    steps: int
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    checkpoint_every: int = 200
    muon: bool = False
    """Whether Muon (Jordan et al. 2024) trains the layers' matrices. AdamW trains the rest, or without Muon all."""


def bpe_tokenizer(texts: Iterable[str], pieces: str, shape: Shape) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer fitted on `texts`, which never merges across `pieces`, a regular expression; it
    starts every text with BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=shape.vocab_size,
            special_tokens=[BOS, EOS, PAD],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=shape.context,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save so that transformers 4.57 and 5 load it: 5 writes a class name that 4.57 does not know."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def new_llama(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights from the shape's seed, and tied embeddings."""
    torch.manual_seed(shape.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy of the next token. It needs no attention mask, since padding is on the right."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    targets = weights[:, 1:].flatten()
    return (losses * targets).sum() / targets.sum()


def faster_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if this machine multiplies matrices faster in it, else float32: a CPU without instructions for
    bfloat16 is many times slower in it."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=dtype, device=device)
        (a @ a).sum().item()  # the first product sets up what later ones find
        started = time.perf_counter()
        (a @ a @ a).sum().item()
        times[dtype] = time.perf_counter() - started
    return min(times, key=times.get)


def _optimizers(model: LlamaForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    settings = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
    if not schedule.muon:
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        return [torch.optim.AdamW(groups, **settings, betas=(0.9, 0.95))]
    table = model.get_input_embeddings().weight
    groups = [{"params": [table]}, {"params": vectors, "weight_decay": 0.0}]
    inner = [p for p in matrices if p is not table]
    muon = torch.optim.Muon(inner, **settings, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(groups, **settings, betas=(0.9, 0.95))]


def train_llama(
    model: LlamaForCausalLM,
    batches_from: Callable[[int], Iterator[tuple[torch.Tensor, torch.Tensor]]],
    schedule: Schedule,
    checkpoint: Path,
    recipe: object,
) -> LlamaForCausalLM:
    """Train, or go on from `checkpoint`. `batches_from(step)` gives the token ids and loss weights, each [batch,
    length], of that step and of every later one. They depend on the step alone, so a resumed run sees what an
    uninterrupted one would have seen. `recipe` is a dataclass with everything that the run depends on. It runs on the
    model's device, under autocast in the faster of float32 and bfloat16; a resumed run keeps the dtype it began with.

    Raises:
        ValueError: if the checkpoint belongs to another recipe.
    """
    optimizers = _optimizers(model, schedule)
    rates = [
        get_cosine_with_min_lr_schedule_with_warmup(each, schedule.warmup_steps, schedule.steps, min_lr_rate=0.02)
        for each in optimizers
    ]
    first, dtype = 0, faster_dtype(model.device)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=model.device)
        if state["recipe"] != asdict(recipe):
            raise ValueError(f"{checkpoint} belongs to another recipe: {state['recipe']}; delete it or change --out")
        model.load_state_dict(state["model"])
        for part, saved in zip((*optimizers, *rates), state["optimizers"] + state["schedules"], strict=True):
            part.load_state_dict(saved)
        first, dtype = state["step"], getattr(torch, state["dtype"])
        logger.info("resuming from step %d of %s", first, checkpoint)

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
            for part in (*optimizers, *rates):
                part.step()
            model.zero_grad(set_to_none=True)
            average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
            tokens += ids.numel()
            rate = tokens / (time.time() - started)
            progress.update(bar, advance=1, description=f"loss {average:.4f}, {rate:,.0f} tokens/s")
            if (step + 1) % schedule.checkpoint_every == 0 or step + 1 == schedule.steps:
                state = {"recipe": asdict(recipe), "step": step + 1, "dtype": str(dtype).removeprefix("torch.")}
                state |= {"model": model.state_dict(), "optimizers": [each.state_dict() for each in optimizers]}
                state["schedules"] = [each.state_dict() for each in rates]
                torch.save(state, checkpoint.with_suffix(".tmp"))
                os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
                progress.console.print(f"step {step + 1}: loss {average:.4f}, {rate:,.0f} tokens/s")
    return model.eval()
