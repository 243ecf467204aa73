"""Settings of measuring and of choosing a strength. Imports are light: the command line builds its options from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from iti_llama.iti_directions import check_fields

from ..fit.settings import FitSettings
from ..foundation.settings import like, setting


PAIRS_KL_GUARD = 0.25
"""The largest mean KL, in nats a token, of a choice on labelled pairs, unless another is given. Nothing is generated
then, so no answer could show damage."""

CHANCE = 0.5
"""The share of answers to their own request, see `answering`, if no answer says anything of it."""

SWEEP_BATCH = 256
"""Answers that a sweep writes at once: tasks times alphas, at most."""


@dataclass(frozen=True)
class Grid:
    """What a sweep tries, and what a choice may cost, see `choose_point`. A KL budget replaces the alphas: it gives
    the largest alpha whose mean KL stays within it, for one K and one scope."""

    alphas: Sequence[float] | None = setting(
        None,
        "strengths, separated by commas, each tried with both signs; 'even': eight even steps to the first damage; "
        "with --instruction up to four by default, the mildest first",
        words={"even": None},
    )
    top_ks: Sequence[int] | None = setting(None, "numbers of heads, separated by commas; by default the repo's")
    scopes: Sequence[str] = setting(("all",), "all, generated, or both", words={"both": ("all", "generated")})
    guard: float = setting(0.05, "largest share of correct (without tests: intact) answers that may be lost")
    kl_guard: float | None = setting(
        None, f"largest mean KL, in nats a token; {PAIRS_KL_GUARD:g} by default for --target labels"
    )
    perplexity_guard: float = setting(
        1.1,
        "largest perplexity of texts without the behaviour, as a multiple of the plain model's",
        min=1,
        metavar="R",
    )
    kl_budget: float | None = setting(
        None, "instead of a grid: take the largest alpha whose mean KL stays within this; needs no --target"
    )

    def __post_init__(self):
        if self.alphas is not None and not all(0 < alpha < math.inf for alpha in self.alphas):
            raise ValueError(
                f"alphas are {list(self.alphas)}; expected positive numbers, each is tried with both signs"
            )
        for scope in self.scopes:
            check_fields({"iti_scope": scope})
        for name in ("guard", "kl_guard", "perplexity_guard", "kl_budget"):
            if (value := getattr(self, name)) is not None and math.isnan(value):
                raise ValueError(f"{name} is {value}; expected a number")
        if self.kl_budget is not None and len(self.top_ks or (0,)) * len(self.scopes) > 1:
            raise ValueError("a KL budget gives one alpha; expected one K and one scope")


@dataclass(frozen=True)
class MeasureSettings:
    """How a steering is measured. The checks ask every task in four other phrasings as well."""

    alpha: float | None = setting(None, "strength; by default the repo's")
    samples: int = setting(1, "samples of each task; 1 is greedy", min=1)
    temperature: float = setting(1.0, "temperature for more than one sample", min=0.01)
    checks: bool = setting(False, "also run three checks: controllability, utility and robustness")
    damage: str | None = setting(
        None,
        "a file of pairs that have nothing to do with the behaviour, as questions with a right and a wrong answer; "
        "the utility check counts how many right answers are lost",
        metavar="FILE",
    )
    guard: float = like(Grid, "guard")
    perplexity_guard: float = like(Grid, "perplexity_guard")
    seed: int = like(FitSettings, "seed")

    def __post_init__(self):
        if self.damage is not None and not self.checks:
            raise ValueError(f"--damage is {self.damage!r}, which a check reads; expected --checks with it")
        if self.alpha is not None:
            check_fields({"iti_alpha": self.alpha})


@dataclass(frozen=True)
class TaskRequest:
    """Which tasks are asked for, and what is wanted of an answer. folder: the repo's, "" for one on the Hub. halved:
    each part gets half the groups of a file's tasks, so that no group serves both to choose and to measure.
    texts_alone: no task is answered, only divergence on texts is measured, so a labelled set needs no pairs."""

    tasks: str | None = setting(
        None,
        "corpus:test, corpus:validation, held-out:test, held-out:validation, neocoder:STATE, neocoder158:STATE, a "
        "JSON Lines file of prompts (with tests or without) or of labelled rows, a TruthfulQA CSV file; by default "
        "what `fit` kept of the labelled set",
    )
    target: str | None = setting(
        None,
        "what is wanted of a completion: a regular expression, FILE.py:function (of prompt and completion), probe (a "
        "classifier of the labelled texts) or labels (which completion of a labelled pair is preferred; the default "
        "for labelled sets)",
    )
    header: str | None = setting(None, "a line before the prompt that asks for the behaviour in words, for comparison")
    n: int = setting(
        100,
        "number of tasks; the first ones for NeoCoder, labelled sets and files",
        flags=("--n", "--limit"),
        min=2,
        metavar="N",
    )
    max_new_tokens: int | None = setting(
        None, "largest number of tokens in an answer; by default the task set's own", min=1, metavar="N"
    )
    raw: bool = setting(False, "use prompts as they are, without the chat template")
    system: str | None = setting(None, "system message before each prompt that has none", metavar="TEXT")
    seed: int = like(FitSettings, "seed")
    folder: str = ""
    halved: bool = False
    texts_alone: bool = False
