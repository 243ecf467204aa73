"""Batched probes against scikit-learn, one head at a time."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score

from iti_llama.toolkit.fit import probes as probes_module
from iti_llama.toolkit.fit.probes import accuracy, auc, fit_probes


def activations(rows: int, heads: int, dim: int, signal: float, seed: int = 0):
    """Labels and correlated activations of uneven scale, as a model's are; the first heads know the label best."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    mixing = rng.normal(size=(heads, dim, dim)) * np.geomspace(1, 0.02, dim)
    x = np.einsum("nhd,hde->nhe", rng.normal(size=(rows, heads, dim)), mixing.transpose(0, 2, 1)) / np.sqrt(dim)
    direction = rng.normal(size=(heads, dim)) / np.sqrt(dim)
    strength = signal * np.linspace(1, 0, heads)
    x += (y[:, None, None] - 0.5) * strength[:, None] * direction + 0.3
    return torch.from_numpy(x).float(), torch.from_numpy(y)


def reference(x, y, c, balanced):
    model = LogisticRegression(
        C=c, tol=1e-10, solver="newton-cholesky", max_iter=1000, class_weight="balanced" if balanced else None
    )
    return model.fit(x.astype(np.float64), y)


@pytest.mark.parametrize("rows,dim", [(400, 16), (300, 64), (60, 128)])
@pytest.mark.parametrize("c,balanced", [(1.0, False), (0.1, False), (10.0, True)])
def test_coefficients_accuracy_and_auc_are_those_of_scikit_learn(rows, dim, c, balanced):
    x, y = activations(rows, 5, dim, 2.0)
    y[: rows // 4] = 1
    probes = fit_probes(x, y, c=c, balanced=balanced)
    scores = probes.decision(x).numpy()
    for head in range(5):
        own = x[:, head].numpy()
        expected = reference(own, y.numpy(), c, balanced)
        np.testing.assert_allclose(probes.coef[head], expected.coef_[0], atol=1e-3)
        np.testing.assert_allclose(probes.intercept[head], expected.intercept_[0], atol=2e-3)
        decision = expected.decision_function(own)
        assert abs(accuracy(scores, y)[head] - accuracy_score(y, decision > 0)) <= 1 / rows
        assert auc(scores, y)[head] == pytest.approx(roc_auc_score(y, decision), abs=1e-3)


def test_float64_activations_are_solved_in_float64():
    x, y = activations(500, 3, 32, 1.0)
    probes = fit_probes(x.double(), y, tolerance=1e-10)
    for head in range(3):
        expected = reference(x[:, head].numpy(), y.numpy(), 1.0, False)
        np.testing.assert_allclose(probes.coef[head], expected.coef_[0], atol=1e-6)


def test_separable_classes_converge_to_the_penalised_optimum():
    x, y = activations(200, 2, 8, 40.0)
    probes = fit_probes(x, y)
    for head in range(2):
        expected = reference(x[:, head].numpy(), y.numpy(), 1.0, False)
        np.testing.assert_allclose(probes.coef[head], expected.coef_[0], atol=2e-3)


def test_a_head_is_solved_alike_alone_and_among_others():
    x, y = activations(200, 40, 16, 1.0)
    together = fit_probes(x, y)
    alone = fit_probes(x[:, 37:38], y)
    torch.testing.assert_close(together.coef[37:38], alone.coef, atol=1e-4, rtol=1e-3)


def test_auc_counts_ties_as_one_half():
    rng = np.random.default_rng(0)
    scores, y = rng.integers(0, 4, (80, 3)).astype(float), rng.integers(0, 2, 80)
    np.testing.assert_allclose(auc(scores, y), [roc_auc_score(y, column) for column in scores.T])


@pytest.mark.parametrize("rows", [200, 20])
def test_activations_are_left_as_they_are(rows):
    x, y = activations(rows, 1, 32, 1.0)
    before = x.clone()
    fit_probes(x, y)
    assert torch.equal(x, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_coefficients(monkeypatch):
    x, y = activations(400, 5, 16, 2.0)
    monkeypatch.setattr(probes_module, "BLOCK_VALUES", 2 * 400 * 16)  # two heads at a time
    there, here = fit_probes(x, y, device="cuda"), fit_probes(x, y)
    np.testing.assert_allclose(there.coef, here.coef, atol=1e-3)
    np.testing.assert_allclose(there.intercept, here.intercept, atol=1e-3)
