"""lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness) on a steered model.

Importing this module registers the model type `iti-llama` there. Answers whose likelihood is asked for are shifted
from their first token on, whatever the model's scope: the question is read by the plain model, as in Li et al.'s
evaluation and in `multiple_choice`. Of a text whose rolling likelihood is asked for, every token is shifted, in each
window of it. What is generated is shifted where the model's scope says.
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
        iti_alpha: strength; the repo's own by default. `lm.model.iti_alpha` changes it, nothing is reloaded.
        revision, dtype, device_map: as in `from_pretrained`.
        tokenizer: the repo's own by default.
        kwargs: of `HFLM`.

    Raises:
        ValueError: if it is no steered model, or batch_size is no number.
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
        """The first shifted position of a window of a rolling log-likelihood. There the text is all answer, so what is
        repeated of it as context is shifted too; the first window's context is the token that the harness puts before
        the text, and is not."""
        return int(context == [self.prefix_token_id])


def manager_of(tasks: Sequence[str], include_path: str | None) -> TaskManager:
    """One that knows the tasks. The harness's own thousands are not read where `include_path` has all that are asked
    for."""
    if include_path is not None:
        own = TaskManager(include_path=include_path, include_defaults=False)
        if set(tasks) <= set(own.all_tasks):
            return own
    return TaskManager(include_path=include_path)


def evaluate_at(
    lm: ITILlamaLM, tasks: Sequence[str], alphas: Sequence[float], include_path: str | None = None, **kwargs
) -> dict[float, dict]:
    """{alpha: {task: {metric: value}}}: the harness's results at each strength, of one loaded model, whose own is put
    back. `kwargs` are those of `lm_eval.simple_evaluate`."""
    manager, before, results = manager_of(tasks, include_path), lm.model.iti_alpha, {}
    try:
        for alpha in alphas:
            lm.model.iti_alpha = alpha
            result = lm_eval.simple_evaluate(lm, tasks=list(tasks), task_manager=manager, **kwargs)
            results[alpha] = result["results"]
    finally:
        lm.model.iti_alpha = before
    return results
