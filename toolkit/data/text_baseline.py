"""What the texts alone say about the labels: the score that a probe has to beat before it has found anything."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression


def text_baseline(texts: Sequence[str], y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Out-of-fold log-odds [rows] of a logistic regression on TF-IDF of words and symbols (one and two in a row) and
    the text's length."""
    scores = np.empty(len(y))
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        vectorizer = TfidfVectorizer(
            token_pattern=r"\w+|[^\w\s]|\n", ngram_range=(1, 2), sublinear_tf=True, lowercase=False
        )
        lengths = np.log1p([len(text) for text in texts])
        lengths = (lengths - lengths[inside].mean()) / (lengths[inside].std() + 1e-9)
        train = hstack([vectorizer.fit_transform([texts[i] for i in inside]), csr_matrix(lengths[inside, None])])
        test = hstack([vectorizer.transform([texts[i] for i in outside]), csr_matrix(lengths[outside, None])])
        model = LogisticRegression(max_iter=1000).fit(train.tocsr(), y[inside])
        scores[outside] = model.decision_function(test.tocsr())
    return scores
