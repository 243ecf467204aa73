"""Fitting: planted heads are found, the published algorithm is reproduced, chance is called chance."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import tiny_llama, tiny_tokenizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.build import fit_repo
from iti_llama.toolkit.capture import Activations, Policy
from iti_llama.toolkit.examples import Example
from iti_llama.toolkit.fit import FitSettings, directions_of, fit, fold_ids, split_groups
from iti_llama.toolkit.report import verdict


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
    assert found.p_value(0) < 0.05
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
    """Li et al. 2023 in NumPy and scikit-learn: probes by question-grouped split, mean difference, sigma with ddof 0."""
    examples = examples_of(60)
    activations, _ = activations_of(examples, 3.0)
    settings = FitSettings(top_k=6, permutations=0)
    found = fit(activations, examples, LAST, settings)

    x = activations.heads.flatten(1, 2).numpy().astype(np.float64)
    y = np.array([e.label for e in examples])
    groups = np.array([e.group for e in examples])
    fitting, test = split_groups(examples, settings)
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
    _, test = split_groups(examples, settings)
    changed = activations.heads.clone()
    changed[test] = torch.randn(changed[test].shape)
    before = fit(activations, examples, LAST, settings)
    after = fit(Activations(changed, activations.residual), examples, LAST, settings)
    assert np.array_equal(before.ranking, after.ranking)
    assert torch.equal(before.directions, after.directions)
    assert not np.array_equal(before.test_auc, after.test_auc)


def test_a_split_that_the_rows_name_is_kept():
    examples = [replace(e, meta={"split": "test" if int(e.group[1:]) >= 30 else "fit"}) for e in examples_of(40)]
    fitting, test = split_groups(examples, FitSettings())
    assert {examples[i].group for i in test} == {f"g{i}" for i in range(30, 40)}
    assert len(fitting) == 120
    crossed = [*examples, replace(examples[0], meta={"split": "test"})]
    with pytest.raises(ValueError, match="group 'g0' is on both sides"):
        split_groups(crossed, FitSettings())
    with pytest.raises(ValueError, match="meta.split is None"):
        split_groups([*examples, Example("p", "c", 0, "new")], FitSettings())


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


# The whole way: a base on disk, a labelled set, a repo


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def labelled():
    """Label 1 texts end in one way, label 0 texts in another: any model tells them apart."""
    return [
        Example(f"def f{i}(x):\n", "return x\n" if label else "y = 1\n", label, f"g{i}")
        for i in range(30)
        for label in (0, 1)
    ]


SETTINGS = FitSettings(top_k=5, permutations=20)


def test_fit_writes_a_repo_that_loads_and_steers(base_folder, labelled, tmp_path):
    out = tmp_path / "repo"
    found = fit_repo(base_folder, labelled, out, policy=LAST, settings=SETTINGS, alpha=2.0, dataset="d.jsonl")
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    code = {"configuration_iti_llama.py", "modeling_iti_llama.py", "iti_directions.py"}
    assert (
        code | {"config.json", "iti_directions.safetensors", "iti_report.json", "README.md", "tokenizer.json"} <= names
    )
    assert {f"figures/{name}.png" for name in ("head_auc", "null", "projections", "layers")} <= names
    assert not any(name.endswith(("model.safetensors", ".bin", ".pkl", ".pt")) for name in names)
    assert sum(path.stat().st_size for path in out.iterdir() if path.is_file()) < 200_000

    model = ITILlamaForCausalLM.from_pretrained(out)
    assert (model.iti_alpha, len(model.iti_directions)) == (2.0, 5)
    ids = torch.tensor([[1, 5, 9, 7]])
    steered = model(ids).logits
    with model.disable_iti():
        assert not torch.allclose(model(ids).logits, steered)

    report = json.loads((out / "iti_report.json").read_text())
    assert report == json.loads(json.dumps(found))
    assert report["heads"][0]["auc"] == pytest.approx(float(model.iti_directions.scores[0]), abs=1e-6)
    card = (out / "README.md").read_text()
    assert report["verdict"] in card and "trust_remote_code=True" in card


def test_the_same_inputs_give_the_same_bytes(base_folder, labelled, tmp_path):
    written = []
    for name, cache in (("a", None), ("b", tmp_path / "cache"), ("c", tmp_path / "cache")):
        fit_repo(base_folder, labelled, tmp_path / name, policy=LAST, settings=SETTINGS, cache=cache)
        written.append(
            [(tmp_path / name / file).read_bytes() for file in ("iti_directions.safetensors", "figures/null.png")]
        )
    assert written[0] == written[1] == written[2]


def test_self_contained_repos_hold_the_weights(base_folder, labelled, tmp_path):
    fit_repo(base_folder, labelled, tmp_path / "a", policy=LAST, settings=SETTINGS, self_contained=True)
    assert (tmp_path / "a" / "model.safetensors").exists()
    # and are a base themselves, of the same directions
    fit_repo(tmp_path / "a", labelled, tmp_path / "b", policy=LAST, settings=SETTINGS, self_contained=True)
    first, second = (ITIDirections.load(tmp_path / name / "iti_directions.safetensors") for name in "ab")
    assert torch.equal(first.directions, second.directions) and torch.equal(first.sigma, second.sigma)
    with pytest.raises(ValueError, match="--self-contained"):
        fit_repo(tmp_path / "a", labelled, tmp_path / "c", policy=LAST, settings=SETTINGS)


def test_nothing_is_left_of_a_fit_that_fails(base_folder, labelled, tmp_path, monkeypatch):
    from iti_llama.toolkit import build

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "write_report", full)
    with pytest.raises(OSError, match="No space left"):
        fit_repo(base_folder, labelled, tmp_path / "repo", policy=LAST, settings=SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_not_overwritten_unasked(base_folder, labelled, tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        fit_repo(base_folder, labelled, tmp_path, policy=LAST, settings=SETTINGS)
    assert (tmp_path / "keep.txt").read_text() == "mine"


def test_only_a_steered_repo_is_ever_overwritten(base_folder, labelled, tmp_path, monkeypatch):
    from iti_llama.toolkit import build

    fit_repo(base_folder, labelled, tmp_path / "repo", policy=LAST, settings=SETTINGS, alpha=1.0)
    fit_repo(base_folder, labelled, tmp_path / "repo", policy=LAST, settings=SETTINGS, alpha=2.0, overwrite=True)
    assert ITILlamaForCausalLM.from_pretrained(tmp_path / "repo").iti_alpha == 2.0

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "write_report", full)
    with pytest.raises(OSError, match="No space left"):
        fit_repo(base_folder, labelled, tmp_path / "repo", policy=LAST, settings=SETTINGS, overwrite=True)
    assert ITILlamaForCausalLM.from_pretrained(tmp_path / "repo").iti_alpha == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]

    monkeypatch.setattr(build, "capture", None)  # refused before any work
    (tmp_path / "repo" / ".git").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("mine")
    for name in ("repo", "papers"):
        with pytest.raises(FileExistsError, match="is not overwritten"):
            fit_repo(base_folder, labelled, tmp_path / name, policy=LAST, settings=SETTINGS, overwrite=True)
    assert (tmp_path / "papers" / "thesis.txt").read_text() == "mine"


def test_a_base_that_is_no_llama_is_refused(labelled, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="model_type 'gpt2'; expected 'llama'"):
        fit_repo(tmp_path, labelled, tmp_path / "out", policy=LAST, settings=SETTINGS)
