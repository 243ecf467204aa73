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
