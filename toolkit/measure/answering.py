"""Whether answers still answer what was asked, without a judge: a request is likelier after its own answer than after
the answer to another request, under the plain model. Where answers say nothing of their requests that is so for half.
"""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.tokenize import chat_prompt, completion_ids, prompt_ids
from .score import Given, log_probabilities


ASKS = "Here is an answer:\n\n{answer}\n\nWhich question or request does it answer?"

CHANCE = 0.5


def answering(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[str],
    answers: Sequence[str],
    seed: int = 0,
) -> list[float]:
    """For each answer 1 if its own request is likelier after it than after another answer, which is drawn once by
    `seed`; 0 if not; 0.5 where both are as likely, there is no other request, or the model reads no text so long."""
    order = np.random.default_rng(seed).permutation(len(answers)).tolist()
    turn = "" if tokenizer.chat_template else "\n\n"
    pairs = {}
    for place, index in enumerate(order):
        others = (i for i in [*order[place + 1 :], *order[:place]] if requests[i] != requests[index])
        if (other := next(others, None)) is None:
            continue
        prompts = [chat_prompt(tokenizer, ASKS.format(answer=answers[i])) + turn for i in (index, other)]
        length = len(completion_ids(tokenizer, requests[index]))
        if all(fits(model, tokenizer, prompt, length) for prompt in prompts):
            pairs[index] = [Given(prompt, requests[index]) for prompt in prompts]
    scores = iter(log_probabilities(model, tokenizer, [row for pair in pairs.values() for row in pair]))
    shares = [0.5] * len(answers)
    for index, own in zip(pairs, scores, strict=False):
        shares[index] = float(np.sign(own - next(scores)) + 1) / 2
    return shares


def fits(model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str, length: int) -> bool:
    """Whether the model reads the prompt and `length` tokens after it."""
    return len(prompt_ids(tokenizer, prompt)) + length <= model.config.max_position_embeddings
