"""Inference-Time Intervention on TruthfulQA as Li et al. (2023) did it (sections 4 and 5), on any Llama.

Every answer of TruthfulQA's multiple choice, right or wrong, is a labelled row "Q: ... A: ...", read at its last
token. There are two folds by question, in the file's order. Heads are ranked by the accuracy of their probes on one
half, the K best are shifted along the difference of the means, and MC1 and MC2 are measured on the questions of the
other half, with the shift from the answer's first token on. Cross-entropy and KL are measured with every token
shifted, as in their code. Apart from the paper's K and alpha, each fold chooses a pair by MC2 on a fifth of its
questions, which those directions were not fitted on, if the cross-entropy of other texts rises by less than `GUARD`.
The choice is compared with random directions of equal norm, and with chance: damage moves a model's MC2 towards
chance, which is a gain for a model below it.

This differs from their code in three ways. Heads are ranked by cross-validation on the whole half, not on a fifth of
it. Sigma comes from the rows that the directions come from, never from questions that are measured. CE and KL use
TruthfulQA's questions unless other texts are given (theirs are from OpenWebText). True and Informative are left out,
because they need judges that are no longer offered.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from iti_llama import ITIDirections, ITILlamaForCausalLM

from ..data.labelled_set import Example, write_examples
from ..data.read_table import KINDS, read_table
from ..data.written_prompt import check_messages
from ..fit.fit_directions import fit, to_directions
from ..fit.positions import Policy
from ..fit.record_activations import capture
from ..fit.settings import FitSettings
from ..foundation.files import write_text
from ..foundation.markdown_table import markdown_table
from ..foundation.tokenize import completion_ids
from ..measure.conditions import random_directions
from ..measure.divergence import Divergence, Text, measure_divergence
from .multiple_choice import Choice, Question, SharedPrefix, chance, choices_of, question_shares


TOP_K, ALPHA, FOLDS = 48, 15.0, 2
"""The paper's values."""

ALPHAS, SHARES, GUARD, DRAWS = (1.0, 2.0, 4.0, 8.0), (1.0, 0.25), 0.1, 5
"""The grid of each fold's choice: alphas, and shares of the paper's K; the largest rise of cross-entropy, in nats a
token; draws of random directions."""

TEXTS, TOKENS = 100, 128
"""How many texts, and how many tokens of each, the authors' code measures CE and KL on."""

PAPER = {
    "paper, LLaMA-7B": {"MC1": (25.7, 25.9), "CE": (2.16, 2.48), "KL": (0.0, 0.40)},
    "their repository, Llama 3 8B Instruct": {
        "MC1": (39, 41), "MC2": (59, 61), "CE": (2.81, 3.49), "KL": (0.0, 1.08),
    },
}  # fmt: skip
"""(plain, steered) as published, K = 48 and alpha = 15, MC in percent: Li et al. (2023), table 1, and
validation/iti_replication_results.md of their repository (the mean of three seeds)."""


COLUMNS = ("", "MC1", "MC2", "change", "CE", "KL")
OF_CATEGORY = ("category", "questions", "chance", "plain", "change at the paper's point", "as each fold chose")
FEWEST = 30
"""Questions of a category that is shown by itself: with fewer the interval is too wide."""


@dataclass(frozen=True)
class Fold:
    """One half. accuracy: out of fold, of the best head's probe. divergence: at the paper's K and alpha, on texts
    other than the fold's answers. chosen: the fold's K and alpha, None if no point of the grid is inside the guard.
    chosen_divergence: the divergence there."""

    heads: list[list[int]]
    accuracy: float
    divergence: Divergence
    chosen: tuple[int, float] | None
    chosen_divergence: Divergence | None


@dataclass(frozen=True)
class Reproduction:
    """choices: plain, at the paper's K and alpha, at each fold's choice, and along `DRAWS` random directions at that
    choice and as many at the paper's point, over the questions of all folds, each measured once. categories: the first
    three of those, over the questions of each category of `FEWEST` or more. chance: MC1 and MC2 if all answers are
    equally likely; of_chance: that of each of these categories. primer: whether a text stood before each question.
    read: tokens that MC1 and MC2 took; apart: if each answer at each strength had its own prompt."""

    top_k: int
    alpha: float
    questions: int
    texts: str
    primer: bool
    choices: list[Choice]
    categories: dict[str, list[Choice]]
    chance: tuple[float, float]
    of_chance: dict[str, tuple[float, float]]
    folds: list[Fold]
    read: int
    apart: int

    def to_dict(self) -> dict:
        """As JSON types."""
        return asdict(self)


