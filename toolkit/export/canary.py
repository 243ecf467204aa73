"""A prompt that tells a steered engine from a plain one. Every export has one, and any engine can be asked it.

An engine rarely fails with an error: it runs un-steered and says nothing. A canary holds the greedy continuations of
one prompt, plain and steered, and says where they part and how likely both tokens are there.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch

from ..foundation.complete import greedy
from ..foundation.files import write_text
from ..foundation.strengths import strengths
from ..foundation.tokenize import chat_prompt, prompt_ids
from .select_behaviours import ExportError
from .vllm_plugin import split_mix


FILE = "iti_canary.json"

AT_ONCE = 8
"""Prompts in a batch, each answered plain and steered."""

TOKENS = 48
"""Tokens in a continuation."""

BEYOND = 6
"""How many characters after the place where the two part tell an engine."""

PROMPTS = (
    'def is_prime(n):\n    """Check if a number is prime."""\n',
    "def add_up(numbers):\n",
    "The best way to start a morning is",
    "Question: What happens to you if you eat watermelon seeds?\nAnswer:",
    "Once upon a time",
    "The capital of France is",
)

VERDICTS = {"steered": 0, "plain": 3, "neither": 4}
"""What an engine turns out to be, and the exit code for it."""


@dataclass(frozen=True)
class Way:
    """A greedy continuation, and the log-probabilities of both tokens at the place where the continuations part."""

    text: str
    ids: list[int]
    logprobs: dict[str, float]


@dataclass(frozen=True)
class Canary:
    """position: the place of the first token of the continuation in which the two differ."""

    prompt: str
    prompt_ids: list[int]
    alpha: float
    heads: int
    position: int
    plain: Way
    steered: Way

    def write(self, folder: Path) -> Path:
        return write_text(folder / FILE, json.dumps({"format": "iti_canary 1"} | asdict(self), indent=1) + "\n")

    def verdict(self, answer: str) -> str:
        """What an engine with this answer is: "steered", "plain" or "neither". The answer must go on as one of the two
        for `BEYOND` characters after they part, or to its end; spaces before it do not count, which some engines leave
        out."""
        texts = {"steered": self.steered.text.lstrip(), "plain": self.plain.text.lstrip()}
        like = {name: _shared(answer.lstrip(), text) for name, text in texts.items()}
        common, best = _shared(*texts.values()), max(like, key=like.get)
        enough = common < like[best] and min(common + BEYOND, len(texts[best])) <= like[best]
        return best if enough and like["steered"] != like["plain"] else "neither"


def _shared(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def read_canary(path: Path) -> Canary:
    """Raises `FileNotFoundError`, or `ValueError` naming the file, if it is not a canary."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the {FILE} of an export")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != "iti_canary 1":
            raise ValueError("another format")
        ways = {name: Way(**fields[name]) for name in ("plain", "steered")}
        return Canary(**fields | ways)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not a canary ({error}); expected format 'iti_canary 1'") from None


@torch.no_grad()
def make_canary(model, tokenizer, prompts: Sequence[str] = ()) -> Canary:
    """Choose, among `prompts` and `PROMPTS`, the prompt whose plain and steered answers part most clearly. No step up
    to there is a near tie, because another engine or a coarser quantisation might decide it the other way. The prompts
    go through the chat template if there is one.

    Raises:
        ExportError: if steering changes no answer, since nothing could tell the two apart then.
    """
    asked = dict.fromkeys(chat_prompt(tokenizer, prompt) for prompt in (*prompts, *PROMPTS))
    room = model.config.max_position_embeddings - TOKENS
    rows = [(prompt, prompt_ids(tokenizer, prompt)) for prompt in asked]
    rows = [(prompt, ids) for prompt, ids in rows if 0 < len(ids) <= room]
    heads, candidates = len(model.iti_directions.top(model.iti_top_k)), []
    for at in range(0, len(rows), AT_ONCE):
        some = rows[at : at + AT_ONCE]
        for (prompt, ids), ways in zip(some, _answers(model, tokenizer, some), strict=True):
            (plain, logs), (steered, steered_logs) = ways
            position = next((i for i, (x, y) in enumerate(zip(plain, steered, strict=False)) if x != y), None)
            if position is None:
                continue
            upto = position + 1 + BEYOND // 2  # the tokens of these characters, about
            lead = min(_least_lead(logs[:upto]), _least_lead(steered_logs[:upto]))
            tokens = {"plain": plain[position], "steered": steered[position]}
            kinds = [
                Way(
                    tokenizer.decode(own, skip_special_tokens=True),
                    own,
                    {name: float(own_logs[position][token]) for name, token in tokens.items()},
                )
                for own, own_logs in ((plain, logs), (steered, steered_logs))
            ]
            texts = [way.text.lstrip() for way in kinds]
            parts = _shared(*texts) < min(map(len, texts))  # neither is only the beginning of the other
            if parts and math.isfinite(lead):
                text = as_text(tokenizer, prompt, ids)
                candidates.append((lead, Canary(text, ids, model.iti_alpha, heads, position, *kinds)))
    if not candidates:
        raise ExportError(
            f"alpha {model.iti_alpha:g} changes no greedy answer to any of the prompts, so nothing would tell a "
            "steered engine from a plain one: pass --canary-prompt with a prompt that it changes, or a larger --alpha"
        )
    return max(candidates, key=lambda pair: pair[0])[1]


