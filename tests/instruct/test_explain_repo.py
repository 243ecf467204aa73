"""What directions do, against computations of their own; and the command that says it."""

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from real_model import need_smollm2
from reference import SCOPE_POSITIONS, hooks, some_directions, tiny_llama, tiny_tokenizer
from steered import steered_repo

from iti_llama import ITIDirections, ITILlamaForCausalLM, smollm2
from iti_llama.toolkit.cli.app import app
from iti_llama.toolkit.foundation.package import BUNDLED, ROOT
from iti_llama.toolkit.instruct import explain_repo as module
from iti_llama.toolkit.instruct.explain_repo import (
    explain_repo,
    layer_tokens,
    mean_probabilities,
    resemblance,
    shipped_beside,
)
from iti_llama.toolkit.repo.steered_repo import SteeredRepo


PROMPTS, ANSWERS = ["def f(x):", "go"], ["return x", "yes"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    return steered_repo(tmp_path_factory.mktemp("explained"))


@pytest.fixture
def loaded(repo):
    return ITILlamaForCausalLM.from_pretrained(repo).eval()


@torch.no_grad()
def reference(plain, scope: str, steering=None) -> torch.Tensor:
    """The mean probabilities, text by text, by plain transformers."""
    tokenizer, total, count = tiny_tokenizer(), 0.0, 0
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        start, ids = len(tokenizer(prompt)["input_ids"]), tokenizer(prompt + answer)["input_ids"]
        shifted = (torch.arange(len(ids)) >= (0 if scope == "all" else start - 1))[None].float()
        with hooks(plain, *steering, positions=shifted) if steering else nullcontext():
            total = total + plain(torch.tensor([ids])).logits[0, start - 1 :].softmax(-1).sum(0)
        count += len(ids) - start + 1
    return total / count


@pytest.mark.parametrize("scope", SCOPE_POSITIONS)
def test_mean_probabilities_are_those_of_plain_and_steered_passes(scope, loaded):
    loaded.iti_scope, plain = scope, tiny_llama()
    before, after = mean_probabilities(loaded, tiny_tokenizer(), PROMPTS, ANSWERS, 1.5)
    torch.testing.assert_close(before, reference(plain, scope), atol=1e-5, rtol=1e-4)
    steering = (loaded.iti_directions, 1.5)
    torch.testing.assert_close(after, reference(plain, scope, steering), atol=1e-5, rtol=1e-4)


def test_a_layers_tokens_are_those_that_its_shift_points_to(loaded, repo):
    plain, directions = tiny_llama(), ITIDirections.load(repo / "iti_directions.safetensors")
    rows, tokenizer = layer_tokens(loaded, tiny_tokenizer()), tiny_tokenizer()
    assert [row.layer for row in rows] == sorted({layer for layer, _ in directions.heads.tolist()})
    for row in rows:
        offset = directions.offsets()[row.layer]
        shift = plain.model.layers[row.layer].self_attn.o_proj.weight.detach() @ offset
        logits = plain.lm_head.weight.detach() @ (plain.model.norm.weight.detach() * shift)
        assert row.rises[0] == tokenizer.decode([int(logits.argmax())])
        assert row.falls[0] == tokenizer.decode([int(logits.argmin())])


def test_a_repo_resembles_itself_and_its_tokens_are_in_order(loaded, repo):
    told = explain_repo(loaded, tiny_tokenizer(), [SteeredRepo.open(repo, framework="pt")])
    changes = [[one.steered - one.plain for one in part] for part in (told.rises, told.falls)]
    assert changes[0] == sorted(changes[0], reverse=True) and changes[1] == sorted(changes[1])
    assert changes[0][0] > 0 > changes[1][0] and len(told.answers) == 5
    assert list(told.resembles[str(repo)].values()) == pytest.approx([1.0] * len(told.layers))
    loaded.set_iti_directions(ITIDirections.load(repo / "iti_directions.safetensors").top(1))
    assert len(resemblance(loaded, SteeredRepo.open(repo, framework="pt"))) == 1


def test_a_strength_of_0_is_refused(loaded):
    loaded.iti_alpha = 0.0
    with pytest.raises(ValueError, match="iti_alpha is 0"):
        explain_repo(loaded, tiny_tokenizer())


def test_the_command_prints_it(repo, capsys):
    assert app(["explain", str(repo), "--beside", str(repo), "--json"], standalone_mode=False) is None
    told = json.loads(capsys.readouterr().out)
    assert told["alpha"] == 1.5 and told["n"] == 24 and list(told["resembles"]) == [str(repo)]
    app(["explain", str(repo), "--beside", str(repo)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "rises" in said and "repo: cosine of the shifts, layer" in said and "steered: " in said
    assert "base tiny: this installation holds no other directions for it" in " ".join(said.split())


@pytest.fixture
def on_bundled():
    """The bundled model's weights with other directions."""
    model = ITILlamaForCausalLM.from_pretrained(ROOT).eval()
    directions = replace(some_directions(model.config, layers=range(4)), base_model="")
    model.set_iti_directions(directions)
    return model


def shipped(model, asked="elsewhere"):
    return [other.folder for other in shipped_beside(model, asked)]


def test_directions_are_compared_with_the_shipped_ones_of_the_same_base(on_bundled):
    assert shipped(on_bundled) == [ROOT]  # known by the weights
    assert shipped(on_bundled, str(ROOT)) == []
    with torch.no_grad():
        on_bundled.model.layers[0].mlp.up_proj.weight.add_(0.01)
    assert shipped(on_bundled) == []
    on_bundled.set_iti_directions(replace(on_bundled.iti_directions, base_model=BUNDLED))
    assert shipped(on_bundled) == [ROOT]  # by its name


def test_the_command_says_what_the_shipped_directions_are_like(on_bundled, capsys, tmp_path):
    on_bundled.save_pretrained(tmp_path / "mine")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "mine" / name).write_bytes((ROOT / name).read_bytes())
    app(["explain", str(tmp_path / "mine"), "--json"], standalone_mode=False)
    ((other, cosines),) = json.loads(capsys.readouterr().out)["resembles"].items()
    theirs, ours = ITIDirections.load(ROOT / "iti_directions.safetensors"), on_bundled.iti_directions
    shifts = [
        {layer: on_bundled.model.layers[layer].self_attn.o_proj.weight.detach() @ offset
         for layer, offset in directions.offsets().items()}
        for directions in (ours, theirs)
    ]  # fmt: skip
    assert (
        other == str(ROOT) and set(cosines) == {str(layer) for layer in shifts[0].keys() & shifts[1].keys()} != set()
    )
    for layer, cosine in cosines.items():
        a, b = (of_layer[int(layer)] for of_layer in shifts)
        assert cosine == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-5)
    app(["explain", str(tmp_path / "mine")], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "the bundled model: cosine of the shifts, layer" in said and "holds no other directions" not in said


def test_a_repo_of_smollm2_is_compared_with_the_example_where_that_is_installed(monkeypatch, tmp_path):
    need_smollm2()
    model = ITILlamaForCausalLM.from_base(smollm2(), None, dtype="auto")
    model.set_iti_directions(replace(some_directions(model.config), base_model="a folder"))
    assert shipped(model) == [ROOT / "examples" / "smollm2" / "brief"]
    for name in ("config.json", "iti_directions.safetensors"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(module, "ROOT", tmp_path)  # an installation without the examples
    assert shipped(model) == []
