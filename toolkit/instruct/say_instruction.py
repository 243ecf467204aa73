"""Put an instruction into a request, at a place that the base has for it."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..data.written_prompt import WrittenPrompt, write_prompt
from ..foundation.tokenize import chat_prompt
from .read_requests import Request


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def places_of(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, ...]:
    """The places that a base has for an instruction: a comment where it has no chat template."""
    return ("after", "before", "system") if tokenizer.chat_template else ("comment",)


def with_instruction(written: str | list[dict], instruction: str, place: str) -> str | list[dict]:
    """A request with the instruction at this place."""
    if place == "comment":
        return f"# {instruction}\n{written}"
    messages = [{"role": "user", "content": written}] if isinstance(written, str) else list(written)
    if place == "system":
        given = [messages.pop(0)["content"]] if messages[0]["role"] == "system" else []
        return [{"role": "system", "content": "\n".join([*given, instruction])}, *messages]
    words = messages[-1]["content"]
    text = f"{words}\n\n{instruction}" if place == "after" else f"{instruction}\n\n{words}"
    return [*messages[:-1], {**messages[-1], "content": text}]


@dataclass(frozen=True)
class Prompts:
    """The prompts that the model gets for requests, with an instruction at a place or without one."""

    tokenizer: "PreTrainedTokenizerBase"

    def bare(self, request: Request) -> WrittenPrompt:
        """The prompt without an instruction."""
        return write_prompt(request.written, partial(chat_prompt, self.tokenizer), f"{request.group}")

    def told(self, request: Request, instruction: str, place: str) -> WrittenPrompt:
        """The prompt with the instruction.

        Raises:
            ValueError: if the base has no such place.
        """
        places = places_of(self.tokenizer)
        if place not in places:
            has = "has" if self.tokenizer.chat_template else "has no"
            raise ValueError(f"--place is {place!r}; expected {', '.join(places)}: the base {has} a chat template")
        written = with_instruction(request.written, instruction, place)
        return write_prompt(written, partial(chat_prompt, self.tokenizer), request.group)
