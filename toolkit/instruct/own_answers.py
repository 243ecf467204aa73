"""The model's answers to requests, with an instruction and without one. Each batch is kept as soon as it is made."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.complete import complete
from ..measure.saved_completions import SavedCompletions


AT_ONCE = 80
"""Rows of a batch, and so the number of answers that a kill may cost."""


class OwnAnswers:
    """Greedy answers of at most `max_new_tokens` tokens. Those that `store` holds are not made again: there a name
    stands for one prompt of each request, and an index for the request."""

    def __init__(
        self,
        model: ITILlamaForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        store: SavedCompletions,
        max_new_tokens: int,
        progress: Callable[[str, int], None] = lambda step, rows: None,
    ):
        self.model, self.tokenizer, self.store, self.progress = model, tokenizer, store, progress
        self.max_new_tokens = max_new_tokens

    def to(self, name: str, prompts: Sequence[str], alpha: float | None = None) -> list[str]:
        """The answer to each prompt. alpha: the strength; None leaves the model as it is."""
        missing = [at for at in range(len(prompts)) if self.store.get(name, at, 0) is None]
        missing.sort(key=lambda at: len(prompts[at]))
        self.progress(name, len(prompts) - len(missing))
        for start in range(0, len(missing), AT_ONCE):
            batch = missing[start : start + AT_ONCE]
            texts = complete(
                self.model,
                self.tokenizer,
                [prompts[at] for at in batch],
                None if alpha is None else [alpha] * len(batch),
                max_new_tokens=self.max_new_tokens,
                batch_size=AT_ONCE,
            )
            self.store.add([(name, at, 0, text) for at, text in zip(batch, texts, strict=True)])
            self.progress(name, len(batch))
        return [self.store.get(name, at, 0) for at in range(len(prompts))]
