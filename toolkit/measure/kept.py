"""How much of an instruction's effect a steering keeps, without a judge: its answers are compared with those that the
base gives with the instruction and without."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ..data.text_baseline import WORD
from ..foundation.intervals import DRAWS, Estimate, estimate
from .target import Target


MOST_ERROR = 0.35
"""The largest error of the classifier on answers that it was not fitted on. Above it the texts do not show that the
base follows the instruction, so there is no effect to keep."""


@dataclass(frozen=True)
class AnswerClassifier:
    """Tells answers under an instruction from plain ones: logistic regression on words and symbols, one and two in a
    row, on characters, two to four in a row, and on `shape_of` the text."""

    fitted: Pipeline

    @classmethod
    def fit(cls, plain: Sequence[str], told: Sequence[str], seed: int = 0) -> "AnswerClassifier":
        """A classifier fitted on answers without the instruction and with it."""
        words = TfidfVectorizer(token_pattern=WORD, ngram_range=(1, 2), sublinear_tf=True, lowercase=False)
        characters = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, lowercase=False, max_features=20000
        )
        shape = make_pipeline(FunctionTransformer(shape_of), StandardScaler())
        classifier = LogisticRegression(max_iter=1000, random_state=seed)
        fitted = make_pipeline(make_union(words, characters, shape), classifier)
        return cls(fitted.fit([*plain, *told], [0] * len(plain) + [1] * len(told)))

    def log_odds(self, texts: Sequence[str]) -> np.ndarray:
        """Log-odds [texts], above 0 for texts that it takes for answers under the instruction."""
        return self.fitted.decision_function(list(texts))

    def error(self, plain: Sequence[str], told: Sequence[str], groups: Sequence[str]) -> Estimate:
        """The share of answers that it takes for the other kind; `groups` belong to each of the two lists."""
        wrong = np.concatenate([self.log_odds(plain) > 0, self.log_odds(told) <= 0])
        return estimate(wrong, [*groups, *groups])

    def target(self) -> Target:
        """The share of answers that it takes for answers under the instruction."""
        return Target("as if told", lambda prompts, texts: (self.log_odds(texts) > 0).astype(float).tolist())


def shape_of(texts: Sequence[str]) -> np.ndarray:
    """[texts, 9]: lengths in characters, words and lines (logarithms), words a sentence (logarithm), shares of capital
    letters, digits and punctuation, the mean length of a word, and whether the text ends as a sentence does."""
    rows = []
    for text in texts:
        words, size = text.split(), max(1, len(text))
        sentences = max(1, sum(text.count(mark) for mark in ".!?"))
        lines = sum(bool(line.strip()) for line in text.splitlines())
        shares = [sum(map(kind, text)) / size for kind in (str.isupper, str.isdigit, _is_mark)]
        lengths = np.log1p([len(text), len(words), lines, len(words) / sentences]).tolist()
        mean = sum(map(len, words)) / max(1, len(words))
        rows.append([*lengths, *shares, mean, text.rstrip().endswith((".", "!", "?"))])
    return np.array(rows, dtype=float)


def _is_mark(character: str) -> bool:
    return not (character.isalnum() or character.isspace())


def kept_share(
    steered: Sequence[float], plain: Sequence[float], told: Sequence[float], groups: Sequence[str], seed: int = 0
) -> Estimate:
    """How far steered answers go from plain ones (0) to those of the instructed model (1), in mean log-odds of an
    `AnswerClassifier`, with an interval bootstrapped by group. All three answer the same prompts, in the same order.

    Raises:
        ValueError: if the answers under the instruction do not have higher log-odds than the plain ones.
    """
    rows = np.array([steered, plain, told], dtype=float)
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.array([np.bincount(index, row) for row in rows])  # [3, groups]
    total = sums.sum(1)
    if not total[2] > total[1]:
        raise ValueError(
            f"the mean log-odds of answers under the instruction are {rows[2].mean():.2f}, those of plain ones "
            f"{rows[1].mean():.2f}; expected more: the instruction has no effect to keep"
        )
    drawn = np.random.default_rng(seed).integers(0, sums.shape[1], (DRAWS, sums.shape[1]))
    means = sums[:, drawn].sum(-1)  # [3, draws]
    way = means[2] - means[1]
    shares = (means[0] - means[1])[way > 0] / way[way > 0]
    low, high = np.quantile(shares, [0.025, 0.975])
    mean = (total[0] - total[1]) / (total[2] - total[1])
    return Estimate(float(mean), float(low), float(high), rows.shape[1], sums.shape[1])
