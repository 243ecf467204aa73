"""Prompts and completions as tokens, and chat messages as prompts: one way for fitting, measuring and generating."""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


logger = logging.getLogger(__name__)


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    """The tokens of a prompt. The tokenizer adds special tokens, unless the prompt begins with BOS already (a chat
    template may have written it), or the tokenizer has a template that writes none."""
    own = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)
    add = not own and not (tokenizer.chat_template and _without_bos(tokenizer, str(tokenizer.chat_template)))
    ids = tokenizer(prompt, add_special_tokens=add)["input_ids"]
    if add and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and not prompt.endswith(tokenizer.eos_token):
        _say_of_eos(str(tokenizer.name_or_path), tokenizer.eos_token)
    return ids


@lru_cache(maxsize=64)
def _say_of_eos(name: str, eos: str) -> None:
    """Warns once for each tokenizer."""
    logger.warning(
        "the tokenizer %s ends every prompt with %s, so the model goes on after an end: set add_eos_token to false in "
        "its tokenizer_config.json, or take the token out of its post-processor",
        name or "of this model",
        eos,
    )


@lru_cache(maxsize=8)
def _without_bos(tokenizer: "PreTrainedTokenizerBase", template: str) -> bool:
    """Whether the tokenizer's chat template writes no BOS."""
    text = chat_prompt(tokenizer, [{"role": "user", "content": "x"}])
    return not tokenizer.bos_token or not text.startswith(tokenizer.bos_token)


def completion_ids(tokenizer: "PreTrainedTokenizerBase", completion: str) -> list[int]:
    """The tokens of the text after a prompt, tokenized apart from it, as in generation."""
    return tokenizer(completion, add_special_tokens=False)["input_ids"]


def chat_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    messages: str | Sequence[dict],
    where: str = "prompt",
    system: str | None = None,
    raw: bool = False,
) -> str:
    """The prompt that the model gets for what a person wrote: the one rule for when the chat template is applied.
    Fitting, tasks, generation, the page and exports all follow it.

    - Messages go through the template. They end with the user's turn, and the template adds the assistant's header.
    - A text is the user's only message, and goes through the template too, where the tokenizer has one.
    - A text stays as it is where the tokenizer has no template, where it holds special tokens already (a template may
      have written it), and where `raw` is set.

    `system`: a system message before all others, if there is none. A template may write the date, as Llama 3's does:
    compare and hash what the person wrote, never this.

    Raises:
        ValueError: if messages or `system` are given where the template is not applied, or there is none; if the
            last message is the assistant's; if the template refuses them.
    """
    if isinstance(messages, str):
        marked = any(token in messages for token in tokenizer.all_special_tokens if token)
        if raw or marked or not tokenizer.chat_template:
            if system is not None:
                why = "it is raw, holds special tokens already, or the tokenizer has no chat template"
                raise ValueError(f"{where}: a system message, but the template is not applied: {why}")
            return messages
        messages = [{"role": "user", "content": messages}]
    if raw:
        raise ValueError(f"{where}: messages need the chat template, which a raw prompt skips; expected a text")
    if not tokenizer.chat_template:
        raise ValueError(f"{where}: messages, but the base's tokenizer has no chat template; expected a prompt")
    if messages and messages[-1].get("role") == "assistant":
        raise ValueError(f"{where}: the last message is the assistant's; expected the user's, to be answered")
    if system is not None and (not messages or messages[0].get("role") != "system"):
        messages = [{"role": "system", "content": system}, *messages]
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # whatever a template, which is a program, raises
        raise ValueError(f"{where}: the chat template refuses the messages ({error})") from None


def place_of(as_prompt: Callable[[str | list, str], str], said: str | Sequence[dict], where: str = "prompt") -> int:
    """The index at which the text of the last message begins, in the prompt that `as_prompt` makes of `said`.

    Raises:
        ValueError: if the prompt does not hold that text.
    """
    mark = "\u2603mark\u2603"
    marked = mark if isinstance(said, str) else [*said[:-1], {**said[-1], "content": mark}]
    at = as_prompt(marked, where).find(mark)
    if at < 0:
        raise ValueError(f"{where}: the chat template leaves out the last message")
    return at
