"""Answers to the tasks of a set: completions that the model writes, or its preference between two given ones."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.complete import complete
from .score import Given, log_probabilities
from .tasks import TaskSet


def respond(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task_set: TaskSet,
    tasks: Sequence,
    asked: Sequence[bool],
    alphas: Sequence[float],
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda rows: None,
    **sampling,
) -> list[str]:
    """The answer to each of `tasks`, which belong to the set, at its strength; `asked` in words or not. For a set of
    pairs an answer is the log-odds of the first completion against the second, in nats, as a text."""
    prompts = [
        task_set.asked(task) if ask else task_set.prompt_of(task) for task, ask in zip(tasks, asked, strict=True)
    ]
    if not task_set.pairs:
        kwargs = {"max_new_tokens": task_set.max_new_tokens, "batch_size": batch_size, "progress": progress} | sampling
        return complete(model, tokenizer, prompts, alphas, **kwargs)
    rows = [
        Given(prompt, text, float(alpha))
        for task, prompt, alpha in zip(tasks, prompts, alphas, strict=True)
        for text in task.completions
    ]
    scores = log_probabilities(model, tokenizer, rows, batch_size, lambda n: progress(n // 2))
    return [f"{wanted - other:+.4f}" for wanted, other in zip(scores[::2], scores[1::2], strict=True)]
