"""What `reproduce_creativity` found, as two tables and some words."""

from collections.abc import Sequence
from textwrap import indent

import numpy as np
from scipy.stats import binomtest

from ..data.run_programs import extract_code
from ..fit.probes import auc
from ..fit.settings import FitSettings
from ..foundation.markdown_table import markdown_table
from .reproduce_creativity import PRIME, Creativity


EARLIER = {"rows": 48, "heads": 48, "validation": 0.625, "test": 0.688, "layer": 3, "auc": 0.734, "alpha": 0.4}
"""As published. There were 16 test samples; an AUC of .734 is 47 of 64 pairs, which is 8 against 8 of them."""

SAMPLES, ALL_HEADS = 16, 1024

LINES = 9
"""The most lines of an answer that are shown."""

CLAIMS = ("", "earlier", "worth", "here", "worth")

STEERING = (
    "tasks", "condition", "alpha", "n", "correct", "change, points", "new construct", "correct and new", "parses",
    "characters", "KL",
)  # fmt: skip
"""The titles of the two tables."""


def best_of_random_heads(rows: int = SAMPLES, heads: int = ALL_HEADS, draws: int = 200) -> tuple[float, float]:
    """The 5th percentile and the median of the best head's AUC, if no head knows the labels. Half of `rows` have each
    label."""
    rng, y = np.random.default_rng(0), np.arange(rows) % 2
    best = [auc(rng.standard_normal((rows, heads)), y).max() for _ in range(draws)]
    return float(np.quantile(best, 0.05)), float(np.median(best))


def claims(found: Creativity) -> list[list[str]]:
    """Rows of the first table: a claim, the earlier number and how sure it is, our number and how sure that is."""
    one, (low, median) = found.reading, best_of_random_heads()
    human, own = found.labels["human"], found.labels["own"]
    right, of = own["correct on the samples"], own["without duplicates"]
    of_earlier = {}
    for name in ("validation", "test"):
        interval = binomtest(round(EARLIER[name] * SAMPLES), SAMPLES).proportion_ci(method="wilson")
        of_earlier[name] = f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    null = f"permuted labels: {one.null[0]:.3f} in one draw of twenty, p = {one.null[1]:.3f}" if one.null else ""
    labels = f"{own['rows of label 1']} of label 1, {own['rows of label 0']} of label 0"
    enough = min(own["rows of label 1"], own["rows of label 0"]) >= FitSettings().folds
    labels += "" if enough else ": labels of its own samples cannot be made"
    return [
        ["training samples", f"{EARLIER['rows']}", "", f"{one.rows}", f"of {one.groups} problems"],
        ["heads", f"{EARLIER['heads']}", f"of {ALL_HEADS:,}", f"{one.heads}", f"of {one.all_heads:,}"],
        [
            "validation accuracy", f"{EARLIER['validation']:.1%}", f"{of_earlier['validation']} if n = {SAMPLES}",
            f"{one.validation.mean:.1%}", f"{one.validation.percent()}, out of fold, n = {one.validation.n}",
        ],
        [
            "test accuracy", f"{EARLIER['test']:.1%}", f"{of_earlier['test']}, n = {SAMPLES}",
            f"{one.test.mean:.1%}", f"{one.test.percent()}, problems not fitted on, n = {one.test.n}",
        ],
        [
            "best layer", f"{EARLIER['layer']}", "", f"{one.layer}",
            f"AUC {one.layer_auc:.3f}, test accuracy {one.layer_test:.1%}",
        ],
        [
            "AUC of the top head", f"{EARLIER['auc']:.3f}",
            f"the best of {ALL_HEADS:,} random heads, {SAMPLES // 2} against {SAMPLES // 2}: {median:.2f}, "
            f"above {low:.2f} in 19 of 20 draws", f"{one.auc:.3f}", null,
        ],
        ["AUC of the words alone", "", "", f"{one.text_auc:.3f}", "TF-IDF and length, same folds"],
        ["alpha", f"{EARLIER['alpha']:g}", "", f"{found.alpha:.3g}", f"KL {found.kl_budget:g} on plain answers"],
        ["labelled human solutions", "", "", f"{human['rows of label 1'] + human['rows of label 0']}", "balanced"],
        ["own samples that are right", "", "", f"{right} of {of} different ones", labels],
    ]  # fmt: skip


def steering(found: Creativity) -> list[list[str]]:
    """Rows of the second table, under `STEERING`."""
    return [
        [
            row.tasks, row.condition, f"{row.alpha:.3g}", f"{row.correct.n}", row.correct.percent(),
            "" if row.condition == "plain" else row.correct_change.points(), row.new.percent(), row.both.percent(),
            f"{row.parses.mean:.0%}",
            f"{row.characters.mean:.0f} [{row.characters.low:.0f}, {row.characters.high:.0f}]",
            "" if row.kl is None else f"{row.kl.mean:.3f}",
        ]
        for row in found.rows
    ]  # fmt: skip


def tables(found: Creativity) -> list[tuple[Sequence[str], list[list[str]]]]:
    """The titles and the rows of each table."""
    return [(CLAIMS, claims(found)), (STEERING, steering(found))]


def words(found: Creativity, name: str) -> str:
    """What the tables do not hold: the verdict on the fit, counts of tokens, and two answers."""
    tokens = ", ".join(f"{count:,} {what}" for what, count in found.tokens.items())
    parts = [found.reading.verdict, f"Tokens of {name}: {tokens}; KL is measured beside them.", f"Asked: {PRIME}"]
    for condition, text in found.prime.items():
        lines = text.strip().splitlines()
        shown = "\n".join([*lines[:LINES], *(["..."] if len(lines) > LINES else [])])
        parts += [f"{condition}, {len(extract_code(text).strip())} characters of code:", indent(shown, "    ")]
    return "\n\n".join(parts)


def document(found: Creativity, name: str) -> str:
    """Everything in Markdown."""
    return "\n\n".join([*(markdown_table(*table) for table in tables(found)), words(found, name)])
