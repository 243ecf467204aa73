"""Fitting: planted heads are found, the published algorithm is reproduced, chance is called chance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.data.splits import fold_ids, split_groups
from iti_llama.toolkit.fit.fit_directions import agreement_of, directions_of, fit
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import Activations
from iti_llama.toolkit.fit.report import verdict
from iti_llama.toolkit.fit.settings import FitSettings


LAYERS, HEADS, DIM = 4, 4, 24


PLANTED = [(1, 2), (2, 0), (3, 3)]


LAST = Policy("last")


def examples_of(groups: int) -> list[Example]:
    """Two rows of either label in each group, of the same text: the text says nothing."""
    return [Example("p", "c", row % 2, f"g{group}") for group in range(groups) for row in range(4)]


def activations_of(examples, strength: float, seed: int = 0) -> tuple[Activations, torch.Tensor]:
    """Noise with group effects, and in the planted heads a shift by the label along a direction of each."""
    generator = torch.Generator().manual_seed(seed)
    n = len(examples)
    y = torch.tensor([e.label for e in examples]).float()
    group = torch.tensor([int(e.group[1:]) for e in examples])
    heads = torch.randn(n, LAYERS, HEADS, DIM, generator=generator)
    heads += torch.randn(int(group.max()) + 1, LAYERS, HEADS, DIM, generator=generator)[group]
    planted = torch.nn.functional.normalize(torch.randn(len(PLANTED), DIM, generator=generator), dim=-1)
    for (layer, head), direction in zip(PLANTED, planted, strict=True):
        heads[:, layer, head] += strength * (y - 0.5)[:, None] * direction
    return Activations(heads, heads.flatten(2)[..., :40]), planted


def test_agreement_is_the_mean_cosine_between_the_differences_of_pairs():
    examples = examples_of(30)
    activations, _ = activations_of(examples, 3.0)
    x, y = activations.heads.flatten(1, 2), np.array([e.label for e in examples])
    groups = np.array([e.group for e in examples])
    found = agreement_of(x, y, groups)
    for head in (0, 1 * HEADS + 2):
        rows = x[:, head].double().numpy()
        own = [rows[(groups == g) & (y == 1)].mean(0) - rows[(groups == g) & (y == 0)].mean(0) for g in set(groups)]
        unit = [one / np.linalg.norm(one) for one in own]
        cosines = [a @ b for i, a in enumerate(unit) for b in unit[:i]]
        assert found[head] == pytest.approx(np.mean(cosines))
    planted = [layer * HEADS + head for layer, head in PLANTED]
    others = np.delete(found, planted)
    assert found[planted].min() > 0.15 > 3 * np.abs(others).max() - 0.15 and abs(others.mean()) < 0.02
    apart = np.array([f"{group}{label}" for group, label in zip(groups, y, strict=True)])
    assert agreement_of(x, y, apart) is None


def test_planted_heads_and_directions_are_recovered():
    examples = examples_of(100)
    activations, planted = activations_of(examples, 6.0)
    found = fit(activations, examples, LAST, FitSettings(top_k=3, permutations=20))
    pairs = [(int(i) // HEADS, int(i) % HEADS) for i in found.ranking[:3]]
    assert sorted(pairs) == sorted(PLANTED)
    for pair, direction in zip(PLANTED, planted, strict=True):
        cosine = found.directions[pair[0] * HEADS + pair[1]] @ direction.double()
        assert cosine > 0.95
    assert found.supported
    assert found.p_value(found.best_auc) < 0.05
    assert found.stability == 1.0
    assert "beyond chance" in verdict(found)


def test_noise_is_called_noise():
    examples = examples_of(40)
    activations, _ = activations_of(examples, 0.0)
    found = fit(activations, examples, LAST, FitSettings(top_k=3, permutations=40))
    assert found.out_of_fold_auc[found.ranking[0]] > 0.5  # the best of 16 looks like something
    assert not found.supported
    assert "do not support" in verdict(found)


def test_the_published_algorithm_gives_the_same_heads_and_directions():
    """Li et al. 2023 in NumPy and scikit-learn: probes by grouped split, mean difference, sigma with ddof 0."""
    examples = examples_of(60)
    activations, _ = activations_of(examples, 3.0)
    settings = FitSettings(top_k=6, permutations=0)
    found = fit(activations, examples, LAST, settings)

    x = activations.heads.flatten(1, 2).numpy().astype(np.float64)
    y = np.array([e.label for e in examples])
    groups = np.array([e.group for e in examples])
    fitting, test = split_groups(examples, settings.test_share, settings.seed)
    assert not set(groups[fitting]) & set(groups[test])
    folds = fold_ids(y[fitting], groups[fitting], settings.folds, settings.seed)
    aucs = np.zeros(LAYERS * HEADS)
    for head in range(LAYERS * HEADS):
        for fold in range(settings.folds):
            inside, outside = fitting[folds != fold], fitting[folds == fold]
            probe = LogisticRegression(tol=1e-8, max_iter=5000).fit(x[inside, head], y[inside])
            aucs[head] += roc_auc_score(y[outside], probe.decision_function(x[outside, head])) / settings.folds
    np.testing.assert_allclose(found.out_of_fold_auc, aucs, atol=2e-3)
    top = np.argsort(-aucs)[: len(PLANTED)]
    assert set(found.ranking[: len(PLANTED)]) == set(top)
    for head in top:
        own = x[fitting, head]
        theta = own[y[fitting] == 1].mean(0) - own[y[fitting] == 0].mean(0)
        theta /= np.linalg.norm(theta)
        np.testing.assert_allclose(found.directions[head], theta, atol=1e-4)
        np.testing.assert_allclose(found.sigma[head], (own @ theta).std(), rtol=1e-4)


@pytest.mark.parametrize("method", ["mean-difference", "probe-weights", "random"])
def test_directions_are_unit_and_point_to_label_one_unless_random(method):
    examples = examples_of(60)
    activations, _ = activations_of(examples, 3.0)
    x, y = activations.heads.flatten(1, 2), np.array([e.label for e in examples])
    directions, sigma = directions_of(x, y, FitSettings(method=method))
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(16).double())
    projections = torch.einsum("nhd,hd->nh", x.double(), directions)
    torch.testing.assert_close(sigma, projections.std(0, correction=0))
    gap = projections[y == 1].mean(0) - projections[y == 0].mean(0)
    planted = [layer * HEADS + head for layer, head in PLANTED]
    assert bool((gap[planted] > 1).all()) != (method == "random")


def test_the_number_of_heads_can_be_cross_validated():
    examples = examples_of(80)
    activations, _ = activations_of(examples, 1.5)
    found = fit(activations, examples, LAST, FitSettings(top_k=None, permutations=0))
    assert set(found.top_k_auc) == {1, 2, 4, 8, 16}
    assert found.top_k in (2, 4)  # three heads were planted
    assert found.top_k_auc[found.top_k] == max(found.top_k_auc.values())


def test_ranking_does_not_see_the_test_rows():
    examples = examples_of(60)
    activations, _ = activations_of(examples, 2.0)
    settings = FitSettings(top_k=3, permutations=0)
    _, test = split_groups(examples, settings.test_share, settings.seed)
    changed = activations.heads.clone()
    changed[test] = torch.randn(changed[test].shape)
    before = fit(activations, examples, LAST, settings)
    after = fit(Activations(changed, activations.residual), examples, LAST, settings)
    assert np.array_equal(before.ranking, after.ranking)
    assert torch.equal(before.directions, after.directions)
    assert not np.array_equal(before.test_auc, after.test_auc)


def test_a_split_that_the_rows_name_is_kept():
    examples = [replace(e, meta={"split": "test" if int(e.group[1:]) >= 30 else "fit"}) for e in examples_of(40)]
    fitting, test = split_groups(examples, 0.2, seed=0)
    assert {examples[i].group for i in test} == {f"g{i}" for i in range(30, 40)}
    assert len(fitting) == 120
    crossed = [*examples, replace(examples[0], meta={"split": "test"})]
    with pytest.raises(ValueError, match="group 'g0' is on both sides"):
        split_groups(crossed, 0.2, seed=0)
    with pytest.raises(ValueError, match="meta.split is None"):
        split_groups([*examples, Example("p", "c", 0, "new")], 0.2, seed=0)


@pytest.mark.parametrize(
    "examples,message",
    [
        (examples_of(3), "groups to fit on, but 5 folds"),
        ([Example("p", "c", int(g < 8), f"g{g}") for g in range(10) for _ in range(4)], "of one class"),
    ],
)
def test_too_little_data_is_refused_in_words(examples, message):
    activations, _ = activations_of(examples, 1.0)
    with pytest.raises(ValueError, match=message):
        fit(activations, examples, LAST, FitSettings(permutations=0))


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"method": "median"}, "method is 'median'"),
        ({"rank_by": "loss"}, "rank_by is 'loss'"),
        ({"top_k": 0}, "top_k is 0"),
        ({"folds": 1}, "folds is 1"),
        ({"test_share": 1.0}, "test_share is 1"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        FitSettings(**fields)


def test_the_null_has_a_number_for_each_draw_where_each_group_has_one_label():
    examples = [Example("p", "c", group % 2, f"g{group}") for group in range(24)]
    activations, _ = activations_of(examples, 0.0)
    found = fit(activations, examples, LAST, FitSettings(top_k=3, permutations=20))
    assert len(found.null) == 20 and np.isfinite(found.null).all() and "nan" not in verdict(found)


def test_what_is_no_number_is_never_beyond_chance(monkeypatch):
    examples = [Example(f"p{i // 2}", "c", i % 2, f"g{i // 2}") for i in range(48)]
    activations, _ = activations_of(examples, 5.0)
    found = fit(activations, examples, LAST, FitSettings(top_k=3, permutations=20))
    assert found.supported and found.p_value(found.best_auc) < 0.05
    no_numbers = replace(found, null=np.full(20, np.nan))
    assert no_numbers.p_value(found.best_auc) == 1.0 and not no_numbers.supported
    auc = np.full_like(found.out_of_fold_auc, np.nan)
    assert not replace(found, out_of_fold_auc=auc).supported
    monkeypatch.setattr(
        "iti_llama.toolkit.fit.fit_directions.fold_auc_of", lambda scores, y, folds: np.full((2, 3), np.nan)
    )
    failed = fit(activations, examples, LAST, FitSettings(top_k=3, permutations=20))
    assert not failed.supported and "do not support" in verdict(failed) and "nan" not in verdict(failed)
