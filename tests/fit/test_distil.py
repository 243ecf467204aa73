"""An instruction distilled into a shift of the heads, against gradients and passes of plain transformers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from instruct_model import INSTRUCTION, following_llama, requests, save_following
from reference import hooks, tiny_tokenizer
from taught import ENDINGS

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.fit import distil as module
from iti_llama.toolkit.fit.distil import TaughtAnswer, distil
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
    return distil(model, taught(requests()[:24]))


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
    step = torch.stack([offset for _, offset in sorted(distil(model, rows, scope).offsets().items())])
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
    again = distil(model, taught(requests()[:24]))
    assert torch.equal(again.directions, distilled.directions) and torch.equal(again.sigma, distilled.sigma)


def test_sigma_is_the_spread_of_the_heads_along_each_direction(model, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "STEPS", 2)
    rows = taught(requests()[:4])
    found = ITIDirections.load(distil(model, rows).save(tmp_path / "x.safetensors"))
    assert len(found) == 12
    lengths = (found.sigma * found.weights).tolist()
    assert lengths == sorted(lengths, reverse=True)
    plain, seen = following_llama(), {}
    for layer in range(3):
        plain.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(
            lambda module, arguments, layer=layer: seen.setdefault(layer, []).append(arguments[0][0])
        )
    with torch.no_grad():
        for row in rows:
            plain(torch.tensor([row.bare + row.answer]))
    for (layer, head), direction, sigma in zip(found.heads.tolist(), found.directions, found.sigma, strict=True):
        tokens = torch.cat(seen[layer]).unflatten(-1, (-1, found.head_dim))[:, head]
        torch.testing.assert_close(sigma, (tokens @ direction).std(correction=0), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_learned_from_is_refused(model):
    with pytest.raises(ValueError, match="no answer to learn from"):
        distil(model, [])
    (row,) = taught(requests()[:1])
    with pytest.raises(ValueError, match="has 101 tokens; expected at most 96"):
        distil(model, [replace(row, bare=[5] * (101 - len(row.answer)))])
