"""The claims of an earlier "creativity steering" (Llama 3.1 8B Instruct, directions fitted on NeoCoder), asked again
on any Llama, beside what each number is worth.

- The fit: human solutions of NeoCoder, label 1 for a technique that at most one other solution of the problem uses,
  split by problem. Its best head stands beside the best head under permuted labels, and beside the words alone.
- Labels from the model's own solutions, as the earlier ones were made: how many there are.
- The steering: answers to Python tasks, judged by tests and by syntax trees. The strength is the one whose KL from
  plain, on the plain answers, meets a budget; the controls are minus alpha, random directions of equal norm, one of
  them at the same KL as well, and a prompt that asks in words.

Finished parts are kept in a folder, and are left alone when the same command runs again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from iti_llama import ITIDirections, ITILlamaForCausalLM

from ..data.labelled_set import Example, checksum, write_examples
from ..data.splits import fold_ids
from ..fit.fit_directions import fit, to_directions
from ..fit.fitted_heads import Fit
from ..fit.positions import Policy, tokenize
from ..fit.rank_heads import out_of_fold
from ..fit.record_activations import Activations, capture
from ..fit.report import top_test_accuracy, verdict
from ..fit.settings import FitSettings
from ..foundation.complete import complete
from ..foundation.files import write_text
from ..foundation.hashing import fingerprint
from ..foundation.intervals import Estimate, estimate
from ..foundation.sandbox import Sandbox
from ..foundation.tokenize import chat_prompt
from ..measure.conditions import Condition
from .code_tasks import Asked, code_set
from .label_solutions import Built, build_from_humans, build_from_samples
from .measure_novelty import INSTRUCTIONS, Measuring, Row, kept
from .neocoder_tasks import neocoder_set
from .problems import Problem
from .sample_solutions import prompt_for


PRIME = "Write a Python function that checks if a number is prime."

OWN_PROBLEMS, OWN_SAMPLES = 40, 2
"""How many problems the model solves itself, and how often."""


@dataclass(frozen=True)
class Reading:
    """What the heads read. rows, groups: to fit on. validation: accuracy of the top head out of fold; test: on other
    problems. top: layer and head. null: the 95th percentile of the best head's AUC under permuted labels, with its p;
    None without one. text_auc: of the words alone. tokens: read for the fit."""

    rows: int
    groups: int
    heads: int
    all_heads: int
    validation: Estimate
    test: Estimate
    layer: int
    layer_auc: float
    layer_test: float
    top: list[int]
    auc: float
    null: list[float] | None
    text_auc: float
    verdict: str
    tokens: int


@dataclass(frozen=True)
class Creativity:
    """labels: how many rows each step of labelling left, for human solutions and for the model's own. prime: the
    answers to `PRIME`, plain and steered. tokens: read for the fit, read as prompts, and written."""

    reading: Reading
    labels: dict[str, dict[str, int]]
    kl_budget: float
    alpha: float
    rows: list[Row]
    prime: dict[str, str]
    tokens: dict[str, int]

    def to_dict(self) -> dict:
        """As JSON types."""
        return asdict(self)


def reproduce(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    tasks: dict[str, Sequence[Asked]],
    out: Path,
    sandbox: Sandbox,
    *,
    settings: FitSettings | None = None,
    policy: str = "completion-mean",
    kl_budget: float = 0.2,
    max_new_tokens: int = 256,
    base: str = "",
    batch_size: int = 32,
    progress: Callable[[str, int | None], None] = lambda step, rows: None,
) -> Creativity:
    """Fit, choose the strength and measure. `tasks`: by the name of the set. `out` gets the labelled set, the
    directions, all answers and `creativity.json`. At the end the model is as it was.

    Raises:
        ValueError: if `out` holds results of other settings, or there are too few problems to fit on.
    """
    out.mkdir(parents=True, exist_ok=True)
    read, settings, as_prompt = Policy.parse(policy), settings or FitSettings(), partial(chat_prompt, tokenizer)
    before = model.iti_directions, (model.iti_alpha, model.iti_top_k)
    measuring = Measuring(model, tokenizer, sandbox, out, batch_size, progress)
    try:
        model.iti_alpha = 0.0  # activations and solutions are the plain model's
        counts, examples = label(measuring, problems, settings.seed)
        reading = read_heads(measuring, examples, read, settings, base)
        model.iti_top_k = None
        model.set_iti_directions(ITIDirections.load(out / "directions.safetensors"))
        own = solve(measuring, problems, max_new_tokens)
        sets = [
            [code_set(name, given, words, as_prompt, max_new_tokens) for name, given in tasks.items()]
            for words in INSTRUCTIONS
        ]
        alpha, rows = measuring.measure(sets, kl_budget)
        prime = complete(model, tokenizer, [as_prompt(PRIME)] * 2, [0.0, alpha], max_new_tokens)
    finally:
        model.iti_top_k = None
        model.set_iti_directions(before[0])
        model.iti_alpha, model.iti_top_k = before[1]
    tokens = {"read to fit": reading.tokens, "of prompts": measuring.prompts, "of answers": measuring.written}
    found = Creativity(
        reading, {"human": counts, "own": own}, kl_budget, alpha, rows,
        dict(zip(("plain", "steered"), prime, strict=True)), tokens,
    )  # fmt: skip
    write_text(out / "creativity.json", json.dumps(found.to_dict(), indent=1) + "\n")
    return found


def label(measuring: Measuring, problems: Sequence[Problem], seed: int) -> tuple[dict[str, int], list[Example]]:
    """Human solutions as a labelled set, written as the model writes its answers. Prompts hold a problem's title."""
    chat = measuring.tokenizer.chat_template

    def completion_of(code: str) -> str:
        return f"```python\n{code.rstrip()}\n```" if chat else code.rstrip() + "\n"

    def make() -> dict:
        built = build_from_humans(
            problems, measuring.sandbox, lambda problem: prompt_for(problem.title, measuring.tokenizer), completion_of,
            seed=seed, progress=lambda n: measuring.progress("human solutions", n),
        )  # fmt: skip
        return {"counts": _counts(built), "rows": [asdict(example) for example in built.examples]}

    settings = {"problems": [problem.id for problem in problems], "template": chat, "seed": seed}
    made = kept(measuring.out / "labels.json", settings, make)
    examples = [Example(**row) for row in made["rows"]]
    if not examples:
        raise ValueError(f"no labelled row is left of {len(problems)} problems: {made['counts']}")
    write_examples(examples, measuring.out / "neocoder.jsonl")
    return made["counts"], examples


