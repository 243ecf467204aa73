"""Several behaviours in a repo on disk: fitted into it, told, published, exported as a mix, measured beside plain."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import assert_close, some_directions, tiny_config, tiny_tokenizer
from steered import logits, steered_repo
from taught import two_ways
from transformers import AutoModelForCausalLM

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.cli.info import info
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.select_behaviours import ExportError
from iti_llama.toolkit.export.source import open_source
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.measure.divergence import Text, measure_divergence
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.info import inspect, overlap
from iti_llama.toolkit.repo.push import files_to_push
from iti_llama.toolkit.repo.settings import RepoSettings
from iti_llama.toolkit.repo.verify import verify


SETTINGS = FitSettings(top_k=4, folds=3, test_share=0.4, permutations=0)


@pytest.fixture
def repo(tmp_path):
    """A steered repo at 1.5 with a second behaviour at -0.5."""
    folder = steered_repo(tmp_path)
    model = ITILlamaForCausalLM.from_pretrained(folder)
    model.set_iti_behaviour("typed", some_directions(tiny_config(), k=5, seed=8), alpha=-0.5)
    model.save_pretrained(folder)
    return folder


def fit_into(taught_dir, out, **kwargs):
    made_of = {"fitting": SETTINGS, "alpha": 0.5, "base_name": "taught", "behaviour": "returns"}
    made_of |= {key: kwargs.pop(key) for key in ("alpha", "base_name") if key in kwargs}
    return fit_repo(RepoSettings(taught_dir, **made_of), two_ways(), out, **kwargs)


def test_a_behaviour_is_fitted_into_a_repo_that_keeps_what_it_has(taught_dir, tmp_path):
    out = tmp_path / "repo"
    fit_into(taught_dir, out)
    before = (out / "iti_directions.safetensors").read_bytes()
    fit_into(taught_dir, out, name="other", alpha=-2.0)
    assert (out / "iti_directions.safetensors").read_bytes() == before
    config = json.loads((out / "config.json").read_text())
    digest = hashlib.sha256((out / "iti_directions.other.safetensors").read_bytes()).hexdigest()
    entry = {"file": "iti_directions.other.safetensors", "alpha": -2.0, "top_k": None, "sha256": digest}
    assert config["iti_behaviours"] == {"other": entry} and config["iti_alpha"] == 0.5
    assert ITILlamaForCausalLM.from_pretrained(out).iti_strengths == {"default": 0.5, "other": -2.0}
    card = (out / "README.md").read_text()
    assert "Further behaviours in this repo: `other` (alpha -2)" in card and "disable_iti" in card
    assert (out / "iti_report.other.json").is_file()


def test_where_it_cannot_be_fitted_nothing_is_changed(taught_dir, base_dir, tmp_path):
    out = tmp_path / "repo"
    with pytest.raises(FileNotFoundError, match="no such folder"):
        fit_into(taught_dir, out, name="other")
    fit_into(taught_dir, out)
    fit_into(taught_dir, out, name="other")
    held = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    for kwargs, error, says in (
        ({"name": "other"}, FileExistsError, "has a behaviour 'other'"),
        ({"name": "default"}, ValueError, "that of the repo's own directions"),
        ({"name": "a b"}, ValueError, "expected a name of at most 64 letters"),
        ({"name": "third", "base_name": "another"}, ValueError, "steers 'taught', not 'another'"),
    ):
        with pytest.raises(error, match=says):
            fit_into(taught_dir, out, **kwargs)
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == held


def test_info_tells_of_them_and_of_their_overlap(repo):
    found = inspect(repo)
    assert found.behaviours == {"typed": {"alpha": -0.5, "heads": 5, "file": "iti_directions.typed.safetensors"}}
    model = ITILlamaForCausalLM.from_pretrained(repo)
    assert set(found.overlap) == {"default and typed"} and found.overlap_of == "shifts"
    shifts = {}
    for name, held in {
        "default": model.iti_directions,
        "typed": ITIDirections.load(repo / "iti_directions.typed.safetensors"),
    }.items():
        shifts[name] = {
            layer: model.model.layers[layer].self_attn.o_proj.weight.detach().double().numpy()
            @ offset.double().numpy()
            for layer, offset in held.offsets().items()
        }
    assert set(found.overlap["default and typed"]) == shifts["default"].keys() & shifts["typed"].keys()
    for layer, cosine in found.overlap["default and typed"].items():
        a, b = shifts["default"][layer], shifts["typed"][layer]
        assert cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    model.set_iti_behaviour("twin", model.iti_directions, alpha=1.0)
    model.save_pretrained(repo)
    assert list(inspect(repo).overlap["default and twin"].values()) == pytest.approx([1] * len(shifts["default"]))


def test_overlap_is_that_of_the_shifts_where_the_weights_are_known():
    """Two behaviours of different heads, whose columns of W_O are alike."""
    held = some_directions(tiny_config(), k=1)
    (layer, head), width = held.heads[0].tolist(), held.head_dim
    other = replace(held, heads=torch.tensor([[layer, (head + 1) % held.num_attention_heads]]))
    weight = np.tile(np.random.default_rng(0).normal(size=(8, width)), held.num_attention_heads)
    assert overlap(held, other) == {layer: 0}
    assert overlap(held, other, lambda layer: weight) == {layer: pytest.approx(1)}


def test_without_its_base_a_repo_is_told_of_by_offsets(repo):
    shutil.rmtree(repo.parent / "base")
    assert inspect(repo).overlap_of == "offsets"


def test_much_overlap_is_warned_of(repo, capsys):
    model = ITILlamaForCausalLM.from_pretrained(repo)
    model.set_iti_behaviour("twin", model.iti_directions, alpha=1.0)
    model.save_pretrained(repo)
    info(str(repo))
    assert "warning: default and twin overlap (cosine 1.00)" in capsys.readouterr().out


def test_they_are_published_and_verified(repo):
    config = json.loads((repo / "config.json").read_text())
    base = repo.parent / "base"
    (repo / "config.json").write_text(json.dumps(config | {"base_model_name_or_path": "someone/llama"}))
    assert "iti_directions.typed.safetensors" in files_to_push(repo)
    assert not verify(str(repo)).problems
    (repo / "iti_directions.typed.safetensors").write_bytes(b"no")
    assert any("iti_directions.typed.safetensors" in problem for problem in verify(str(repo)).problems)
    (repo / "iti_directions.typed.safetensors").unlink()
    assert any("no iti_directions.typed.safetensors" in problem for problem in verify(str(repo)).problems)
    with pytest.raises(FileNotFoundError):
        files_to_push(repo)
    assert base.is_dir()


def test_an_export_holds_the_mix(repo, ids, tmp_path):
    steered = logits(ITILlamaForCausalLM.from_pretrained(repo), ids)
    export(repo, "llama", tmp_path / "llama")
    assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "llama"), ids), steered)
    export(repo, "llama", tmp_path / "plain", alpha=0)
    plain = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), ids)
    assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "plain"), ids), plain)
    assert not torch.allclose(plain, steered, atol=1e-2)
    config = json.loads((repo / "config.json").read_text())
    (repo / "config.json").write_text(json.dumps(config | {"iti_alpha": 0.0}))
    with pytest.raises(ExportError, match="iti_alpha is 0, but typed would still steer"):
        open_source(repo)


@pytest.mark.parametrize("name,alpha", [("typed", None), ("typed", 2.0), ("default", None)])
def test_an_export_holds_one_of_them_alone(repo, ids, tmp_path, name, alpha):
    model = ITILlamaForCausalLM.from_pretrained(repo)
    strengths = dict.fromkeys(model.iti_strengths, 0.0)
    model.set_iti(strengths | {name: alpha or {"typed": -0.5, "default": 1.5}[name]})
    canary, _ = export(repo, "llama", tmp_path / "llama", name=name, alpha=alpha, prompts=["a b c"])
    assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "llama"), ids), logits(model, ids))
    assert canary.alpha == model.iti_strengths[name]


def test_a_behaviour_that_is_not_there_is_not_exported(repo, tmp_path):
    with pytest.raises(ExportError, match="has no behaviour 'short'; it has default, typed"):
        export(repo, "llama", tmp_path / "llama", name="short")


def test_measured_beside_plain_which_is_plain(repo, tmp_path):
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(repo), tiny_tokenizer()
    base = ITILlamaForCausalLM.from_base(repo.parent / "base", None)
    ask = {"max_new_tokens": 8, "min_new_tokens": 8}
    plain, steered = complete(model, tokenizer, ["def f"] * 2, [0.0, 1.5], **ask)
    assert plain == complete(base, tokenizer, ["def f"], **ask)[0]
    assert steered == complete(model, tokenizer, ["def f"], **ask)[0] != plain
    found = measure_divergence(model, tokenizer, [Text("de", "f(x):", "g")], [1.5])[0]
    ids = torch.tensor([tokenizer("de")["input_ids"] + tokenizer("f(x):", add_special_tokens=False)["input_ids"]])
    p, q = (logits(m, ids)[0, 2:-1].log_softmax(-1) for m in (base, model))
    assert found.kl.mean == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)
