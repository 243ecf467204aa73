"""Gates: fitted on prompts, calibrated on folds, read once on test groups; the same numbers as scikit-learn's."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reference import tiny_tokenizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from taught import two_ways

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.data.splits import split_groups
from iti_llama.toolkit.fit.gate import C, fit_gate
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.settings import Gating, RepoSettings


def prompts(n: int = 60) -> list[Example]:
    """Functions to act on, classes to leave alone."""
    kinds = (("class C{}:\n", 0), ("def f{}(x):\n", 1))
    return [Example(text.format(i), "x\n", label, f"{label} {i}") for i in range(n) for text, label in kinds]


@pytest.fixture(scope="module")
def model(taught_dir):
    return ITILlamaForCausalLM.from_base(taught_dir, None).eval()


@pytest.fixture(scope="module")
def fitted(model):
    return fit_gate(model, tiny_tokenizer(), prompts())


def activations(model, examples):
    return capture(model, tiny_tokenizer(), examples, Policy("fraction", 0.0)).heads


def test_it_tells_the_two_kinds_of_prompts_apart_and_says_how_well(fitted):
    gate, told = fitted
    assert len(gate.heads) == 8 and told["auc_test"] > 0.99
    assert gate.threshold[0] == gate.threshold[1]  # all or nothing
    assert told["fires_on_label_1"]["mean"] > 0.8 and told["fires_on_label_0"]["mean"] < 0.2
    assert told["fires_on_label_1"]["n"] + told["fires_on_label_0"]["n"] == told["test"] == 24


def test_the_score_is_that_of_a_logistic_regression_of_the_fitting_rows(model, fitted):
    gate, _ = fitted
    examples = prompts()
    fitting, test = split_groups(examples, 0.2, 0)
    x = activations(model, examples)
    read = np.concatenate([x[:, layer, head].numpy() for layer, head in gate.heads.tolist()], 1)
    y = np.array([example.label for example in examples])
    scaler = StandardScaler().fit(read[fitting])
    reference = LogisticRegression(C=C, tol=1e-10, max_iter=10000).fit(scaler.transform(read[fitting]), y[fitting])
    scores = reference.decision_function(scaler.transform(read[test]))
    features = np.concatenate([x[test][:, layer, head].numpy() for layer, head in gate.heads.tolist()], 1)
    assert np.allclose(features @ gate.weights.flatten().numpy() + gate.bias.numpy(), scores, atol=2e-3)
    opened = gate.opens({layer: x[test][:, layer].flatten(1) for layer in gate.heads[:, 0].tolist()})
    assert opened.tolist() == (scores >= float(gate.threshold[0])).tolist()


def test_the_share_of_false_fires_is_what_was_asked_for_out_of_fold(model):
    rng = np.random.default_rng(0)
    noisy = [replace(example, label=int(rng.random() < 0.5)) for example in prompts()]
    strict, loose = (fit_gate(model, tiny_tokenizer(), noisy, false_fires=share) for share in (0.02, 0.5))
    assert strict[0].threshold[0] > loose[0].threshold[0]
    assert torch.equal(strict[0].weights, loose[0].weights)
    assert strict[1]["fires_on_label_0"]["mean"] <= loose[1]["fires_on_label_0"]["mean"]
    assert 0.2 < strict[1]["auc_out_of_fold"] < 0.8, "labels that say nothing are not told apart"


def test_on_labels_that_say_nothing_the_folds_see_no_more_than_the_test_prompts():
    """Many heads and few prompts: heads that are chosen on the held-out rows as well would tell noise apart."""
    generator = torch.Generator().manual_seed(3)
    heads = torch.randn(120, 40, 12, 16, generator=generator)
    examples = [Example(f"p{i}", "x", i % 2, f"g{i}") for i in range(120)]
    model = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=40, num_attention_heads=12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iti_llama.toolkit.fit.gate.capture", lambda *args, **kwargs: SimpleNamespace(heads=heads))
        _, told = fit_gate(model, None, examples)
    assert 0.3 < told["auc_out_of_fold"] < 0.7


def test_the_test_groups_change_nothing_of_the_gate(model, fitted):
    examples = prompts()
    _, test = split_groups(examples, 0.2, 0)
    other = [replace(e, prompt="z" + e.prompt) if i in set(test.tolist()) else e for i, e in enumerate(examples)]
    assert torch.equal(fit_gate(model, tiny_tokenizer(), other)[0].weights, fitted[0].weights)


def test_what_cannot_be_fitted_is_said(model):
    with pytest.raises(ValueError, match="share of false fires is 1; expected one between 0 and 1"):
        fit_gate(model, tiny_tokenizer(), prompts(), false_fires=1.0)
    one = [
        replace(example, label=1, group="a") if example.label else replace(example, group="b") for example in prompts()
    ]
    with pytest.raises(ValueError, match="are of one label; expected both"):
        fit_gate(model, tiny_tokenizer(), one)


def test_a_repo_with_a_gate_steers_where_it_should(taught_dir, tmp_path):
    settings = FitSettings(top_k=6, folds=3, test_share=0.4, permutations=0)
    made_of = RepoSettings(taught_dir, fitting=settings, alpha=3.0)
    told = fit_repo(made_of, two_ways(), tmp_path / "repo", gate=Gating(prompts(), "kinds.jsonl"))
    assert json.loads((tmp_path / "repo" / "iti_report.json").read_text())["gate"] == told["gate"]
    assert (
        ITIDirections.load(tmp_path / "repo" / "iti_directions.safetensors").provenance["gate_dataset"]
        == "kinds.jsonl"
    )
    assert "A gate reads each prompt's last token" in (tmp_path / "repo" / "README.md").read_text()
    model, plain = (
        ITILlamaForCausalLM.from_pretrained(tmp_path / "repo"),
        ITILlamaForCausalLM.from_base(taught_dir, None),
    )
    tokenizer = tiny_tokenizer()
    inputs = tokenizer(["def f7(x):\n", "class C7:\n"], return_tensors="pt", padding=True, return_token_type_ids=False)
    call = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "output_logits": True}
    ours, theirs = (m.generate(**inputs, **call, return_dict_in_generate=True).logits[0] for m in (model, plain))
    assert not torch.allclose(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
