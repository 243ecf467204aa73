"""An n-gram model of the same tokens: what a language model has to beat before its perplexity means anything."""

import numpy as np


class NGrams:
    """Interpolated n-grams up to `order` with Witten-Bell smoothing (Witten and Bell 1991, method C): the more
    different tokens followed a context, the more its estimate leaves to the shorter context; the shortest leaves it to
    the uniform distribution.

    Args:
        tokens: [n] token ids below `vocabulary`, one stream.
        vocabulary: number of token ids; `order` times its bits have to fit into 64.
    """

    def __init__(self, tokens: np.ndarray, vocabulary: int, order: int = 4):
        self.bits, self.vocabulary, self.order = int(vocabulary - 1).bit_length(), vocabulary, order
        if self.bits * order > 62:
            raise ValueError(f"order is {order}; expected at most {62 // self.bits} for {vocabulary} token ids")
        self.tables = []
        for n in range(1, order + 1):
            grams, counts = np.unique(self._grams(tokens, n), return_counts=True)
            contexts, first = np.unique(grams >> self.bits, return_index=True)
            kinds = np.diff(np.append(first, len(grams)))
            self.tables.append((grams, counts, contexts, np.add.reduceat(counts, first), kinds))

    def _grams(self, tokens: np.ndarray, n: int) -> np.ndarray:
        """[len - n + 1]: n tokens in a row as one number, the last one in its low bits."""
        tokens = tokens.astype(np.int64)
        grams = np.zeros(len(tokens) - n + 1, dtype=np.int64)
        for i in range(n):
            grams = (grams << self.bits) | tokens[i : len(tokens) - n + 1 + i]
        return grams

    def probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """[n - order + 1]: of each token from the `order`-th on, given those before it."""
        found = np.full(len(tokens) - self.order + 1, 1 / self.vocabulary)
        for n, (grams, counts, contexts, totals, kinds) in enumerate(self.tables, 1):
            own = self._grams(tokens, n)[self.order - n :]
            count = _looked_up(grams, counts, own)
            total, kind = (_looked_up(contexts, values, own >> self.bits) for values in (totals, kinds))
            seen = total > 0
            found[seen] = (count[seen] + kind[seen] * found[seen]) / (total[seen] + kind[seen])
        return found


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where there is none. `keys` are sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
