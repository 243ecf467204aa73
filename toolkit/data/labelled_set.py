"""The labelled set that directions are fitted on: prompts, and completions with the behaviour and without it."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..foundation.files import write_text
from .labelled_row import LabelledText, is_labelled_row, labelled_texts
from .read_table import KINDS, read_table
from .written_prompt import AsPrompt, write_prompt


@dataclass(frozen=True)
class Example:
    """One labelled text. Label 1 is the behaviour to steer towards; rows of one group never fall on both sides of a
    split."""

    prompt: str
    completion: str
    label: int
    group: str
    id: str = ""
    meta: dict = field(default_factory=dict)


class LabelledSet(list[Example]):
    """The examples of a file. understood: how its fields were understood, in one line for a reader."""

    def __init__(self, examples: Iterable[Example], understood: str):
        super().__init__(examples)
        self.understood = understood


def read_examples(
    path: str | os.PathLike,
    as_prompt: AsPrompt | None = None,
    mapping: Mapping[str, str] | None = None,
    system: str | None = None,
) -> LabelledSet:
    """Read and check a labelled set, in JSON Lines, a JSON list or CSV. A row is one of

    - prompt, completion and label (0 or 1, or false or true); messages that end with the assistant's turn are both
      prompt and completion;
    - a prompt and a pair of completions, under one of the names in `labelled_row.PAIRS`: two examples. A pair of
      message lists that begin alike and end with the assistant's turn, as in TRL, shares its beginning as the prompt;
      so does a pair of texts without a prompt.

    A prompt is a text or messages, under one of the names in `labelled_row.PROMPTS`. Rows without a group share one
    where the words of their prompts, or of their last messages, are the same.

    `as_prompt` makes the prompt for the model; without it prompts stay as they are, and messages are refused.
    Where it changes something, `meta` keeps what was written: "shown", the writer's words; "shown_at", where in the
    prompt they begin; "messages" and "paraphrase_shown", if there were any. `mapping` names the fields of other
    files: {"prompt": "QUESTION", ...}, see `labelled_row.ROLES`. `system`: see `write_prompt`.

    Raises:
        ValueError: naming the file, the line, the field, the value found and the value wanted.
    """
    examples, kinds, numbers = [], Counter(), {}
    mapping = dict(mapping or {})
    for where, row in read_table(path):
        texts, kind = labelled_texts(row, mapping, where)
        group = row.get(mapping.get("group", "group"))
        if group is not None and not isinstance(group, str):
            raise ValueError(f"{where}: group is {group!r}; expected a string")
        if group is None:
            group = f"prompt {numbers.setdefault(_words(texts[0].prompt), len(numbers) + 1)}"
        examples += [_example(text, row, group, where, as_prompt, system) for text in texts]
        kinds[kind] += 1
    if not examples:
        raise ValueError(f"{path}: no rows; expected {KINDS}, of prompt, completion, label and group")
    labels, groups = ({getattr(example, name) for example in examples} for name in ("label", "group"))
    if len(labels) < 2:
        raise ValueError(f"{path}: every label is {labels.pop()}; expected rows of label 0 and of label 1")
    if len(groups) < 2:
        raise ValueError(f"{path}: every row is of group {groups.pop()!r}; expected two groups or more, to split by")
    by = ", rows of the same prompt in one" if numbers else ""
    told = "; ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    of_label = [{(example.prompt, example.completion) for example in examples if example.label == i} for i in (0, 1)]
    both = len(of_label[0] & of_label[1])
    doubt = f"; {both:,} texts have both labels" if both else ""
    return LabelledSet(examples, f"{told}; {len(groups):,} groups{by}{doubt}")


def is_labelled(path: str | os.PathLike) -> bool:
    """Whether the first row of a file has a label or a pair of completions."""
    try:
        _, row = next(read_table(path))
    except (StopIteration, ValueError):
        return False
    return is_labelled_row(row)


def _words(prompt: str | list) -> str:
    """The words that ask: those of the last message, whatever comes before it."""
    last = prompt[-1] if isinstance(prompt, list) and prompt else prompt
    return str(last.get("content")) if isinstance(last, dict) else str(last)


def _example(
    text: LabelledText, row: dict, group: str, where: str, as_prompt: AsPrompt | None, system: str | None
) -> Example:
    meta = row.get("meta", {})
    if not isinstance(meta, dict):
        raise ValueError(f"{where}: meta is {meta!r}; expected an object")
    paraphrase = meta.get("paraphrase", "")
    if not isinstance(paraphrase, str | list):
        raise ValueError(f"{where}: meta.paraphrase is {paraphrase!r}; expected a string or messages")
    if "shown" in meta:  # `write_examples` wrote this row, so its prompt has been through a template
        as_prompt = system = None
    written = write_prompt(text.prompt, as_prompt, where, system)
    about = {}
    if written.templated:
        about = {"shown": written.shown, "shown_at": written.shown_at}
        about |= {"messages": list(written.messages)} if written.messages else {}
    if paraphrase:
        about["paraphrase"] = written.other(paraphrase, as_prompt, where)
        about |= {"paraphrase_shown": paraphrase} if about["paraphrase"] != paraphrase else {}
    return Example(written.prompt, text.completion, text.label, group, str(row.get("id", "")), meta | about)


def write_examples(examples: Iterable[Example], path: str | os.PathLike) -> Path:
    """Write a labelled set, whole or not at all."""
    text = "".join(json.dumps(asdict(example), ensure_ascii=False) + "\n" for example in examples)
    return write_text(path, text)


def as_written(example: Example) -> dict:
    """The fields of an example as its writer wrote them, without what a chat template put around them."""
    meta, prompt = dict(example.meta), example.prompt
    if "shown" in meta:
        shown, _ = meta.pop("shown"), meta.pop("shown_at", None)
        prompt = meta.pop("messages", None) or [{"role": "user", "content": shown}]
        if "paraphrase_shown" in meta:
            meta["paraphrase"] = meta.pop("paraphrase_shown")
    return asdict(example) | {"prompt": prompt, "meta": meta}


def words_of(example: Example) -> str:
    """All words of an example's prompt as its writer wrote them, one message after the other."""
    messages = example.meta.get("messages") or [{"content": example.meta.get("shown", example.prompt)}]
    return "\n".join(message["content"] for message in messages)


def checksum(examples: Iterable[Example]) -> str:
    """SHA-256 of a labelled set as it was written, whatever its file. A chat template may add the date to a prompt."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(as_written(example), sort_keys=True).encode())
    return digest.hexdigest()
