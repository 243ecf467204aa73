"""The directions file: what is written is read back, and what is wrong is refused, by name."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import some_directions, tiny_config
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from iti_llama import ITIDirections, ITIDirectionsError
from iti_llama.iti_directions import ITIGate


@pytest.fixture
def path(directions, tmp_path):
    return directions.save(tmp_path / "iti_directions.safetensors")


def rewrite(path, metadata=None, drop=(), **tensors):
    """The file at `path` with some tensors and metadata replaced, or left out."""
    with safe_open(path, "pt") as file:
        old = file.metadata()
    new = {k: v for k, v in (old | (metadata or {})).items() if v is not None}
    save_file({k: v for k, v in (load_file(path) | tensors).items() if k not in drop}, path, metadata=new)
    return path


def test_what_is_saved_is_loaded(directions, path):
    loaded = ITIDirections.load(path)
    for name in ("heads", "directions", "sigma", "scores"):
        assert torch.equal(getattr(loaded, name), getattr(directions, name))
    for name in ("site", "base_model", "num_hidden_layers", "num_attention_heads", "head_dim", "provenance"):
        assert getattr(loaded, name) == getattr(directions, name)


def test_the_file_is_the_documented_format(directions, path):
    tensors = load_file(path)
    assert {name: (tensor.dtype, list(tensor.shape)) for name, tensor in tensors.items()} == {
        "heads": (torch.int64, [4, 2]),
        "directions": (torch.float32, [4, 24]),
        "sigma": (torch.float32, [4]),
        "scores": (torch.float32, [4]),
    }
    with safe_open(path, "pt") as file:
        assert file.metadata() == {
            "format": "iti_directions",
            "format_version": "1",
            "site": "head",
            "base_model": "tiny",
            "num_hidden_layers": "4",
            "num_attention_heads": "4",
            "head_dim": "24",
            "dataset": "random",
        }


def test_the_same_directions_give_the_same_bytes(path, tmp_path):
    for i in range(5):
        assert ITIDirections.load(path).save(tmp_path / f"{i}.safetensors").read_bytes() == path.read_bytes()


def test_scores_are_optional(directions, path):
    rewrite(path, drop=["scores"])
    loaded = ITIDirections.load(path)
    assert loaded.scores is None
    assert ITIDirections.load(loaded.save(path)).scores is None


def test_the_best_ranked_heads_come_first(directions):
    top = directions.top(2)
    assert torch.equal(top.heads, directions.heads[:2]) and len(top) == 2
    assert directions.top(None) is directions
    for k in (0, 5):
        with pytest.raises(ITIDirectionsError, match=f"iti_top_k is {k}.*1 to 4"):
            directions.top(k)


def test_offsets_hold_sigma_theta_at_the_columns_of_the_head(directions):
    offsets = directions.offsets()
    assert set(offsets) == set(directions.heads[:, 0].tolist())
    for (layer, head), theta, sigma in zip(
        directions.heads.tolist(), directions.directions, directions.sigma, strict=True
    ):
        assert torch.equal(offsets[layer][head * 24 : (head + 1) * 24], sigma * theta)
    total = sum(offset.norm() ** 2 for offset in offsets.values())
    assert torch.isclose(total, (directions.sigma**2).sum())


def a_gate(g=2, **fields):
    tensors = {"heads": torch.tensor([[0, 1], [3, 2]])[:g], "weights": torch.randn(g, 24), "bias": torch.tensor([0.3])}
    return ITIGate(**(tensors | {"threshold": torch.tensor([0.5, 0.5])} | fields))


def test_weights_and_a_gate_are_format_1_1_and_read_back(directions, path):
    assert path.read_bytes() == replace(directions).save(path).read_bytes()
    weighted = replace(directions, weights=torch.tensor([1.0, 0.0, 0.5, 2.0]))
    for later in (weighted, replace(directions, gate=a_gate()), replace(weighted, gate=a_gate())):
        loaded = ITIDirections.load(later.save(path))
        with safe_open(path, "pt") as file:
            assert file.metadata()["format_version"] == "1.1"
        assert (loaded.weights is None) == (later.weights is None) and (loaded.gate is None) == (later.gate is None)
        if later.weights is not None:
            assert torch.equal(loaded.weights, later.weights)
        if later.gate is not None:
            for name in ("heads", "weights", "bias", "threshold"):
                assert torch.equal(getattr(loaded.gate, name), getattr(later.gate, name))
        top = loaded.top(2)
        assert len(top) == 2 and (top.weights is None or top.weights.tolist() == [1.0, 0.0])
        assert ITIDirections.load(path, framework="np").heads.tolist() == later.heads.tolist()


def test_weights_scale_sigma_and_nothing_else(directions):
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0])
    weighted = replace(directions, weights=weights).offsets()
    scaled = replace(directions, sigma=directions.sigma * weights).offsets()
    assert weighted.keys() == scaled.keys()
    assert all(torch.equal(weighted[layer], scaled[layer]) for layer in scaled)


def test_a_gate_opens_from_the_threshold_of_a_linear_score_on(directions):
    gate, generator = a_gate(), torch.Generator().manual_seed(0)
    x = {layer: torch.randn(50, 96, generator=generator) for layer in (0, 3)}
    score = np.full(50, 0.3)
    for (layer, head), weights in zip(gate.heads.tolist(), gate.weights.double().numpy(), strict=True):
        score += x[layer].double().numpy()[:, head * 24 : head * 24 + 24] @ weights
    assert gate.opens(x).tolist() == (score >= 0.5).tolist()
    assert 0 < gate.opens(x).sum() < 50


def test_a_wrong_gate_or_weight_is_refused_by_name(directions, path):
    gated = replace(directions, gate=a_gate(), weights=torch.ones(4)).save(path)
    for change, says in (
        ({"weights": torch.tensor([1.0, -1.0, 1.0, 1.0])}, "weight in row 1 is -1; expected 0 or more"),
        ({"weights": torch.zeros(4)}, "all 4 weights are 0"),
        ({"weights": torch.ones(3)}, r"weights is torch.float32 \[3\]; expected torch.float32 \[4\]"),
        ({"drop": ["gate_bias"]}, "missing tensors .'gate_bias'"),
        ({"gate_weights": torch.ones(2, 8)}, r"gate_weights is .*\[2, 8\]; expected .*\[2, 24\]"),
        ({"gate_heads": torch.tensor([[0, 1], [9, 2]])}, "gate_heads: row 1 names layer 9, head 2; expected layer 0"),
        ({"gate_threshold": torch.tensor([0.0, 1.0])}, "gate_threshold is .0, 1.; expected the same number twice"),
        ({"gate_bias": torch.tensor([float("nan")])}, "gate_bias holds NaN"),
        ({"metadata": {"format_version": "1"}}, "unknown tensors .*weights.*in version '1'"),
    ):
        whole = gated.read_bytes()
        rewrite(path, **change)
        with pytest.raises(ITIDirectionsError, match=says):
            ITIDirections.load(path)
        path.write_bytes(whole)
    rewrite(directions.save(path), metadata={"format_version": "1.1"})
    with pytest.raises(ITIDirectionsError, match="format_version is '1.1'; expected '1'"):
        ITIDirections.load(path)


def nan(like):
    return torch.full_like(like, float("nan"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"drop": ["sigma"]}, "missing tensors .'sigma'"),
        ({"probes": torch.ones(2)}, "unknown tensors .'probes'"),
        ({"sigma": torch.ones(3)}, r"sigma is torch.float32 \[3\]; expected torch.float32 \[4\]"),
        ({"directions": torch.ones(4, 16)}, r"directions is .*\[4, 16\]; expected .*\[4, 24\]"),
        ({"directions": torch.ones(4, 24, dtype=torch.float16)}, "float16.*expected torch.float32"),
        ({"heads": torch.zeros(4, 2, dtype=torch.int32)}, "int32.*expected torch.int64"),
        ({"heads": torch.zeros(0, 2, dtype=torch.int64)}, "K of at least 1"),
        ({"directions": nan(torch.ones(4, 24))}, "directions holds NaN or infinity"),
        ({"sigma": torch.tensor([1.0, float("inf"), 1.0, 1.0])}, "sigma holds NaN or infinity"),
        ({"directions": torch.ones(4, 24)}, "row 0 has length 4.8990; expected 1 within 0.001"),
        ({"sigma": torch.tensor([1.0, 1.0, -0.5, 1.0])}, "sigma in row 2 is -0.5; expected 0 or more"),
        (
            {"heads": torch.tensor([[0, 0], [0, 1], [4, 0], [1, 1]])},
            "row 2 names layer 4, head 0; expected layer 0 to 3",
        ),
        ({"heads": torch.tensor([[0, 0], [0, -1], [2, 0], [1, 1]])}, "row 1 names layer 0, head -1"),
        ({"heads": torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]])}, "row 2 names layer 0, head 0 a second time"),
        ({"metadata": {"format": "other"}}, "format is 'other'; expected 'iti_directions'"),
        ({"metadata": {"format_version": "2"}}, "format_version is '2'; expected '1' or '1.1', as this version reads"),
        ({"metadata": {"site": "mlp"}}, "site is 'mlp'; expected one of head, residual"),
        ({"metadata": {"site": None}}, "metadata has no 'site'"),
        ({"metadata": {"head_dim": "x"}}, "head_dim is 'x'; expected a positive integer"),
    ],
)
def test_a_wrong_file_is_refused_by_name(path, change, says):
    rewrite(path, **change)
    with pytest.raises(ITIDirectionsError, match=says) as error:
        ITIDirections.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float16], ids=str)
@pytest.mark.parametrize("framework", ["pt", "np"])
def test_a_dtype_that_numpy_lacks_is_refused_by_name(path, dtype, framework):
    rewrite(path, sigma=torch.ones(4).to(dtype))
    with pytest.raises(ITIDirectionsError, match=f"{path}: sigma (is|has) .*; expected (torch.float32|I64 or F32)"):
        ITIDirections.load(path, framework)


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_the_first_wrong_value_is_named(path, framework):
    for tensors, says in (
        ({"directions": nan(torch.ones(40_000, 2))}, "directions holds NaN or infinity at place"),
        ({"sigma": torch.arange(39_999.0, -1, -1) - 2}, "sigma in row 39998 is -1"),
        ({"heads": torch.arange(40_000)[:, None].expand(-1, 2) // 2}, "names layer .*, head .* a second time"),
        ({"heads": torch.arange(40_000)[:, None].expand(-1, 2) + 9}, "row 39991 names layer 40000, head 40000;"),
    ):
        whole = {"directions": torch.tensor([[0.6, 0.8]]).repeat(40_000, 1), "sigma": torch.ones(40_000)}
        whole["heads"] = torch.arange(40_000)[:, None].repeat(1, 2)
        size = {"num_hidden_layers": "40000", "num_attention_heads": "40000", "head_dim": "2"}
        rewrite(path, size, drop=["scores"], **{k: v.contiguous() for k, v in (whole | tensors).items()})
        with pytest.raises(ITIDirectionsError, match=says):
            ITIDirections.load(path, framework)


def test_a_file_that_is_no_safetensors_is_refused(path, tmp_path):
    whole = path.read_bytes()
    for name, content, says in (
        ("truncated", whole[:-100], "truncated"),
        ("empty", b"", "truncated"),
        ("pickle", pickle.dumps({"heads": [(0, 1)]}), "looks like a pickle, which is never read"),
        ("text", b"hello, I am a text file", "not a safetensors file"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    ):
        wrong = tmp_path / name
        wrong.write_bytes(content)
        with pytest.raises(ITIDirectionsError, match=says) as error:
            ITIDirections.load(wrong)
        assert str(wrong) in str(error.value)
    torch.save({"heads": torch.ones(2)}, tmp_path / "zip")
    with pytest.raises(ITIDirectionsError, match="zip archive"):
        ITIDirections.load(tmp_path / "zip")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ITIDirections.load(tmp_path / "nowhere.safetensors")


def test_a_write_that_fails_leaves_the_old_file(directions, path, monkeypatch):
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        directions.top(1).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_geometry_is_compared_with_the_model(directions):
    directions.check_geometry(tiny_config())
    for field, value in (("num_hidden_layers", 5), ("num_attention_heads", 2), ("head_dim", 8)):
        with pytest.raises(ITIDirectionsError, match=f"this model has {field}={value}"):
            directions.check_geometry(tiny_config(**{field: value}))
    assert some_directions(tiny_config(head_dim=16), site="residual").site == "residual"
