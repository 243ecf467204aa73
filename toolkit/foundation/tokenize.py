"""Prompts and completions as tokens, and chat messages as prompts: one way for fitting, measuring and generating."""

from collections.abc import Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def holds_specials(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> bool:
    """Whether a prompt has its own special tokens, as one that a chat template wrote does."""
    return bool(tokenizer.bos_token and prompt.startswith(tokenizer.bos_token))


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    """The tokens of a prompt. Special tokens come from the tokenizer, unless the prompt holds its own."""
    return tokenizer(prompt, add_special_tokens=not holds_specials(tokenizer, prompt))["input_ids"]


def completion_ids(tokenizer: "PreTrainedTokenizerBase", completion: str) -> list[int]:
    """The tokens of what comes after a prompt, tokenized apart from it, as in generation."""
    return tokenizer(completion, add_special_tokens=False)["input_ids"]


def chat_prompt(tokenizer: "PreTrainedTokenizerBase", messages: str | Sequence[dict], where: str = "prompt") -> str:
    """Messages, or a text of the user, as the prompt that the model's chat template makes of them. A text that holds
    special tokens already, or for a tokenizer without a template, stays as it is.

    Raises:
        ValueError: if messages are given and the tokenizer has no chat template, or the template refuses them.
    """
    if isinstance(messages, str):
        marked = any(token in messages for token in tokenizer.all_special_tokens if token)
        if not tokenizer.chat_template or marked:
            return messages
        messages = [{"role": "user", "content": messages}]
    if not tokenizer.chat_template:
        raise ValueError(f"{where}: messages, but the base's tokenizer has no chat template; expected a prompt")
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # whatever a template, which is a program, raises
        raise ValueError(f"{where}: the chat template refuses the messages ({error})") from None
