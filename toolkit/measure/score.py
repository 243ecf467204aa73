"""Log-probabilities of given completions, plain or steered, and which of two the model prefers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.tokenize import completion_ids, prompt_ids


@dataclass(frozen=True)
class Given:
    """A completion to be scored after a prompt, at a strength."""

    prompt: str
    completion: str
    alpha: float = 0.0


@torch.no_grad()
def log_probabilities(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Given],
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[float]:
    """The sum of the log-probabilities of each completion's tokens. The shift acts where it does in generation: under
    scope "generated" from the prompt's last token on.

    Raises:
        ValueError: if a text is longer than the model reads; the message counts them.
    """
    tokens = [(prompt_ids(tokenizer, row.prompt), completion_ids(tokenizer, row.completion)) for row in rows]
    longest = model.config.max_position_embeddings
    over = sum(len(prompt) + len(completion) > longest for prompt, completion in tokens)
    if over:
        raise ValueError(f"{over} of {len(rows)} texts are longer than the model's {longest} tokens")
    order = sorted(range(len(rows)), key=lambda index: -sum(map(len, tokens[index])))
    device, found = model.get_input_embeddings().weight.device, [0.0] * len(rows)
    for at in range(0, len(order), batch_size):
        batch = order[at : at + batch_size]
        length = max(sum(map(len, tokens[index])) for index in batch)
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        mask, scored = torch.zeros_like(ids), torch.zeros(len(batch), length, dtype=torch.bool)
        for row, index in enumerate(batch):
            prompt, completion = tokens[index]
            end = len(prompt) + len(completion)
            ids[row, :end] = torch.tensor(prompt + completion)
            mask[row, :end] = 1
            scored[row, len(prompt) : end] = True
        call = {"input_ids": ids.to(device), "attention_mask": mask.to(device), "use_cache": False}
        call["iti_alpha"] = torch.tensor([rows[index].alpha for index in batch], device=device)
        if model.iti_scope == "generated":
            call["iti_start"] = torch.tensor([len(tokens[index][0]) - 1 for index in batch], device=device)
        logs = model(**call).logits[:, :-1].float().log_softmax(-1)
        picked = logs.gather(-1, call["input_ids"][:, 1:, None])[..., 0] * scored[:, 1:].to(device)
        for index, value in zip(batch, picked.sum(-1).tolist(), strict=True):
            found[index] = value
        progress(len(batch))
    return found
