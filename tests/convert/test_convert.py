"""Older files: each format is read without running it, and the repo made of it adds what the source's own code
adds."""

import copy
import json
import pickle
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from reference import assert_close, tiny_config, tiny_llama
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from iti_llama import ITIDirections
from iti_llama.toolkit.convert.convert import convert
from iti_llama.toolkit.convert.legacy_files import read_legacy
from iti_llama.toolkit.convert.unpickle import LegacyError
from iti_llama.toolkit.repo.card import renew_card


HEADS = [(2, 1), (0, 3), (1, 0), (2, 2)]


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    """hidden_size = heads * head_dim, as in the models of older code."""
    folder = tmp_path_factory.mktemp("base")
    tiny_llama(head_dim=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(base_dir):
    return LlamaForCausalLM.from_pretrained(base_dir).eval()


def unit_vectors(dtype=np.float16):
    rng = np.random.default_rng(0)
    vectors = {pair: rng.normal(size=16) for pair in HEADS}
    return {pair: (v / np.linalg.norm(v)).astype(dtype) for pair, v in vectors.items()}


def dump(content, path, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@contextmanager
def source_hooks(model, vectors, alpha, site, everywhere=False):
    """What the source does: `alpha * std * vector` at the last position, on a slice of o_proj's output (residual) or
    on a head of its input (head)."""
    handles = []
    for (layer, head), value in vectors.items():
        vector, std = value if isinstance(value, tuple) else (value, 1.0)
        offset = torch.from_numpy(np.asarray(vector, dtype=np.float32)) * float(std) * alpha
        columns = slice(head * 16, head * 16 + 16)
        rows = slice(None) if everywhere else slice(-1, None)

        def add(x, offset=offset, columns=columns, rows=rows):
            x = x.clone()
            x[:, rows, columns] += offset
            return x

        o_proj = model.model.layers[layer].self_attn.o_proj
        if site == "residual":
            handles.append(o_proj.register_forward_hook(lambda m, a, out, add=add: add(out)))
        else:
            handles.append(o_proj.register_forward_pre_hook(lambda m, a, add=add: (add(a[0]),)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def same_as_source(folder, base, vectors, alpha, site):
    """Logits of the last position, and of the steps after it on a cache, are those of the source's own hooks."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[1, 5, 9, 30, 7], [1, 8, 2, 40, 11]])
    with torch.no_grad(), source_hooks(base, vectors, alpha, site):
        mine = theirs = None
        step = ids
        for _ in range(3):
            mine = model(step, past_key_values=mine and mine.past_key_values, use_cache=True)
            theirs = base(step, past_key_values=theirs and theirs.past_key_values, use_cache=True)
            assert_close(mine.logits[:, -1], theirs.logits[:, -1])
            step = theirs.logits[:, -1:].argmax(-1)
    plain = base(ids).logits[:, -1]
    assert not torch.allclose(plain, theirs.logits[:, -1], atol=1e-3)
    return model


def with_std(vectors):
    return {pair: (vector, np.float16(0.2 + 0.3 * i)) for i, (pair, vector) in enumerate(vectors.items())}


RANKED = [
    {"layer": layer, "head": head, "accuracy": 0.7, "auc": 0.9 - 0.05 * i} for i, (layer, head) in enumerate(HEADS)
]


def replaced_layout(folder, vectors):
    dump({"directions": vectors, "top_heads": RANKED}, folder / "iti_components.pkl")
    config = {
        "metadata": {"alpha": 0.4, "base_model": "meta-llama/Llama-3.1-8B-Instruct"},
        "intervention_type": "creativity",
    }
    (folder / "iti_config.json").write_text(json.dumps(config))


def aug_layout(folder, vectors):
    dump(vectors, folder / "directions.pkl")
    dump(RANKED, folder / "top_heads.pkl")


def upload_layout(folder, vectors):
    dump(vectors, folder / "iti_directions.pkl", protocol=2)
    dump(RANKED, folder / "iti_top_heads.pkl", protocol=2)
    (folder / "iti_config.json").write_text(
        json.dumps({"alpha": 0.35, "num_intervention_heads": 3, "auto_apply": True})
    )


def json_layout(folder, vectors):
    folder.mkdir(exist_ok=True)
    directions = {f"layer_{layer}_head_{head}": v.astype(float).tolist() for (layer, head), v in vectors.items()}
    (folder / "iti_config.json").write_text(json.dumps({"metadata": {"alpha": 0.4}, "directions": directions}))


def sept_layout(folder, vectors):
    scores = [
        {"layer": x["layer"], "head": x["head"], "train_acc": 1, "val_acc": 0.7, "auc": x["auc"]} for x in RANKED
    ]
    content = {"top_heads": HEADS, "top_heads_scores": scores, "directions": with_std(vectors), "layer_probes": []}
    dump(content | {"all_head_scores": scores, "num_layers": 4, "num_heads": 4}, folder / "probe_results.pkl")


def spread_layout(folder, vectors):
    dump(with_std(vectors), folder / "intervention_directions.pkl")


def truthful_layout(folder, vectors):
    sklearn = pytest.importorskip("sklearn.linear_model")
    probe = sklearn.LogisticRegression().fit(np.random.randn(8, 16), [0, 1] * 4)
    pairs = sorted(HEADS)
    keyed = {(np.int64(layer), np.int64(head)): with_std(vectors)[layer, head] for layer, head in HEADS}
    content = {
        "top_heads": [(np.int64(a), np.int64(b)) for a, b in pairs],
        "all_head_accs": np.arange(16) * 7 % 16 / 16,
    }
    content |= {"probes": [probe] * 16, "directions": keyed, "num_layers": 4, "num_heads": 4}
    dump(content, folder / "llama_probe_results.pkl")


LAYOUTS = [
    (replaced_layout, "residual", 0.4, {}),
    (aug_layout, "residual", 6.0, {"alpha": 6.0}),
    (json_layout, "residual", 0.4, {}),
    (sept_layout, "head", 5.0, {"alpha": 5.0}),
    (spread_layout, "head", 5.0, {"alpha": 5.0}),
    (truthful_layout, "head", 5.0, {"alpha": 5.0}),
]


@pytest.mark.parametrize("layout,site,alpha,options", LAYOUTS)
def test_a_converted_repo_steers_as_its_source(layout, site, alpha, options, base_dir, base, tmp_path):
    vectors = unit_vectors()
    (tmp_path / "old").mkdir()
    layout(tmp_path / "old", vectors)
    found = convert(str(tmp_path / "old"), str(base_dir), tmp_path / "new", **options)
    stored = with_std(vectors) if site == "head" else vectors
    model = same_as_source(tmp_path / "new", base, stored, alpha, site)
    assert (model.iti_scope, model.iti_alpha, model.iti_directions.site) == ("generated", alpha, site)
    order = [tuple(pair) for pair in model.iti_directions.heads.tolist()]
    if layout is truthful_layout:
        assert order == sorted(HEADS, key=lambda pair: -((4 * pair[0] + pair[1]) * 7 % 16))
        assert any("ranked by the source's accuracy of each head" in line for line in found.said)
        assert model.iti_directions.provenance["ranked"] == "yes"
    elif layout in (json_layout, spread_layout):
        assert any("does not rank" in line for line in found.said)
    else:
        assert order == HEADS
    if layout in (replaced_layout, aug_layout, sept_layout):
        torch.testing.assert_close(model.iti_directions.scores, torch.tensor([0.9, 0.85, 0.8, 0.75]))
    assert any(line.startswith(f"site {site}") for line in found.said)


def test_the_number_of_heads_that_the_source_uses_is_kept(base_dir, base, tmp_path):
    vectors = unit_vectors()
    (tmp_path / "old").mkdir()
    upload_layout(tmp_path / "old", vectors)
    convert(str(tmp_path / "old"), str(base_dir), tmp_path / "new")
    model = same_as_source(tmp_path / "new", base, {pair: vectors[pair] for pair in HEADS[:3]}, 0.35, "residual")
    assert (model.iti_top_k, len(model.iti_directions)) == (3, 4)


def test_site_alpha_and_scope_can_be_overridden(base_dir, base, tmp_path):
    vectors = unit_vectors()
    (tmp_path / "old").mkdir()
    replaced_layout(tmp_path / "old", vectors)
    options = {"site": "head", "alpha": 2.0, "scope": "all"}
    found = convert(str(tmp_path / "old"), str(base_dir), tmp_path / "new", **options)
    assert any("the files look like residual" in line for line in found.said)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new").eval()
    ids = torch.tensor([[1, 5, 9, 30, 7]])
    with torch.no_grad(), source_hooks(base, vectors, 2.0, "head", everywhere=True):
        assert_close(model(ids).logits, base(ids).logits)


def test_a_baked_checkpoint_becomes_directions_that_give_its_logits(base_dir, base, tmp_path):
    fields = base.config.to_dict() | {"attention_bias": True}
    baked = LlamaForCausalLM(
        tiny_config(**{k: v for k, v in fields.items() if k in ("head_dim", "attention_bias")})
    ).eval()
    missing, unexpected = baked.load_state_dict(base.state_dict(), strict=False)
    assert all(name.endswith("bias") for name in missing) and not unexpected
    with torch.no_grad():
        for name, parameter in baked.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        for layer in (1, 3):
            baked.model.layers[layer].self_attn.o_proj.bias.normal_(0, 0.5)
    baked.save_pretrained(tmp_path / "baked")
    found = convert(str(tmp_path / "baked"), str(base_dir), tmp_path / "new")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new").eval()
    ids = torch.tensor([[1, 5, 9, 30, 7]])
    with torch.no_grad():
        assert_close(model(ids).logits, baked(ids).logits)
    assert (found.scope, found.alpha, len(found.directions)) == ("all", 1.0, 8)

    other = tiny_llama(seed=9, head_dim=16)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(LegacyError, match="this is not its base"):
        convert(str(tmp_path / "baked"), str(tmp_path / "other"), tmp_path / "no")
    with pytest.raises(LegacyError, match="has o_proj biases of its own"):
        convert(str(tmp_path / "baked"), str(tmp_path / "baked"), tmp_path / "no")
    with pytest.raises(LegacyError, match="no o_proj biases"):
        convert(str(base_dir), str(base_dir), tmp_path / "no")


@pytest.mark.parametrize(
    ("baked_dtype", "base_dtype"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "float32")]
)
def test_a_baked_checkpoint_of_another_dtype_is_known_by_its_base_and_not_by_another(
    base, tmp_path, baked_dtype, base_dtype
):
    baked = LlamaForCausalLM(tiny_config(head_dim=16, attention_bias=True)).eval()
    baked.load_state_dict(base.state_dict(), strict=False)
    with torch.no_grad():
        for name, parameter in baked.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(0.5 if name.endswith("2.self_attn.o_proj.bias") else 0)
    changed = copy.deepcopy(base)
    with torch.no_grad():  # one part in fifty of one layer: less than that is lost in the rounding of bfloat16
        changed.model.layers[1].self_attn.o_proj.weight.mul_(1.02)
    # saved in the finer dtype from the weights that the coarser one holds, or the other way round
    if base_dtype == "bfloat16":
        baked.to(torch.bfloat16)
    baked.to(getattr(torch, baked_dtype)).save_pretrained(tmp_path / "baked")
    copy.deepcopy(base).to(getattr(torch, base_dtype)).save_pretrained(tmp_path / "base")
    changed.to(getattr(torch, base_dtype)).save_pretrained(tmp_path / "changed")
    found = convert(str(tmp_path / "baked"), str(tmp_path / "base"), tmp_path / "new")
    assert found.directions.heads[:, 0].unique().tolist() == [2]
    with pytest.raises(LegacyError, match="layers.1.self_attn.o_proj.weight is not that of"):
        convert(str(tmp_path / "baked"), str(tmp_path / "changed"), tmp_path / "no")


def test_a_source_of_the_real_size_converts_and_steers(tmp_path):
    """The layout of `iti_config.json` with `iti_components.pkl`: 48 of 32 x 32 heads of 128, on a base of as many
    layers, heads and that width."""
    config = tiny_config(
        hidden_size=4096, intermediate_size=64, num_hidden_layers=32, num_attention_heads=32, head_dim=128
    )
    config.num_key_value_heads = 8
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        base = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    base.save_pretrained(tmp_path / "base")
    rng = np.random.default_rng(1)
    pairs = [(int(i) // 32, int(i) % 32) for i in rng.permutation(32 * 32)[:48]]
    vectors = {pair: rng.normal(size=128) for pair in pairs}
    vectors = {pair: (v / np.linalg.norm(v)).astype(np.float16) for pair, v in vectors.items()}
    top = [{"layer": layer, "head": head, "accuracy": 0.6, "auc": 0.7} for layer, head in pairs]
    dump({"directions": vectors, "top_heads": top}, tmp_path / "old" / "iti_components.pkl")
    (tmp_path / "old" / "iti_config.json").write_text(json.dumps({"metadata": {"alpha": 0.4}}))
    convert(str(tmp_path / "old"), str(tmp_path / "base"), tmp_path / "new")
    size = sum(path.stat().st_size for path in (tmp_path / "new").iterdir())
    assert size < 200_000
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.bfloat16).eval()
    directions = model.iti_directions
    assert [tuple(pair) for pair in directions.heads.tolist()] == pairs
    assert (directions.num_hidden_layers, directions.head_dim, model.iti_alpha) == (32, 128, 0.4)
    ids = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        steered = model(ids).logits
        with model.disable_iti():
            assert torch.equal(model(ids).logits, base(ids).logits)
    assert not torch.equal(steered, base(ids).logits)


@pytest.mark.parametrize(
    "content,message",
    [
        ({"directions": {(0, 0): np.ones(5)}}, "5 numbers"),
        ({"directions": {(9, 0): np.ones(16)}}, "layer 9"),
        ({"directions": {(0, 0): np.full(16, np.nan)}}, "finite"),
        ({"directions": {"x": np.ones(16)}}, "a key is 'x'"),
        ({"directions": {(0, 0): np.ones(16)}, "top_heads": [(0, 1)]}, "has no direction"),
        ({"directions": {(0, 0): np.ones(16)}, "top_heads": [(0, 0), (0, 0)]}, "twice"),
        ({"directions": {(0, 0): np.zeros(16)}}, "every direction is zero"),
        ({"directions": {(0, 0): np.ones(16), (0, 1): (np.ones(16), 1.0)}}, "one kind"),
        ({"directions": {(0, 0): np.ones(16)}, "num_layers": 32, "num_heads": 32}, "num_hidden_layers=32"),
        ([1, 2], "expected a dict"),
        ({"directions": {}}, "no directions"),
    ],
)
def test_sources_that_do_not_fit_are_named_and_nothing_is_written(content, message, base_dir, tmp_path):
    path = dump(content, tmp_path / "directions.pkl")
    with pytest.raises(ValueError, match=message):
        convert(str(path), str(base_dir), tmp_path / "new", alpha=1.0)
    assert not (tmp_path / "new").exists()


def test_a_source_without_alpha_asks_for_one(base_dir, tmp_path):
    aug_layout(tmp_path / "old", unit_vectors())
    with pytest.raises(LegacyError, match="pass --alpha"):
        convert(str(tmp_path / "old"), str(base_dir), tmp_path / "new")


def test_an_empty_folder_says_what_was_expected(tmp_path):
    with pytest.raises(LegacyError, match="iti_components.pkl"):
        read_legacy(tmp_path)


def test_the_command_prints_what_it_decided(base_dir, tmp_path, monkeypatch, capsys):
    from iti_llama.toolkit import cli

    replaced_layout(tmp_path / "old", unit_vectors())
    arguments = ["iti-llama", "convert", tmp_path / "old", "--base", base_dir, "--out", tmp_path / "new"]
    arguments += ["--behaviour", "is creative", "--language", "en", "--hub-dataset", "me/creative"]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().out
    assert not stopped.value.code and "site residual" in said and "alpha 0.4: from the source" in said
    assert len(ITIDirections.load(tmp_path / "new" / "iti_directions.safetensors")) == 4
    card = ModelCard.load(tmp_path / "new" / "README.md")
    assert card.data.model_name == f"{base_dir.name}, steered: is creative"
    assert (card.data.language, card.data.datasets) == ("en", ["me/creative"])


def test_the_card_tells_what_was_converted_from_what_is(base_dir, tmp_path):
    (tmp_path / "old").mkdir()
    replaced_layout(tmp_path / "old", unit_vectors())
    convert(str(tmp_path / "old"), str(base_dir), tmp_path / "new")
    config = tmp_path / "new" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"iti_alpha": 2.0, "iti_scope": "all"}))
    assert renew_card(tmp_path / "new")
    text = (tmp_path / "new" / "README.md").read_text()
    assert "shifted by alpha = 2 times their recorded length along fixed directions, at every position" in text
    converted = text.split("Converted from `old`. When it was converted:\n\n")[1].split("\n\n")[0]
    assert "- alpha 0.4: from the source" in converted and "alpha 0.4" not in text.replace(converted, "")


@pytest.mark.parametrize("missing", ["source", "base"])
def test_a_folder_that_is_not_there_is_named(missing, base_dir, tmp_path):
    (tmp_path / "old").mkdir()
    replaced_layout(tmp_path / "old", unit_vectors())
    places = {"source": str(tmp_path / "old"), "base": str(base_dir)} | {missing: "./x"}
    with pytest.raises(FileNotFoundError, match=f"^{missing} ./x: no such folder, and no name of a Hub repo"):
        convert(**places, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
