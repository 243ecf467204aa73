"""Heads ranked by what they do: derivatives and effects are those of hooks, and inert heads are not chosen."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import tiny_tokenizer
from taught import two_ways

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.causal import (
    bare_rows,
    by_cause,
    causal_effects,
    derivatives,
    exactly,
    first_order,
)
from iti_llama.toolkit.fit.fit_directions import fit
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.settings import RepoSettings


LAYERS, HEADS, DIM = 3, 4, 24
SETTINGS = FitSettings(top_k=3, folds=3, test_share=0.3, permutations=0, rank="causal")


@pytest.fixture(scope="module")
def model(taught_dir):
    return ITILlamaForCausalLM.from_base(taught_dir, None).eval()


@pytest.fixture(scope="module")
def offsets():
    return torch.randn(LAYERS, HEADS, DIM, generator=torch.Generator().manual_seed(0)) * 0.3


def said(model, row, offsets=None, head=0, alpha=0.0, scope="all"):
    """Log-probabilities [tokens, vocabulary] over one row's completion, in float64; one head shifted by a hook."""
    double = model.double() if next(model.parameters()).dtype != torch.float64 else model
    handles = []
    if offsets is not None:

        def shift(module, arguments):
            x = arguments[0].clone()
            first = 0 if scope == "all" else row.start - 1
            x[:, first:, head % HEADS * DIM : (head % HEADS + 1) * DIM] += (
                alpha * offsets[head // HEADS, head % HEADS].double()
            )
            return (x,)

        handles = [double.base_model.layers[head // HEADS].self_attn.o_proj.register_forward_pre_hook(shift)]
    with torch.no_grad():
        logits = double(torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
    [handle.remove() for handle in handles]
    return logits.log_softmax(-1)


def log_probability(model, row, *args, **kwargs):
    return float(said(model, row, *args, **kwargs).gather(1, torch.tensor(row.ids[row.start :])[:, None]).sum())


@pytest.mark.parametrize("scope", ["all", "generated"])
def test_derivatives_are_those_of_finite_differences_by_a_hook(taught_dir, offsets, scope):
    model = ITILlamaForCausalLM.from_base(taught_dir, None).eval().double()
    rows = bare_rows(two_ways(3), tiny_tokenizer())
    found = derivatives(model, rows, offsets, scope, pad=0, batch_size=4)
    assert found.shape == (6, LAYERS * HEADS)
    assert all(parameter.requires_grad for parameter in model.parameters())
    for index, row in enumerate(rows):
        for head in (0, 5, 11):
            up, down = (log_probability(model, row, offsets, head, step, scope) for step in (5e-3, -5e-3))
            assert found[index, head] == pytest.approx((up - down) / 1e-2, abs=2e-4, rel=1e-3)


def test_exact_effects_are_those_of_a_hook(taught_dir, offsets):
    model = ITILlamaForCausalLM.from_base(taught_dir, None).eval()
    rows, heads, alphas = bare_rows(two_ways(4), tiny_tokenizer()), [1, 6, 11], [0.5, 1.0, 2.0]
    gain, divergence = exactly(model, rows, offsets, heads, alphas, "all", pad=0, batch_size=3)
    model.double()
    for column, (head, alpha) in enumerate(zip(heads, alphas, strict=True)):
        moved, kl = {0: [], 1: []}, []
        for row in rows:
            plain, shifted = said(model, row), said(model, row, offsets, head, alpha)
            moved[row.label].append(log_probability(model, row, offsets, head, alpha) - log_probability(model, row))
            kl.append(float((plain.exp() * (plain - shifted)).sum()))
        assert gain[column] == pytest.approx(np.mean(moved[1]) - np.mean(moved[0]), abs=1e-3)
        assert divergence[column] == pytest.approx(np.mean(kl), abs=1e-3)


def test_the_score_is_gain_per_root_of_divergence_to_second_order():
    rng = np.random.default_rng(0)
    slopes, labels = rng.normal(size=(40, 5)), np.arange(40) % 2
    slopes[:, 2] = 0
    gain = slopes[labels == 1].mean(0) - slopes[labels == 0].mean(0)
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(gain / np.sqrt((slopes**2).mean(0) / 2))
    assert np.allclose(first_order(slopes, labels), expected) and first_order(slopes, labels)[2] == 0


def inert(taught_dir, heads) -> ITILlamaForCausalLM:
    """The taught model, with heads whose columns of W_O are 0: they read as before, and do nothing."""
    model = ITILlamaForCausalLM.from_base(taught_dir, None).eval()
    with torch.no_grad():
        for head in heads:
            at = head % HEADS * DIM
            model.model.layers[head // HEADS].self_attn.o_proj.weight[:, at : at + DIM] = 0
    return model


def test_probes_choose_heads_that_do_nothing_and_causal_none_of_them(taught_dir):
    examples, tokenizer, policy = two_ways(), tiny_tokenizer(), Policy("last")
    last = list(range((LAYERS - 1) * HEADS, LAYERS * HEADS))
    planted = [
        head for layer in range(LAYERS) for head in range(layer * HEADS, layer * HEADS + HEADS) if head % 2 == 0
    ]
    model = inert(taught_dir, planted)
    found = fit(capture(model, tokenizer, examples, policy), examples, policy, SETTINGS)
    assert set(found.ranking[: found.top_k]) & set(planted), "the probes read heads that do nothing"
    effects = causal_effects(model, tokenizer, examples, found, "all")
    assert not effects.first_order[planted].any() and np.abs(effects.first_order[last]).max() > 0
    chosen = by_cause(found, effects)
    assert not set(chosen.ranking[: chosen.top_k].tolist()) & set(planted)


def test_only_fitting_rows_are_used(model):
    examples, tokenizer, policy = two_ways(), tiny_tokenizer(), Policy("last")
    found = fit(capture(model, tokenizer, examples, policy), examples, policy, SETTINGS)
    effects = causal_effects(model, tokenizer, examples, found, "all")
    other = [
        replace(row, completion="z\n") if index in set(found.test.tolist()) else row
        for index, row in enumerate(examples)
    ]
    again = causal_effects(model, tokenizer, other, found, "all")
    assert np.array_equal(effects.first_order, again.first_order) and np.array_equal(effects.exact, again.exact)


def test_the_bare_prompt_is_what_the_row_says_it_is():
    rows = bare_rows(
        [Example("say it: f", "x", 1, "g", meta={"bare": "f"}), Example("f", "x", 0, "g")], tiny_tokenizer()
    )
    assert rows[0].ids == rows[1].ids and rows[0].start == 2


def test_what_cannot_be_ranked_is_said(model, taught_dir):
    examples, tokenizer, policy = two_ways(), tiny_tokenizer(), Policy("last")
    found = fit(capture(model, tokenizer, examples, policy), examples, policy, SETTINGS)
    long = [replace(row, completion="y = 1\n" * 20) for row in examples]
    with pytest.raises(ValueError, match="longer, with the whole completion, than the model's 72 tokens"):
        causal_effects(model, tokenizer, long, found, "all")
    dead = inert(taught_dir, range(LAYERS * HEADS))
    with pytest.raises(ValueError, match="none of the 6 heads checked moves the model towards label 1"):
        by_cause(found, causal_effects(dead, tokenizer, examples, found, "all"))
    for rank in ("cause", "causal+probe"):
        with pytest.raises(ValueError, match=f"rank is '{re.escape(rank)}'; expected one of probe, causal$"):
            FitSettings(rank=rank)


def test_a_repo_of_heads_by_cause_steers_further_than_it_did(taught_dir, tmp_path):
    settings = replace(SETTINGS, permutations=20)
    told = fit_repo(RepoSettings(taught_dir, fitting=settings), two_ways(), tmp_path / "repo")
    held = ITIDirections.load(tmp_path / "repo" / "iti_directions.safetensors")
    assert held.format_version == "1" and held.provenance["ranked_by"].startswith("causal")
    assert told["heads"][0]["effect"] == max(head["effect"] for head in told["heads"]) > 0
    model, rows = ITILlamaForCausalLM.from_pretrained(tmp_path / "repo"), bare_rows(two_ways(3), tiny_tokenizer())
    plain = ITILlamaForCausalLM.from_base(taught_dir, None)
    moved = {
        label: sum(log_probability(model, r) - log_probability(plain, r) for r in rows if r.label == label)
        for label in (0, 1)
    }
    assert moved[1] > moved[0]
