"""Inference-Time Intervention on TruthfulQA as Li et al. (2023) did it (sections 4 and 5), on any Llama.

Every answer of TruthfulQA's multiple choice, right or wrong, is a labelled row "Q: ... A: ...", read at its last
token. In two folds by question, in the file's order: heads are ranked by the accuracy of their probes on one half, the
K best are shifted along the difference of the means, and MC1 and MC2 are measured on the questions of the other half,
the shift from the answer's first token on. Cross-entropy and KL are measured with every token shifted, as their code
does.

Where this differs from their code: heads are ranked by cross-validation on the whole half and not on a fifth of it;
sigma comes from the rows that the directions come from, never from questions that are measured; and questions of CE
and KL are TruthfulQA's own where no other texts are given (theirs are of OpenWebText). True and Informative, which
need judges that are no longer offered, are left out.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..data.labelled_set import Example, write_examples
from ..fit.fit_directions import fit, to_directions
from ..fit.positions import Policy
from ..fit.record_activations import capture
from ..fit.settings import FitSettings
from ..foundation.files import read_text, write_text
from ..foundation.tokenize import completion_ids
from ..measure.divergence import Divergence, Text, measure_divergence
from .multiple_choice import Choice, Question, choices_of, question_shares


TOP_K, ALPHA, FOLDS = 48, 15.0, 2
"""The paper's."""

TEXTS, TOKENS = 100, 128
"""What CE and KL are measured on, in the authors' code: so many texts, so many tokens of each."""

PAPER = {
    "paper, LLaMA-7B": {"MC1": (25.7, 25.9), "CE": (2.16, 2.48), "KL": (0.0, 0.40)},
    "their repository, Llama 3 8B Instruct": {
        "MC1": (39, 41), "MC2": (59, 61), "CE": (2.81, 3.49), "KL": (0.0, 1.08),
    },
}  # fmt: skip
"""(plain, steered) as published, K = 48 and alpha = 15, MC in percent: Li et al. (2023), table 1, and
validation/iti_replication_results.md of their repository (the mean of three seeds)."""


@dataclass(frozen=True)
class Fold:
    """One half. accuracy: out of fold, of the best head's probe. divergence: on texts that are no answers of the
    fold's."""

    heads: list[list[int]]
    accuracy: float
    divergence: Divergence


@dataclass(frozen=True)
class Reproduction:
    """choices: alpha 0 and alpha, over the questions of all folds, each measured once."""

    top_k: int
    alpha: float
    questions: int
    texts: str
    choices: list[Choice]
    folds: list[Fold]

    def to_dict(self) -> dict:
        """As JSON types."""
        return asdict(self)


def labelled_rows(questions: Sequence[Question]) -> list[Example]:
    """Every answer as a row; label 1 says that it is correct."""
    return [
        Example(f"Q: {question.text} A:", f" {answer}", label, question.text, id=f"{number}:{label}:{i}")
        for number, question in enumerate(questions)
        for label, answers in ((1, question.true), (0, question.false))
        for i, answer in enumerate(answers)
    ]


