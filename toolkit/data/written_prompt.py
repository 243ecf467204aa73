"""A prompt as its writer wrote it (a text or messages), and the prompt that the model gets for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..foundation.tokenize import place_of


AsPrompt = Callable[[str | list, str], str]
"""`as_prompt(text or messages, where)` makes the prompt that the model gets for them, see `chat_prompt`."""


@dataclass(frozen=True)
class WrittenPrompt:
    """The prompt that the model gets, and what it was made from."""

    prompt: str
    """The prompt that the model gets."""
    shown: str
    """The writer's words: the text, or the last message's."""
    shown_at: int
    """The index in the prompt at which these words begin."""
    messages: tuple[dict, ...] = ()
    """The messages, if there were any."""

    @property
    def templated(self) -> bool:
        """Whether a chat template was put around the words."""
        return bool(self.messages) or self.prompt != self.shown

    def other(self, words: str | list, as_prompt: AsPrompt | None, where: str) -> str:
        """The prompt with other words. A text replaces the last message's or the whole; messages replace them all."""
        if isinstance(words, str) and self.messages:
            words = [*self.messages[:-1], {**self.messages[-1], "content": words}]
        return write_prompt(words, as_prompt, where).prompt


def write_prompt(
    written: str | Sequence[dict], as_prompt: AsPrompt | None, where: str, system: str | None = None
) -> WrittenPrompt:
    """The prompt that the model gets for a text or for messages. Without `as_prompt` a text stays as it is. `system`:
    a system message before the others, if there is none; it counts as written, so a text becomes messages.

    Raises:
        ValueError: if messages are given without `as_prompt`, are not valid, or do not end with the user's.
    """
    if system is not None:
        messages = [{"role": "user", "content": written}] if isinstance(written, str) else list(written)
        has_one = messages and isinstance(messages[0], dict) and messages[0].get("role") == "system"
        written = messages if has_one else [{"role": "system", "content": system}, *messages]
    if isinstance(written, str):
        prompt = written if as_prompt is None else as_prompt(written, where)
        return WrittenPrompt(prompt, written, 0 if prompt == written else place_of(as_prompt, written, where))
    messages = check_messages(written, where)
    if as_prompt is None:
        raise ValueError(f"{where}: messages, which need the chat template of a model; expected a prompt here")
    prompt, at = as_prompt(messages, where), place_of(as_prompt, messages, where)
    return WrittenPrompt(prompt, messages[-1]["content"], at, tuple(messages))


def check_messages(messages: object, where: str) -> list[dict]:
    """The messages, unchanged. Raises `ValueError` unless they are valid."""
    right = isinstance(messages, list) and messages
    if not right or not all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in messages
    ):
        raise ValueError(f"{where}: messages is {messages!r}; expected a list of objects with role and content, texts")
    return messages
