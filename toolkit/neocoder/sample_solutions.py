"""Draw a model's solutions to NeoCoder's problems, into a file from which a killed run goes on."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..foundation.complete import complete
from ..foundation.files import read_rows
from ..foundation.hashing import fingerprint, fingerprint_of
from .problems import Problem


INSTRUCTION = (
    "Solve the programming problem below in Python 3. Read from standard input, write to standard output. "
    "Answer with one program in a ```python fence and nothing else."
)


def prompt_for(text: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """The prompt that asks for a program, through the tokenizer's chat template if it has one."""
    if tokenizer is not None and tokenizer.chat_template:
        messages = [{"role": "user", "content": f"{INSTRUCTION}\n\n{text}"}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return f'"""{text}\n"""\n'


def draw(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    out: Path,
    n: int,
    state: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int = 1024,
    batch_size: int = 16,
    seed: int = 0,
    progress: Callable[[int], None] = lambda rows: None,
) -> None:
    """`n` sampled solutions of each problem that has the state, one row each: problem_id, state, prompt, completion,
    draw, and the settings they were drawn with.

    Each batch has its own seed, so a run that was killed and started again gives the same rows as one that was not.

    Raises:
        ValueError: if `out` holds rows from another model or other settings. It is not touched then.
    """
    kept = read_rows(out)
    steering = None
    if getattr(model, "iti_directions", None) is not None:
        used = fingerprint_of(model.iti_directions.top(model.iti_top_k))[:16]
        steering = f"{used}, alpha {model.iti_alpha:g}, scope {model.iti_scope}"
    settings = {"model": fingerprint(model)[:16], "steering": steering, "temperature": temperature}
    settings |= {"max_new_tokens": max_new_tokens, "seed": seed}
    for row in kept:
        found = {name: row.get(name) for name in settings}
        if found != settings:
            raise ValueError(
                f"{out}: holds samples drawn with {found}; this run's settings are {settings}. Choose another --out"
            )
    have = Counter(row["problem_id"] for row in kept if row["state"] == state)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.part")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(temporary, out)  # without the line that a kill cut off
    with out.open("a", encoding="utf-8") as file:
        for problem in problems:
            if state >= len(problem.statements):
                continue
            prompt = prompt_for(problem.statements[state], tokenizer)
            for first in range(0, n, batch_size):
                count = min(batch_size, n - first)
                if have[problem.id] >= first + count:
                    progress(count)
                    continue
                name = f"{seed}:{problem.id}:{state}:{first}"
                torch.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"))
                texts = complete(
                    model,
                    tokenizer,
                    [prompt] * count,
                    max_new_tokens=max_new_tokens,
                    batch_size=count,
                    do_sample=True,
                    temperature=temperature,
                )
                for index, text in enumerate(texts, first):
                    if index >= have[problem.id]:
                        row = {
                            "problem_id": problem.id,
                            "state": state,
                            "prompt": prompt,
                            "completion": text,
                            "draw": index,
                            **settings,
                        }
                        file.write(json.dumps(row) + "\n")
                file.flush()
                progress(count)