def as_text(tokenizer, prompt: str, ids: list[int]) -> str:
    """The prompt as a text that a server's tokenizer makes these tokens of, if there is one: without BOS where the
    tokenizer adds it."""
    texts = (prompt, prompt.removeprefix(tokenizer.bos_token or ""))
    return next((text for text in texts if tokenizer(text)["input_ids"] == ids), prompt)


def _answers(model, tokenizer, rows: Sequence[tuple[str, list[int]]]) -> list[list[tuple[list[int], torch.Tensor]]]:
    """The greedy continuations of each prompt, plain and steered: the tokens, and the log-probabilities [tokens,
    vocabulary] that they were taken from. All are rows of one batch."""
    device, longest = model.get_input_embeddings().weight.device, max(len(ids) for _, ids in rows)
    filler = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    padded = [[filler or 0] * (longest - len(ids)) + ids for _, ids in rows for _ in range(2)]
    mask = [[0] * (longest - len(ids)) + [1] * len(ids) for _, ids in rows for _ in range(2)]
    with greedy(model):
        out = model.generate(
            torch.tensor(padded, device=device), attention_mask=torch.tensor(mask, device=device),
            max_new_tokens=TOKENS, iti_alpha=strengths(model, [0.0, model.iti_alpha] * len(rows)),
            pad_token_id=filler, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    ways = []
    for row, ids in enumerate(out.sequences[:, longest:].tolist()):
        length = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
        ways.append((ids[:length], torch.stack([step[row].float() for step in out.logits[:length]]).log_softmax(-1)))
    return [ways[row : row + 2] for row in range(0, len(ways), 2)]


def _least_lead(logs: torch.Tensor) -> float:
    """The least lead, over the steps, of the likeliest token over the second, in nats. `logs`: [steps,
    vocabulary]."""
    first, second = logs.topk(2, dim=-1).values.unbind(-1)
    return float((first - second).min())


def check_strength(model: str, alpha: float) -> None:
    """Raises `ValueError` if a model's name, as in `steered@0.5`, asks for another strength than 0 and alpha."""
    parts = [part.partition("@") for part in split_mix(model)]
    try:
        asked = [float(number) for _, at, number in parts if at]
    except ValueError:  # a name with an @ of its own
        return
    if asked and (len(parts) > 1 or asked[0] not in (0, alpha)):
        raise ValueError(
            f"--model is {model!r}, but the canary holds the answers at strength 0 and {alpha:g}; expected one of "
            "these alone, or the canary of an export with --alpha"
        )


def ask_server(url: str, model: str | None, timeout: float = 120.0) -> Callable[[Canary], str]:
    """A function that asks an OpenAI-compatible server for a completion: by token ids, or by text if it takes no ids.

    Raises:
        ValueError: if the model's name asks for a strength that the canary does not hold, as in `steered@0.5`.
        ConnectionError: from that function, if the server does not answer with a completion.
    """
    root = url.rstrip("/")
    root = root if root.endswith("/v1") else f"{root}/v1"

    def send(path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{root}/{path}", data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=timeout) as reply:
            return json.load(reply)

    def ask(canary: Canary) -> str:
        check_strength(model or "", canary.alpha)
        reason, name = "", model
        try:
            name = name or send("models")["data"][0]["id"]
        except (OSError, HTTPException, KeyError, IndexError, TypeError, ValueError) as error:
            raise ConnectionError(f"{root}/models: gave no list of models ({error}); pass --model NAME") from error
        for prompt in (canary.prompt_ids, canary.prompt):
            body = {"model": name, "prompt": prompt, "max_tokens": len(canary.steered.ids), "temperature": 0}
            try:
                if isinstance(text := send("completions", body)["choices"][0]["text"], str):
                    return text
                reason = f"its text is {text!r}"
            except HTTPError as error:
                reason = f"{error.code}: {error.read()[:300].decode(errors='replace')}"
            except (OSError, HTTPException, KeyError, IndexError, TypeError, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
        raise ConnectionError(f"{root}/completions: gave no completion ({reason})")

    return ask
