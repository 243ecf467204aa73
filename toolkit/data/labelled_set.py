"""The labelled set that directions are fitted on: JSON Lines of prompt, completion, label and group."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..foundation.files import write_text
from ..foundation.tokenize import place_of


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


def read_examples(path: str | os.PathLike, as_prompt: Callable[[str | list, str], str] | None = None) -> list[Example]:
    """Read and check a labelled set. `as_prompt(prompt or messages, where)` is what the model is given for them, see
    `chat_prompt`; without it prompts stay as they are, and `messages` are refused. Where it changes something,
    `meta["shown"]` is what the user wrote, and `meta["shown_at"]` where in the prompt that begins.

    Raises:
        ValueError: naming the file, the line, the field, the value found and the value wanted.
    """
    examples = []
    with Path(path).open("rb") as file:  # line by line: a set may be large
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: not UTF-8 at byte {error.start}; expected JSON Lines in UTF-8") from None
            if text.strip():
                examples.append(_parse(text, where, as_prompt))
    if not examples:
        raise ValueError(f"{path}: no rows; expected JSON Lines of prompt, completion, label and group")
    labels = {example.label for example in examples}
    if len(labels) < 2:
        raise ValueError(f"{path}: every label is {labels.pop()}; expected rows of label 0 and of label 1")
    if len({example.group for example in examples}) < 2:
        raise ValueError(
            f"{path}: every row is of group {examples[0].group!r}; expected two groups or more, to split by"
        )
    return examples


def _parse(line: str, where: str, as_prompt: Callable[[str | list, str], str] | None) -> Example:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: no JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {type(row).__name__}; expected an object")
    messages = row.get("messages")
    if messages is not None:
        if "prompt" in row:
            raise ValueError(f"{where}: prompt and messages; expected one of them")
        if as_prompt is None:
            raise ValueError(f"{where}: messages, which need the chat template of a model; expected a prompt here")
        row["prompt"] = _last_said(messages, where)
    for name in ("prompt", "completion", "group"):
        if not isinstance(row.get(name), str):
            raise ValueError(f"{where}: {name} is {row.get(name)!r}; expected a string")
    if not row["completion"].strip():
        raise ValueError(f"{where}: completion is empty")
    if isinstance(row.get("label"), bool) or row.get("label") not in (0, 1):
        raise ValueError(f"{where}: label is {row.get('label')!r}; expected 0 or 1")
    meta = row.get("meta", {})
    if not isinstance(meta, dict):
        raise ValueError(f"{where}: meta is {meta!r}; expected an object")
    if not isinstance(meta.get("paraphrase", ""), str):
        raise ValueError(f"{where}: meta.paraphrase is {meta['paraphrase']!r}; expected a string")
    prompt = row["prompt"] if as_prompt is None else as_prompt(messages or row["prompt"], where)
    if prompt != row["prompt"]:
        meta = meta | {"shown": row["prompt"], "shown_at": place_of(as_prompt, messages or row["prompt"], where)}
        if meta.get("paraphrase"):
            other = meta["paraphrase"]
            said = [*messages[:-1], {**messages[-1], "content": other}] if messages else other
            meta["paraphrase"] = as_prompt(said, where)
    return Example(prompt, row["completion"], row["label"], row["group"], str(row.get("id", "")), meta)


def _last_said(messages: object, where: str) -> str:
    """The last message's text. Raises `ValueError` unless they are messages."""
    right = isinstance(messages, list) and messages
    if not right or not all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in messages
    ):
        raise ValueError(f"{where}: messages is {messages!r}; expected a list of objects with role and content, texts")
    return messages[-1]["content"]


def write_examples(examples: Iterable[Example], path: str | os.PathLike) -> Path:
    """Write a labelled set, whole or not at all."""
    text = "".join(json.dumps(asdict(example), ensure_ascii=False) + "\n" for example in examples)
    return write_text(path, text)


def checksum(examples: Iterable[Example]) -> str:
    """SHA-256 of a labelled set, whatever file it came from."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True).encode())
    return digest.hexdigest()
