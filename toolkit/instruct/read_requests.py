"""The requests for a model, from a file or from the package, and their split into three parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.labelled_row import PROMPTS
from ..data.read_table import SUFFIXES, read_table
from ..data.splits import halves
from ..data.written_prompt import check_messages
from ..foundation.files import read_text


EVERYDAY = Path(__file__).parent / "bundled" / "everyday_requests.jsonl"
"""400 requests of eight kinds, written for this package."""

FEWEST = 20
"""The fewest requests: below this a part would have too few."""

HELD_OUT = 0.4
"""The share of the requests that is not fitted on: half to choose on, half to measure on."""


@dataclass(frozen=True)
class Request:
    """written: a text, or messages that end with the user's. group: requests with the same words share it."""

    written: str | list[dict]
    group: str

    @property
    def words(self) -> str:
        """The text, or that of the last message."""
        return self.written if isinstance(self.written, str) else self.written[-1]["content"]


@dataclass(frozen=True)
class Parts:
    """Requests to fit on, to choose on and to measure on; no group is in two of them."""

    fit: list[Request]
    validation: list[Request]
    test: list[Request]


def read_requests(
    path: Path | None = None, mapping: Mapping[str, str] | None = None, chats: bool = True
) -> list[Request]:
    """The requests of a file, each once: lines of a text file; or JSON Lines, a JSON list or CSV, with the prompt
    under one of the names in `PROMPTS`, or under the one that `mapping` gives. Without a path, those of the package.
    chats: whether the model has a chat template; without one, those of the package that are messages are left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, the line and the field; if there are fewer than `FEWEST`; if a file holds messages
            for a model without a chat template.
    """
    own, path, mapping = path is None, Path(path or EVERYDAY), dict(mapping or {})
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected requests, one on each line")
    if unknown := set(mapping) - {"prompt"}:
        raise ValueError(
            f"--map names the {sorted(unknown)[0]}, but requests have only a prompt; expected prompt=FIELD"
        )
    if path.suffix.lower() in SUFFIXES:
        written = [_prompt(row, mapping, where) for where, row in read_table(path)]
    else:
        lines = read_text(path, "requests, one on each line").splitlines()
        written = [line.strip() for line in lines if line.strip()]
    talks = [request for request in written if not isinstance(request, str)]
    if talks and not chats and not own:
        raise ValueError(
            f"{path}: {len(talks)} requests are messages, but the base has no chat template; expected texts"
        )
    written = written if chats else [request for request in written if isinstance(request, str)]
    different = list({str(request): request for request in written}.values())
    if len(different) < FEWEST:
        raise ValueError(f"{path}: {len(different)} requests; expected at least {FEWEST}, better a hundred")
    groups: dict[str, str] = {}
    requests = [Request(request, "") for request in different]
    return [Request(one.written, groups.setdefault(one.words, f"request {len(groups) + 1}")) for one in requests]


def _prompt(row: dict, mapping: Mapping[str, str], where: str) -> str | list[dict]:
    names = [mapping["prompt"]] if "prompt" in mapping else [name for name in PROMPTS if name in row]
    if len(names) > 1:
        raise ValueError(f"{where}: {names[0]} and {names[1]}; expected one of them")
    if not names or names[0] not in row:
        fields = ", ".join(row) or "none"
        raise ValueError(f"{where}: the fields are {fields}; expected {' or '.join(PROMPTS)}, or --map prompt=FIELD")
    prompt = row[names[0]]
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    if not isinstance(prompt, list):
        raise ValueError(f"{where}: {names[0]} is {prompt!r}; expected a text, or messages")
    messages = check_messages(prompt, where)
    if messages[-1]["role"] != "user":
        raise ValueError(f"{where}: the last message is from {messages[-1]['role']!r}; expected the user's")
    return messages


def split_requests(requests: Sequence[Request], seed: int, most: int, most_fitted: int) -> Parts:
    """Split by group: 60% to fit on (at most `most_fitted`), 20% to choose on and 20% to measure on (at most `most`
    each)."""
    groups = sorted({request.group for request in requests})
    mixed = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    held_out = mixed[: max(2, round(len(groups) * HELD_OUT))]
    validation, test = halves(held_out, seed)
    place = {group: number for number, group in enumerate(mixed)}
    ordered = sorted(requests, key=lambda request: place[request.group])

    def part(names: set[str], limit: int) -> list[Request]:
        return [request for request in ordered if request.group in names][:limit]

    return Parts(part(set(groups) - set(held_out), most_fitted), part(validation, most), part(test, most))
