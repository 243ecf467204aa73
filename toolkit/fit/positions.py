"""Where in a text activations are read: a position policy, and the tokens that it means."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data.labelled_set import Example
from ..foundation.tokenize import completion_ids, prompt_ids


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Policy:
    """Where in a text activations are taken.

    kind: "last" (last token), "completion-mean" (mean over the completion's tokens) or "fraction" (last token of the
    first `fraction` of the completion, cut back to the end of a line; 0 is the last token of the prompt).
    """

    kind: str = "last"
    fraction: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """ "last", "completion-mean" or "fraction F" with F from 0 to 1."""
        if text in ("last", "completion-mean"):
            return cls(text)
        match = re.fullmatch(r"fraction[ =:](\d+(?:\.\d*)?|\.\d+)", text)
        if match and 0 <= float(match[1]) <= 1:
            return cls("fraction", float(match[1]))
        raise ValueError(f"policy is {text!r}; expected last, completion-mean, or fraction F with F from 0 to 1")

    def __str__(self) -> str:
        return f"fraction {self.fraction:g}" if self.kind == "fraction" else self.kind

    def cut(self, completion: str) -> str:
        """The part of a completion that is read."""
        if self.kind != "fraction" or self.fraction == 1:
            return completion
        end = completion.rfind("\n", 0, round(len(completion) * self.fraction) + 1)
        return completion[: end + 1]


@dataclass(frozen=True)
class Row:
    """A tokenized text and the first of the tokens, up to the last, whose activations are averaged."""

    ids: list[int]
    first: int


def tokenize(example: Example, policy: Policy, tokenizer: "PreTrainedTokenizerBase") -> Row:
    """Prompt and completion are tokenized apart, as in generation."""
    prompt = prompt_ids(tokenizer, example.prompt)
    completion = completion_ids(tokenizer, policy.cut(example.completion))
    ids = prompt + completion
    return Row(ids, len(prompt) if policy.kind == "completion-mean" and completion else len(ids) - 1)


def fits(example: Example, policy: Policy, tokenizer: "PreTrainedTokenizerBase", longest: int) -> bool:
    """Whether the model reads the whole text."""
    return len(tokenize(example, policy, tokenizer).ids) <= longest
