"""lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness) on a steered model.

Importing this module registers the model type `iti-llama` there. When the harness asks for the likelihood of an
answer, the shift starts at the answer's first token, whatever the model's scope: the plain model reads the question,
as in Li et al.'s evaluation and in `multiple_choice`. For a rolling likelihood every token of the text is shifted, in
each of its windows. Generated text is shifted as the model's scope says.
"""

import copy
from collections.abc import Sequence
from typing import Any

import lm_eval
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.configuration_iti_llama import pinned

from ..foundation.complete import end_ids
from .score import score_tokens


@register_model("iti-llama")
class ITILlamaLM(HFLM):
    """The model type `iti-llama`.

    Args:
        pretrained: a steered repo (Hub name or folder), or a loaded `ITILlamaForCausalLM`.
        iti_alpha: strength; by default that of the repo. `lm.model.iti_alpha` changes it without a reload.
        revision, dtype, device_map: as in `from_pretrained`.
        tokenizer: by default that of the repo.
        kwargs: passed on to `HFLM`.

    Raises:
        ValueError: if it is not a steered model, or batch_size is not a number.
    """

    def __init__(
        self,
        pretrained: str | ITILlamaForCausalLM,
        iti_alpha: float | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        device_map: str = "auto",
        tokenizer: Any = None,
        batch_size: int = 16,
        device: str | None = None,
        **kwargs,
    ):
        if not str(batch_size).isdecimal():
            raise ValueError(f"batch_size is {batch_size!r}; expected a number of rows")
        if isinstance(pretrained, str):
            hub = pinned(pretrained, {"revision": revision} if revision else {})
            where = {"device_map": device or device_map, "dtype": dtype}
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(pretrained, trust_remote_code=False, **hub)
            pretrained = ITILlamaForCausalLM.from_pretrained(pretrained, **where, **hub).eval()
        if getattr(pretrained, "iti_directions", None) is None:
            raise ValueError("the model holds no directions; expected a steered model (model type hf takes others)")
        if iti_alpha is not None:
            pretrained.iti_alpha = float(iti_alpha)
        tokenizer = copy.deepcopy(tokenizer or AutoTokenizer.from_pretrained(pretrained.name_or_path))
        pad = tokenizer.pad_token_id
        if (
            pad is None or pad >= pretrained.config.vocab_size
        ):  # the harness pads; the caller's tokenizer stays as it is
            tokenizer.pad_token_id = next(iter(end_ids(pretrained)), 0)
        super().__init__(pretrained, tokenizer=tokenizer, batch_size=int(batch_size), **kwargs)

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        tokens = []
        for _, context, answer in requests:
            if len(answer) > self.max_length:
                raise ValueError(f"an answer has {len(answer)} tokens; the model reads {self.max_length}")
            whole = (context + answer)[-self.max_length - 1 :]  # the last token is scored, not read
            tokens.append((whole[: -len(answer)], answer))
        alphas = [self.model.iti_alpha] * len(tokens)
        starts = [
            self._rolling_start(context) if request is None else len(context)
            for (request, *_), (context, _) in zip(requests, tokens, strict=True)
        ]
        scored = score_tokens(self.model, tokens, alphas, starts, override_bs or self.batch_size)
        found = [(one.log_probability, one.likeliest) for one in scored]
        for (request, *_), answer in zip(requests, found, strict=True):
            if request is not None:
                self.cache_hook.add_partial("loglikelihood", request, answer)
        return found

    def _rolling_start(self, context: list[int]) -> int:
        """The first shifted position in a window of a rolling log-likelihood. The whole text counts as answer, so text
        that a window repeats as context is shifted too. The context of the first window is not shifted: it is the
        token that the harness puts before the text."""
        return int(context == [self.prefix_token_id])


def manager_of(tasks: Sequence[str], include_path: str | None) -> TaskManager:
    """A manager that knows the tasks. If `include_path` has all of them, the thousands of tasks that come with the
    harness are not read."""
    if include_path is not None:
        own = TaskManager(include_path=include_path, include_defaults=False)
        if set(tasks) <= set(own.all_tasks):
            return own
    return TaskManager(include_path=include_path)


def evaluate_at(
    lm: ITILlamaLM, tasks: Sequence[str], alphas: Sequence[float], include_path: str | None = None, **kwargs
) -> dict[float, dict]:
    """{alpha: {task: {metric: value}}}: the harness's results of one loaded model at each strength. The model gets its
    strength back. `kwargs`: passed on to `lm_eval.simple_evaluate`."""
    manager, before, results = manager_of(tasks, include_path), lm.model.iti_alpha, {}
    try:
        for alpha in alphas:
            lm.model.iti_alpha = alpha
            result = lm_eval.simple_evaluate(lm, tasks=list(tasks), task_manager=manager, **kwargs)
            results[alpha] = result["results"]
    finally:
        lm.model.iti_alpha = before
    return results
