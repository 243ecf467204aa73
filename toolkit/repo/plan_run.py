"""What a run is about to do, and what it will take: counted beforehand, timed in a short trial."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..data.labelled_set import Example, is_labelled
from ..data.read_table import read_table
from ..foundation.bound_memory import PIECE_BYTES, bytes_a_token, tokens_a_batch
from ..foundation.complete import complete
from ..foundation.tokenize import completion_ids, prompt_ids
from ..measure.checks import PHRASINGS
from ..measure.measure_steering import EXAMPLE_TOKENS, EXAMPLES
from ..measure.settings import SWEEP_BATCH
from ..measure.sweep import count_answers
from ..measure.tasks import TaskSet
from .settings import RunSettings


ROWS, TOKENS = 8, 8
"""How many prompts the trial has, and how many tokens are written after each."""


@dataclass(frozen=True)
class Plan:
    """What a run takes. read, written: tokens, at most. texts: labelled texts to fit on. answers: those of the sweep
    and of the measurement; with `pairs`, readings of two given texts. seconds, bytes: for all of it except the probes
    of the fit."""

    texts: int
    answers: int
    pairs: bool
    read: int
    written: int
    seconds: float
    bytes: int

    def __str__(self) -> str:
        answers = "readings of a pair" if self.pairs else "answers"
        hours, minutes = self.seconds / 3600, self.seconds / 60
        time = f"{hours:.1f} hours" if hours >= 2 else f"{minutes:.0f} minutes" if minutes >= 2 else "a minute or two"
        return (
            f"to do: {self.texts:,} texts, then at most {self.answers:,} {answers}: {self.read:,} tokens to read and "
            f"{self.written:,} to write. A short trial says about {time}, without the probes of the fit, and "
            f"at least {self.bytes / 2**30:.1f} GiB for weights, activations and cache"
        )


def plan_run(
    settings: RunSettings,
    examples: Sequence[Example],
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
) -> Plan:
    """Count what `run` does at most, and time `model` on a small part of it."""
    pairs = settings.target in (None, "labels") and (settings.tasks is None or is_labelled(settings.tasks))
    if settings.tasks is None:
        half = len({example.prompt for example in examples}) * settings.test_share / 2
    else:
        half = sum(1 for _ in read_table(settings.tasks)) / 2
    tasks, asked = min(settings.n, max(1, round(half))), settings.header is not None
    measured = 6 + 2 * asked + 2 * len(PHRASINGS) * settings.checks
    answers = count_answers(tasks, asked, settings.grid) + tasks * measured

    some = examples[:: max(1, len(examples) // 64)]
    prompt = sum(len(prompt_ids(tokenizer, example.prompt)) for example in some) / len(some)
    whole = prompt + sum(len(completion_ids(tokenizer, example.completion)) for example in some) / len(some)
    length = settings.max_new_tokens or TaskSet.max_new_tokens
    read = len(examples) * whole + answers * (2 * whole if pairs else prompt)
    written = (0 if pairs else answers * length) + 2 * min(tasks, EXAMPLES) * EXAMPLE_TOKENS
    to_read, to_write = time_trial(model, tokenizer, [example.prompt for example in some])

    config = model.config
    tokens = min(answers, SWEEP_BATCH) * (whole if pairs else prompt + length)
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    size += len(examples) * config.num_hidden_layers * (config.num_attention_heads * config.head_dim) * 4
    size += round(min(tokens, tokens_a_batch(model, "cache")) * bytes_a_token(model, "cache")) + 4 * PIECE_BYTES
    return Plan(len(examples), answers, pairs, round(read), round(written), read * to_read + written * to_write, size)


def time_trial(
    model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> tuple[float, float]:
    """Seconds to read a token, and to write one, in a batch of the shortest prompts. The first pass of a model, which
    takes longer, is not counted."""
    batch = sorted(prompts, key=len)[:ROWS]
    tokens = sum(len(prompt_ids(tokenizer, prompt)) for prompt in batch)

    def seconds(length: int) -> float:
        start = perf_counter()
        complete(model, tokenizer, batch, max_new_tokens=length, min_new_tokens=length)
        return perf_counter() - start

    seconds(1)
    reading = seconds(1)
    writing = max(0.0, seconds(1 + TOKENS) - reading)
    return reading / tokens, writing / (len(batch) * TOKENS)
