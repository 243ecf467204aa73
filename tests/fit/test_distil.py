"""An instruction distilled into a shift of the heads, against gradients and passes of plain transformers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from instruct_model import INSTRUCTION, following_llama, requests, save_following
from reference import hooks, tiny_tokenizer
from taught import ENDINGS

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit import distil as module
from iti_llama.toolkit.fit.distil import TaughtAnswer, distil, distilled_directions, with_distilled
from iti_llama.toolkit.fit.fit_directions import fit, to_directions
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.complete import complete


def taught(of):
    ids = lambda text: tiny_tokenizer()(text)["input_ids"]  # noqa: E731
    answer = ids(ENDINGS[1])[1:] + [2]
    return [TaughtAnswer(ids(f"# {INSTRUCTION}\n{request}"), ids(request), answer) for request in of]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_following(tmp_path_factory.mktemp("llamas") / "following")
    return ITILlamaForCausalLM.from_base(folder, None).eval()


@pytest.fixture(scope="module")
def distilled(model):
    return distilled_directions(distil(model, taught(requests()[:24])))


def divergence(rows, offsets=None, scope="all"):
    """The mean KL(told || bare) over the tokens of the answers, row by row by plain transformers; `offsets` [layers,
    heads * head_dim] are added at the input of each o_proj."""
    plain, total, count = following_llama(), 0.0, 0
    for row in rows:
        with torch.no_grad():
            before = plain(torch.tensor([row.told + row.answer])).logits[0, len(row.told) - 1 : -1].log_softmax(-1)
        first = 0 if scope == "all" else len(row.bare) - 1
        handles = []
        for layer, offset in enumerate(() if offsets is None else offsets):

            def shift(module, arguments, offset=offset, first=first):
                x = arguments[0]
                return (x + (torch.arange(x.shape[1]) >= first)[None, :, None] * offset,)

            handles.append(plain.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(shift))
        logits = plain(torch.tensor([row.bare + row.answer])).logits[0, len(row.bare) - 1 : -1]
        for handle in handles:
            handle.remove()
        total = total + (before.exp() * (before - logits.log_softmax(-1))).sum()
        count += len(row.answer)
    return total / count


@pytest.mark.parametrize("scope", ["all", "generated"])
def test_the_first_step_goes_against_the_gradient_of_the_divergence(scope, model, monkeypatch):
    rows = taught(requests()[:4])
    monkeypatch.setattr(module, "STEPS", 1)
    step = distil(model, rows, scope).flatten(1)
    zero = torch.zeros_like(step, requires_grad=True)
    (slopes,) = torch.autograd.grad(divergence(rows, zero, scope), [zero])
    clear = slopes.abs() > 1e-6
    assert clear.float().mean() > 0.9
    assert torch.equal(step.sign()[clear], -slopes.sign()[clear])  # Adam's first step has the size of its rate


def test_other_requests_are_answered_as_under_the_instruction(model, distilled):
    others = requests()[24:]
    plain = following_llama()
    before, told = divergence(taught(others)).item(), [f"# {INSTRUCTION}\n{request}" for request in others]
    offsets = torch.stack([distilled.offsets()[layer] for layer in range(3)])
    with torch.no_grad():
        after = divergence(taught(others), offsets).item()
    assert after < before / 10
    expected = complete(plain, tiny_tokenizer(), told, max_new_tokens=20)
    with hooks(plain, distilled, 1.0):
        steered = complete(plain, tiny_tokenizer(), others, max_new_tokens=20)
    assert np.mean(np.array(steered) == np.array(expected)) > 0.9


def test_the_weights_stay_as_they_are_and_a_second_time_gives_the_same(model, distilled):
    plain = following_llama().state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    again = distilled_directions(distil(model, taught(requests()[:24])))
    assert torch.equal(again.directions, distilled.directions) and torch.equal(again.sigma, distilled.sigma)


def test_in_the_order_of_a_fit_sigma_is_measured_and_the_shift_is_the_same(model, distilled, tmp_path):
    rows = [
        Example(f"# {INSTRUCTION}\n{request}" if label else request, ENDINGS[label], label, request)
        for request in requests(20)
        for label in (0, 1)
    ]
    policy = Policy.parse("fraction 0")
    activations = capture(model, tiny_tokenizer(), rows, policy)
    fitted = fit(activations, rows, policy, FitSettings(top_k=4, folds=3, permutations=0))
    fitted.out_of_fold_auc[fitted.ranking[-1]] = np.nan  # a head that is the same in all rows of a fold
    whole = to_directions(with_distilled(fitted, activations, distilled), activations, rows, policy, "", "")
    found = ITIDirections.load(whole.save(tmp_path / "x.safetensors"))
    assert found.provenance["method"] == "distilled" and len(found) == 12
    assert found.heads.tolist() == distilled.heads.tolist()  # the largest shift first
    assert found.scores.isfinite().all() and 0.5 in found.scores.tolist()
    for layer, offset in distilled.offsets().items():
        torch.testing.assert_close(found.offsets()[layer], offset, rtol=1e-5, atol=1e-7)
    layer, head = found.heads[0].tolist()
    projections = activations.heads[fitted.fitting, layer, head].double() @ found.directions[0].double()
    assert found.sigma[0].item() == pytest.approx(projections.std(correction=0).item(), rel=1e-5)


def test_what_cannot_be_learned_from_is_refused(model):
    with pytest.raises(ValueError, match="no answer to learn from"):
        distil(model, [])
    (row,) = taught(requests()[:1])
    with pytest.raises(ValueError, match="has 101 tokens; expected at most 96"):
        distil(model, [replace(row, bare=[5] * (101 - len(row.answer)))])
