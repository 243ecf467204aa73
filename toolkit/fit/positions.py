"""Where in a text activations are read: a position policy, and the tokens that it selects."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data.labelled_set import Example
from ..foundation.tokenize import completion_ids, prompt_ids


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Policy:
    """Where in a text activations are read.

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
        if self.fraction == 0:
            return ""
        end = completion.rfind("\n", 0, round(len(completion) * self.fraction) + 1)
        return completion[: end + 1]

    def check(self, examples: Sequence[Example]) -> None:
        """Check from the texts alone that the part read can tell the labels apart at all.

        Raises:
            ValueError: if the policy reads part of a completion and some completions have no line that ends there, or
                if the texts read for label 1 are the same as those for label 0.
        """
        if self.kind == "fraction" and self.fraction > 0:
            cut_off = [number for number, example in enumerate(examples, 1) if not self.cut(example.completion)]
            if cut_off:
                raise ValueError(
                    f"policy is '{self}', which reads up to the end of a line, but {len(cut_off)} of {len(examples)} "
                    f"completions have no line that ends in their first {self.fraction:g}: the first is row "
                    f"{cut_off[0]}, {examples[cut_off[0] - 1].completion[:40]!r}; expected last or completion-mean"
                )
        read = [Counter(e.prompt + self.cut(e.completion) for e in examples if e.label == label) for label in (0, 1)]
        totals = [counts.total() for counts in read]
        if all(totals) and all(read[0][text] * totals[1] == read[1][text] * totals[0] for text in read[0] | read[1]):
            raise ValueError(
                f"policy is '{self}', which reads the same texts for label 1 as for label 0 (the first is "
                f"{next(iter(read[0]))[-40:]!r}), so nothing tells them apart; expected last or completion-mean, or "
                "prompts that differ"
            )


@dataclass(frozen=True)
class Row:
    """A tokenized text. Activations are averaged over its tokens from `first` to the last."""

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