def reproduce(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    out: Path,
    *,
    top_k: int = TOP_K,
    alpha: float = ALPHA,
    primer: str = "",
    texts: Sequence[str] | None = None,
    base: str = "",
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[str, int | None], None] = lambda step, rows: None,
) -> Reproduction:
    """Fit and measure, fold by fold. `out` gets the labelled set, the directions of each fold, and
    `truthfulqa.json`; activations that are there already are not recorded again. The model is at the end as it was.

    Raises:
        ValueError: if there are fewer than 20 questions, or a text is longer than the model reads.
    """
    if len(questions) < 20:
        raise ValueError(f"{len(questions)} questions; expected 20 or more, to fit on one half of them")
    out.mkdir(parents=True, exist_ok=True)
    policy, rows = Policy.parse("last"), labelled_rows(questions)
    write_examples(rows, out / "truthfulqa.jsonl")
    own = [Text("", _cut(text, tokenizer), str(i)) for i, text in enumerate(texts or ())][:TEXTS]
    heads = min(top_k, model.config.num_hidden_layers * model.config.num_attention_heads)
    settings = FitSettings(top_k=heads, rank_by="accuracy", permutations=0, seed=seed)
    shares: list[list[np.ndarray]] = []
    order, folds, names = np.array_split(np.arange(len(questions)), FOLDS), [], []
    before = model.iti_directions, (model.iti_alpha, model.iti_scope, model.iti_top_k)
    try:
        model.iti_alpha = 0.0  # activations are the plain model's
        activations = capture(
            model, tokenizer, rows, policy, batch_size, out / "activations", progress=lambda n: progress("capture", n)
        )
        for number, held_out in enumerate(order, 1):
            asked = [questions[i] for i in held_out]
            outside = {question.text for question in asked}
            split = [replace(row, meta={"split": "test" if row.group in outside else "fit"}) for row in rows]
            found = fit(activations, split, policy, settings, progress=lambda step: progress(step, None))
            directions = to_directions(found, activations, split, policy, base, "truthfulqa")
            directions.save(out / f"directions-fold-{number}.safetensors")
            model.iti_top_k = None
            model.set_iti_directions(directions)
            model.iti_alpha, model.iti_scope = alpha, "all"
            shares.append(
                question_shares(model, tokenizer, asked, [alpha], primer, lambda n: progress("questions", n))
            )
            answered = own or [_answered(question) for question in asked][:TEXTS]
            (divergence,) = measure_divergence(model, tokenizer, answered, [alpha], batch_size)
            accuracy = float(found.out_of_fold_accuracy[found.ranking[0]])
            folds.append(Fold(directions.heads.tolist(), accuracy, divergence))
            names += [question.text for question in asked]
    finally:
        model.iti_top_k = None
        model.set_iti_directions(before[0])
        model.iti_alpha, model.iti_scope, model.iti_top_k = before[1]
    pooled = [np.concatenate(parts, axis=1) for parts in zip(*shares, strict=True)]
    told = f"{len(own)} given texts" if own else f"{len(answered)} of the fold's questions with their best answers"
    result = Reproduction(heads, alpha, len(questions), told, choices_of([0.0, alpha], *pooled, names), folds)
    write_text(out / "truthfulqa.json", json.dumps(result.to_dict(), indent=1) + "\n")
    return result


def _answered(question: Question) -> Text:
    return Text("", f"Q: {question.text} A: {question.true[0]}", question.text)


def _cut(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.decode(completion_ids(tokenizer, text)[:TOKENS])


def comparison(found: Reproduction, name: str) -> list[list[str]]:
    """Rows of a table: what, MC1, MC2, CE and KL, plain and steered, the published ones first."""
    rows = []
    for label, own in PAPER.items():
        for i, how in enumerate(("plain", "ITI")):
            cells = [f"{own[key][i]:g}%" if key in own else "" for key in ("MC1", "MC2")]
            rows.append([f"{label}, {how}", *cells, f"{own['CE'][i]:.2f}", f"{own['KL'][i]:.2f}"])
    for i, choice in enumerate(found.choices):
        key = "perplexity_steered" if i else "perplexity_plain"
        ce = " and ".join(f"{log(getattr(fold.divergence, key)):.2f}" for fold in found.folds)
        kls = [fold.divergence.kl for fold in found.folds] if i else []
        kl = " and ".join(f"{one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in kls) or "0"
        rows.append([f"{name}, {'ITI' if i else 'plain'}", choice.mc1.percent(), choice.mc2.percent(), ce, kl])
    return rows


def read_texts(path: Path) -> list[str]:
    """The texts of a JSON Lines file of `{"text": str}`.

    Raises:
        ValueError: naming the file and the line.
    """
    found = []
    for number, line in enumerate(read_text(path, "JSON Lines").splitlines(), 1):
        try:
            text = json.loads(line)["text"]
        except (json.JSONDecodeError, KeyError, TypeError):
            text = None
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f'{path}, line {number}: {line[:60]!r}; expected {{"text": "..."}}')
        found.append(text)
    if not found:
        raise ValueError(f"{path}: no texts")
    return found
