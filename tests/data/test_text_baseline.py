"""What words and length give away, out of fold."""

import numpy as np
from sklearn.metrics import roc_auc_score

from iti_llama.toolkit.data.text_baseline import text_baseline


def test_a_word_gives_the_label_away_and_noise_does_not():
    rng = np.random.default_rng(0)
    y, folds = np.arange(120) % 2, np.arange(120) % 5
    words = [" ".join(rng.choice(list("abcdef"), 6)) for _ in y]
    told = [f"{text} {'yes' if one else 'no'}" for text, one in zip(words, y, strict=True)]
    assert roc_auc_score(y, text_baseline(told, y, folds)) == 1
    assert abs(roc_auc_score(y, text_baseline(words, y, folds)) - 0.5) < 0.2


def test_texts_without_words_are_told_apart_by_their_length_alone():
    y, folds = np.arange(40) % 2, np.arange(40) // 2 % 4
    assert roc_auc_score(y, text_baseline([" " * (5 + 9 * label) for label in y], y, folds)) == 1
    assert len(set(text_baseline([""] * 40, y, folds).round(6))) <= 4  # one value in each fold
