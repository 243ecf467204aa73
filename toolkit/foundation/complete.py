"""Complete prompts in batches, plain or steered, one strength for each row."""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .strengths import strengths
from .tokenize import prompt_ids


@torch.no_grad()
def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    alphas: Sequence[float] | None = None,
    max_new_tokens: int = 160,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda rows: None,
    **generate_kwargs,
) -> list[str]:
    """The completion of each prompt, greedy unless `generate_kwargs` say otherwise.

    Prompts of similar length share a batch, padded on the left. `alphas` steers each prompt at its own strength; None
    leaves the model as it is. A completion ends at the latest where the model's positions do.

    Raises:
        ValueError: if a prompt fills the model's positions; the message counts them. Nothing is cut in silence.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    completions = [""] * len(prompts)
    device = model.get_input_embeddings().weight.device
    longest = model.config.max_position_embeddings
    ids = {prompt: prompt_ids(tokenizer, prompt) for prompt in set(prompts)}
    over = sum(len(ids[prompt]) >= longest for prompt in prompts)
    if over:
        raise ValueError(f"{over} of {len(prompts)} prompts are longer than the model's {longest} tokens")
    kwargs = {"do_sample": False} | generate_kwargs
    for at in range(0, len(order), batch_size):
        batch = order[at : at + batch_size]
        inputs = tokenizer.pad(
            {"input_ids": [ids[prompts[i]] for i in batch]}, padding_side="left", return_tensors="pt"
        ).to(device)
        length = inputs["input_ids"].shape[1]
        if alphas is not None:
            kwargs["iti_alpha"] = strengths(model, [alphas[i] for i in batch])
        output = model.generate(**inputs, max_new_tokens=min(max_new_tokens, longest - length), **kwargs)
        texts = tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            completions[index] = text
        progress(len(batch))
    return completions


def function_body(completion: str) -> str:
    """A completion up to the end of the function that the prompt began: the first line that is not indented."""
    lines = completion.split("\n")
    for number, line in enumerate(lines[1:], 1):
        if line.strip() and not line.startswith((" ", "\t")):
            return "\n".join(lines[:number]).rstrip() + "\n"
    return completion.rstrip() + "\n"
