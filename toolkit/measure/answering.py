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

OTHERS = 3
"""With how many other answers each answer is compared."""


def answering(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[str],
    answers: Sequence[str],
    seed: int = 0,
) -> list[float]:
    """For each answer, the share of comparisons that it wins. It is compared with `OTHERS` answers to other requests,
    drawn once by `seed`, and wins if its own request is likelier after it than after the other answer. A draw counts
    one half. The share is 0.5 if there is nothing to compare with, or the texts are longer than the model reads."""
    turn = "" if tokenizer.chat_template else "\n\n"
    prompts = [chat_prompt(tokenizer, ASKS.format(answer=answer)) + turn for answer in answers]
    read = [len(prompt_ids(tokenizer, prompt)) for prompt in prompts]
    asked = [len(completion_ids(tokenizer, request)) for request in requests]
    order = np.random.default_rng(seed).permutation(len(answers)).tolist()
    pairs: dict[tuple[int, int], tuple[Given, Given]] = {}
    for place, index in enumerate(order):
        further = [i for i in [*order[place + 1 :], *order[:place]] if requests[i] != requests[index]]
        for other in further[:OTHERS]:
            if max(read[index], read[other]) + asked[index] <= model.config.max_position_embeddings:
                pairs[index, other] = Given(prompts[index], requests[index]), Given(prompts[other], requests[index])
    given = list(dict.fromkeys(row for pair in pairs.values() for row in pair))
    scores = dict(zip(given, log_probabilities(model, tokenizer, given), strict=True))
    shares: list[list[float]] = [[] for _ in answers]
    for (index, _), (own, other) in pairs.items():
        shares[index].append(float(np.sign(scores[own] - scores[other]) + 1) / 2)
    return [float(np.mean(of_answer)) if of_answer else 0.5 for of_answer in shares]
