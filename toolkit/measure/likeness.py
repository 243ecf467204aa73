"""How likely the answers of the model with the instruction are to the model without it: cheap, since nothing is
generated."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.tokenize import completion_ids
from .score import Given, log_probabilities


@dataclass(frozen=True)
class ToldAnswers:
    """bare: the prompts without the instruction; told: with it; answers: the model's answers to the latter."""

    bare: Sequence[str]
    told: Sequence[str]
    answers: Sequence[str]


@dataclass(frozen=True)
class Likeness:
    """The distance from plain to told, in nats a token of the told model's answers."""

    texts: ToldAnswers
    plain: float
    told: float

    @classmethod
    def between(cls, model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, texts: ToldAnswers) -> "Likeness":
        """Measure both ends of the distance."""
        plain = mean_log_probability(model, tokenizer, texts.bare, texts.answers, 0.0)
        return cls(texts, plain, mean_log_probability(model, tokenizer, texts.told, texts.answers, 0.0))

    def of(self, model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, alpha: float) -> float:
        """The share of the distance that the model covers at this strength, with its directions, K and scope: 0 is
        plain, 1 is told, and below 0 the answers are less likely than under the plain model."""
        steered = mean_log_probability(model, tokenizer, self.texts.bare, self.texts.answers, alpha)
        return (steered - self.plain) / (self.told - self.plain)


def mean_log_probability(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    alpha: float,
) -> float:
    """The mean log-probability of a token of the answers, in nats."""
    rows = [Given(prompt, answer, alpha) for prompt, answer in zip(prompts, answers, strict=True)]
    tokens = sum(len(completion_ids(tokenizer, answer)) for answer in answers)
    return sum(log_probabilities(model, tokenizer, rows)) / tokens