def labelled_rows(questions: Sequence[Question]) -> list[Example]:
    """Every answer as a row; label 1 means that it is correct."""
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
    `truthfulqa.json`; activations that exist already are not recorded again. At the end the model is as it was.

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
    order, folds, names = np.array_split(np.arange(len(questions)), FOLDS), [], []
    shares: list[np.ndarray] = []
    prefix = SharedPrefix(model)
    before = model.iti_directions, (model.iti_alpha, model.iti_scope, model.iti_top_k)

    def fitted(outside: set[str]):
        split = [replace(row, meta={"split": "test" if row.group in outside else "fit"}) for row in rows]
        found = fit(activations, split, policy, settings, progress=lambda step: progress(step, None))
        return found, to_directions(found, activations, split, policy, base, "truthfulqa")

    def measured(
        asked: Sequence[Question], given: ITIDirections, k: int, alphas: Sequence[float]
    ) -> tuple[np.ndarray, list[Divergence]]:
        """[MC1 and MC2, alphas, questions], and the divergence at each alpha but 0."""
        model.iti_top_k = None
        model.set_iti_directions(given)
        model.iti_alpha, model.iti_scope, model.iti_top_k = 1.0, "all", k
        of_questions = question_shares(prefix, tokenizer, asked, alphas, primer, lambda n: progress("questions", n))
        answered = own or [_answered(question) for question in asked][:TEXTS]
        others = [alpha for alpha in alphas if alpha]
        damage = measure_divergence(model, tokenizer, answered, others, batch_size) if others else []
        return np.stack(of_questions), damage

    try:
        model.iti_alpha = 0.0  # activations are the plain model's
        activations = capture(
            model, tokenizer, rows, policy, batch_size, out / "activations", progress=lambda n: progress("capture", n)
        )
        for number, held_out in enumerate(order, 1):
            asked = [questions[i] for i in held_out]
            outside = {question.text for question in asked}
            validation = [question for question in questions if question.text not in outside][::5]
            _, directions = fitted(outside | {question.text for question in validation})
            tried = {}
            for k in sorted({max(1, round(share * heads)) for share in SHARES}):
                (_, mc2), damage = measured(validation, directions, k, ALPHAS)
                for at, alpha_, cost in zip(mc2.mean(-1), ALPHAS, damage, strict=True):
                    if cost.nll_change.mean <= GUARD:
                        tried[k, alpha_] = at
            chosen = max(tried, key=tried.get) if tried else None
            found, directions = fitted(outside)
            directions.save(out / f"directions-fold-{number}.safetensors")
            of_paper, (divergence,) = measured(asked, directions, heads, [0.0, alpha])
            k, strength = chosen or (heads, 0.0)
            of_fold, costs = measured(asked, directions, k, [strength])
            along = [
                measured(asked, random_directions(directions.top(count), seed), count, [alpha_])[0]
                for count, alpha_ in ((k, strength), (heads, alpha))
                for seed in range(1, DRAWS + 1)
            ]
            shares.append(np.concatenate([of_paper, of_fold, *along], axis=1))
            accuracy = float(found.out_of_fold_accuracy[found.ranking[0]])
            cost = costs[0] if costs else None
            folds.append(Fold(directions.heads.tolist(), accuracy, divergence, chosen, cost))
            names += [question.text for question in asked]
    finally:
        model.iti_top_k = None
        model.set_iti_directions(before[0])
        model.iti_alpha, model.iti_scope, model.iti_top_k = before[1]
    pooled = np.concatenate(shares, axis=2)
    told = f"{len(own)} given texts" if own else f"each fold's first {TEXTS} questions with their best answers"
    alphas = [0.0, alpha, None, *[None] * DRAWS, *[alpha] * DRAWS]
    of_category: dict[str, list[int]] = {}
    for at, question in enumerate(questions):  # the folds keep their order
        of_category.setdefault(question.category, []).append(at)
    large = {name: rows for name, rows in sorted(of_category.items()) if name and len(rows) >= FEWEST}
    result = Reproduction(
        top_k=heads,
        alpha=alpha,
        questions=len(questions),
        texts=told,
        primer=bool(primer),
        choices=choices_of(alphas, *pooled, names),
        categories={
            name: choices_of(alphas[:3], *pooled[:, :3, rows], [names[at] for at in rows])
            for name, rows in large.items()
        },
        chance=chance(questions),
        of_chance={name: chance([questions[at] for at in rows]) for name, rows in large.items()},
        folds=folds,
        read=prefix.read + prefix.answers,
        apart=prefix.apart,
    )
    write_text(out / "truthfulqa.json", json.dumps(result.to_dict(), indent=1) + "\n")
    return result