def read_heads(
    measuring: Measuring, examples: list[Example], policy: Policy, settings: FitSettings, base: str
) -> Reading:
    """Fit, and keep the directions and what is known of them."""

    def make() -> dict:
        model, tokenizer, out = measuring.model, measuring.tokenizer, measuring.out
        activations = capture(
            model, tokenizer, examples, policy, measuring.batch_size, out / "activations",
            lambda n: measuring.progress("capture", n),
        )  # fmt: skip
        fitted = fit(activations, examples, policy, settings, lambda step: measuring.progress(step, None))
        directions = to_directions(fitted, activations, examples, policy, base, "neocoder")
        directions.save(out / "directions.safetensors")
        tokens = sum(len(tokenize(example, policy, tokenizer).ids) for example in examples)
        return asdict(reading_of(fitted, activations, examples, tokens))

    held = {"model": fingerprint(measuring.model)[:16], "data": checksum(examples), "policy": str(policy)}
    made = kept(measuring.out / "fit.json", held | {"fit": asdict(settings)}, make)
    estimates = {name: Estimate(**made[name]) for name in ("validation", "test")}
    return Reading(**made | estimates)


def reading_of(fitted: Fit, activations: Activations, examples: Sequence[Example], tokens: int) -> Reading:
    settings, inside, top = fitted.settings, fitted.fitting, int(fitted.ranking[0])
    y, groups = (np.array([getattr(examples[i], name) for i in inside]) for name in ("label", "group"))
    folds = fold_ids(y, groups, settings.folds, settings.seed)
    scores = out_of_fold(activations.heads.flatten(1, 2)[inside][:, [top]], y, folds, settings)[:, 0]
    layer = int(fitted.layer_auc.argmax())
    return Reading(
        rows=len(inside),
        groups=len(np.unique(groups)),
        heads=fitted.top_k,
        all_heads=len(fitted.ranking),
        validation=estimate((scores > 0) == (y == 1), groups),
        test=top_test_accuracy(fitted, examples),
        layer=layer,
        layer_auc=float(fitted.layer_auc[layer]),
        layer_test=float(fitted.layer_test_accuracy[layer]),
        top=list(divmod(top, activations.heads.shape[2])),
        auc=float(fitted.out_of_fold_auc[top]),
        null=[float(np.quantile(fitted.null, 0.95)), fitted.p_value(fitted.best_auc)] if len(fitted.null) else None,
        text_auc=fitted.text_auc,
        verdict=verdict(fitted),
        tokens=tokens,
    )


def solve(measuring: Measuring, problems: Sequence[Problem], max_new_tokens: int) -> dict[str, int]:
    """How many of the model's own solutions are correct, and how many labels they give, step by step."""
    task_set = replace(neocoder_set(problems[:OWN_PROBLEMS], 0, measuring.tokenizer), max_new_tokens=max_new_tokens)
    texts = measuring.answer(task_set, Condition("plain"), OWN_SAMPLES).completions
    tasks = [task for task in task_set.tasks for _ in range(OWN_SAMPLES)]
    samples = [
        {"problem_id": task.group, "prompt": task.prompt, "completion": text}
        for task, text in zip(tasks, texts, strict=True)
    ]
    return _counts(build_from_samples(problems, samples, measuring.sandbox))


def _counts(built: Built) -> dict[str, int]:
    return {name: int(count) for name, count in built.counts}
