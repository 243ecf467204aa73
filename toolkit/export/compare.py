"""Compare two forms of a steered model: how far apart their next tokens are, next to the effect of the steering and
that of rounding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iti_llama.generation_iti_llama import plain

from .canary import PROMPTS
from .forms import InTransformers, load_form


@dataclass(frozen=True)
class Difference:
    """The largest absolute differences of log-probabilities of the next token, over `places` places in fixed prompts.
    between: of the two forms. steering: of the first form that is a repo, steered and plain; None if neither is.
    rounding: of the first form under two implementations of attention; None for a GGUF file."""

    between: float
    steering: float | None
    rounding: float | None
    places: int


def places(tokenizer, prompts: Sequence[str] = PROMPTS) -> list[list[int]]:
    """Each prompt, and its first half."""
    cut = []
    for prompt in prompts:
        ids = tokenizer(prompt)["input_ids"]
        cut += [ids, ids[: max(1, len(ids) // 2)]]
    return cut


def compare(a: str, b: str, base: str | None = None, prompts: Sequence[str] = PROMPTS, **kwargs) -> Difference:
    """Compare two forms by path. The tokens are those of the first that is not a GGUF file. `kwargs`: see `load_form`.

    Raises:
        ValueError: if both are GGUF files, or their vocabularies differ; else as `load_form` does.
    """
    first, second = load_form(a, base, **kwargs), load_form(b, base, **kwargs)
    known = next((form for form in (first, second) if isinstance(form, InTransformers)), None)
    if known is None:
        raise ValueError(f"{a} and {b} are GGUF files, whose tokenizer is not read here; expected one folder")
    ids = places(known.tokenizer, prompts)
    logs = [[form.next_token(tokens) for tokens in ids] for form in (first, second)]
    if len(logs[0][0]) != len(logs[1][0]):
        raise ValueError(f"{a} has {len(logs[0][0])} tokens, {b} has {len(logs[1][0])}; expected the same number")
    steering = rounding = None
    for form, of_form in zip((first, second), logs, strict=True):
        if steering is None and hasattr(getattr(form, "model", None), "iti_directions"):
            steering = _largest(of_form, [form.next_token(tokens, **plain(form.model)) for tokens in ids])
    if isinstance(first, InTransformers):
        first.model.set_attn_implementation("eager")
        rounding = _largest(logs[0], [first.next_token(tokens) for tokens in ids])
    return Difference(_largest(*logs), steering, rounding, len(ids))


def _largest(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    """The largest absolute difference; infinite if there is a NaN. Probabilities of 0 are left out: their log is
    infinite."""
    if any(np.isnan(x).any() for x in (*a, *b)):
        return float("inf")
    return max(float(np.abs(x - y)[np.isfinite(x) & np.isfinite(y)].max()) for x, y in zip(a, b, strict=True))