def _answered(question: Question) -> Text:
    return Text("", f"Q: {question.text} A: {question.true[0]}", question.text)


def _cut(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.decode(completion_ids(tokenizer, text)[:TOKENS])


def comparison(found: Reproduction, name: str) -> list[list[str]]:
    """Rows of a table: name, MC1, MC2, the change of MC2, CE and KL. Published rows come first, chance last."""
    rows = []
    for label, own in PAPER.items():
        for i, how in enumerate(("plain", "ITI")):
            cells = [f"{own[key][i]:g}%" if key in own else "" for key in ("MC1", "MC2")]
            rows.append([f"{label}, {how}", *cells, "", f"{own['CE'][i]:.2f}", f"{own['KL'][i]:.2f}"])
    plain, paper, chosen, *drawn = found.choices
    at_paper, at_chosen = [[getattr(f, name) for f in found.folds] for name in ("divergence", "chosen_divergence")]
    points = ", ".join(f"{f.chosen[0]} heads at {f.chosen[1]:g}" if f.chosen else "none" for f in found.folds)
    ce = " and ".join(f"{math.log(cost.perplexity_plain):.2f}" for cost in at_paper)
    rows.append([f"{name}, plain", plain.mc1.percent(), plain.mc2.percent(), "", ce, "0"])
    for label, choice, costs, random in (
        (f"ITI, {found.top_k} heads at {found.alpha:g}", paper, at_paper, drawn[DRAWS:]),
        (f"ITI, as each fold chose: {points}", chosen, at_chosen, drawn[:DRAWS]),
    ):
        ce = " and ".join(f"{math.log(cost.perplexity_steered):.2f}" for cost in costs if cost)
        kl = " and ".join(f"{cost.kl.mean:.2f}" for cost in costs if cost)
        rows.append([label, choice.mc1.percent(), choice.mc2.percent(), choice.mc2_change.points(), ce, kl])
        means = ([getattr(one, field).mean for one in random] for field in ("mc1", "mc2", "mc2_change"))
        (low1, high1), (low2, high2), (low, high) = ((100 * min(values), 100 * max(values)) for values in means)
        shares = f"{low1:.1f} to {high1:.1f}%", f"{low2:.1f} to {high2:.1f}%", f"{low:+.1f} to {high:+.1f}"
        rows.append([f"random directions there, {len(random)} draws", *shares, "", ""])
    rows.append(["chance", *(f"{100 * share:.1f}%" for share in found.chance), "", "", ""])
    return rows


def by_category(found: Reproduction) -> list[list[str]]:
    """Rows of a table: MC2 of each category, by chance and plain, and its change at the two points."""
    return [
        [
            name,
            f"{plain.mc2.n}",
            f"{100 * found.of_chance[name][1]:.1f}%",
            plain.mc2.percent(),
            *(choice.mc2_change.points() for choice in steered),
        ]
        for name, (plain, *steered) in found.categories.items()
    ]


def words(found: Reproduction) -> str:
    """What the table is of."""
    best, before = ", ".join(f"{fold.accuracy:.1%}" for fold in found.folds), "with" if found.primer else "without"
    best = f"out of fold, by which it was chosen: {best} (the paper's: 83.3%)"
    return (
        f"{found.questions} questions, {before} a primer, {found.top_k} heads, alpha {found.alpha:g}; in brackets 95% "
        f"intervals, bootstrapped by question. Accuracy of the best head's probe in each fold, {best}. CE and KL of "
        f"each fold on {found.texts}. MC1 and MC2 took {found.read:,} tokens; with the prefix "
        f"read again for each answer and strength they would take {found.apart / found.read:.1f} times as many."
    )


def document(found: Reproduction, name: str) -> str:
    """The tables and their words, in Markdown."""
    whole = f"{markdown_table(COLUMNS, comparison(found, name))}\n\n{words(found)}"
    rows = by_category(found)
    told = f"MC2 by category, where there are {FEWEST} questions or more:"
    return f"{whole}\n\n{told}\n\n{markdown_table(OF_CATEGORY, rows)}" if rows else whole


def read_texts(path: Path) -> list[str]:
    """The texts of a file, each under "text" or "prompt", or the turns under "messages" as one text.

    Raises:
        ValueError: naming the file, the line and the field.
    """
    texts = []
    for where, row in read_table(path):
        text = row.get("text", row.get("prompt"))
        if text is None and "messages" in row:
            text = "\n\n".join(message["content"] for message in check_messages(row["messages"], where))
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: text is {text!r}; expected a text, under text or prompt")
        texts.append(text)
    if not texts:
        raise ValueError(f"{path}: no texts; expected {KINDS}")
    return texts
