"""How well the texts alone predict the labels: the score that a probe has to beat before it has found anything."""

import re
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression


WORD = r"\w+|[^\w\s]|\n"
"""The pattern of a word in a text."""


def text_baseline(texts: Sequence[str], y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Out-of-fold log-odds [rows] of a logistic regression on TF-IDF of words and symbols (one and two in a row) and
    the text's length; on the length alone if no text of the fit has a word."""
    scores = np.empty(len(y))
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        vectorizer = TfidfVectorizer(token_pattern=WORD, ngram_range=(1, 2), sublinear_tf=True, lowercase=False)
        lengths = np.log1p([len(text) for text in texts])
        lengths = (lengths - lengths[inside].mean()) / (lengths[inside].std() + 1e-9)
        train, test = csr_matrix(lengths[inside, None]), csr_matrix(lengths[outside, None])
        if any(re.search(WORD, texts[i]) for i in inside):
            train = hstack([vectorizer.fit_transform([texts[i] for i in inside]), train])
            test = hstack([vectorizer.transform([texts[i] for i in outside]), test])
        model = LogisticRegression(max_iter=1000).fit(train.tocsr(), y[inside])
        scores[outside] = model.decision_function(test.tocsr())
    return scores
