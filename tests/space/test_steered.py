"""What many visitors ask of one model: each gets what plain Llama with hooks gives at his own strength and heads."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import SCOPE_POSITIONS, hooks, some_directions, tiny_llama, tiny_tokenizer
from steered import steered_copy

from iti_llama.iti_directions import ITIGate
from iti_llama.toolkit.space.steered import Asked, Steered


PROMPT = "def f(x):\n    return"
NEW = 10


@pytest.fixture(scope="module")
def plain():
    return tiny_llama(seed=4, head_dim=16)


@pytest.fixture(scope="module", params=["head", "residual"])
def directions(request, plain):
    found = some_directions(plain.config, k=6, seed=2, site=request.param)
    return replace(found, weights=torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0, 1.0])) if request.param == "head" else found


@pytest.fixture
def steered(plain, directions):
    return Steered(steered_copy(plain, directions, iti_alpha=2.0), tiny_tokenizer())


def kept(directions, heads):
    names = ("heads", "directions", "sigma", "scores", "weights")
    rows = {name: getattr(directions, name) for name in names}
    return replace(directions, **{name: x[list(heads)] for name, x in rows.items() if x is not None})


def reference(plain, directions, asked, alpha):
    """Tokens of plain Llama with hooks for the chosen heads, up to the end."""
    ids = torch.tensor([tiny_tokenizer()(asked.prompt)["input_ids"]])
    with hooks(plain, kept(directions, asked.heads), alpha, SCOPE_POSITIONS[asked.scope]):
        out = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=asked.max_new_tokens, do_sample=False
        )
    found = out[0, ids.shape[1] :].tolist()
    special = set(tiny_tokenizer().all_special_ids)
    return found[: next((i for i, token in enumerate(found) if token in special), len(found))]


@pytest.mark.parametrize("scope", ["all", "generated"])
@pytest.mark.parametrize("heads", [(0, 1, 2, 3, 4, 5), (0, 3), (1, 5)])
def test_three_strengths_of_some_heads_are_what_hooks_give(steered, plain, directions, scope, heads):
    asked = Asked(PROMPT, 2.5, scope, heads, NEW)
    *_, answers = steered.answers(asked)
    assert [answer.alpha for answer in answers] == [-2.5, 0.0, 2.5]
    for answer in answers:
        assert list(answer.ids) == reference(plain, directions, asked, answer.alpha)
        assert answer.text == tiny_tokenizer().decode(answer.ids) == "".join(answer.tokens)
    assert len({answer.ids for answer in answers}) > 1


def test_no_head_is_plain_and_answers_grow(steered):
    *_, answers = steered.answers(Asked(PROMPT, 2.5, "all", (), NEW))
    assert answers[0].ids == answers[1].ids == answers[2].ids
    grown = list(steered.answers(Asked(PROMPT, 2.5, "all", (0,), NEW)))
    lengths = [len(answers[1].ids) for answers in grown]
    assert lengths[0] == 0 and lengths == sorted(lengths) and len(set(lengths)) > 3


def test_visitors_at_once_each_have_their_own_strength(steered, plain, directions):
    asked = [
        Asked(PROMPT[:n], alpha, scope, heads, NEW)
        for n, alpha, scope, heads in [
            (18, 1.0, "all", (0, 1, 2, 3, 4, 5)), (12, 2.0, "generated", (0, 3)), (18, 3.0, "all", (4,)),
            (9, 0.5, "generated", (0, 1, 2, 3, 4, 5)), (15, 4.0, "all", (1, 2)), (18, 2.5, "generated", (5,)),
        ]
    ]  # fmt: skip
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda one: list(steered.answers(one))[-1], asked))
    for one, answers in zip(asked, found, strict=True):
        for answer in answers:
            assert list(answer.ids) == reference(plain, directions, one, answer.alpha)
    assert steered.model.iti_scope == "all" and steered.model.iti_alpha == 2.0


def test_a_gate_that_lets_nothing_through_does_not_make_a_steered_answer_plain(steered, plain, directions):
    width = (1, directions.head_dim)
    shut = ITIGate(torch.tensor([[0, 0]]), torch.zeros(width), torch.tensor([-9.0]), torch.tensor([0.0, 0.0]))
    gated = Steered(steered_copy(plain, replace(directions, gate=shut), iti_alpha=2.0), tiny_tokenizer())
    assert gated.gated and not steered.gated
    for heads in ((0, 1, 2, 3, 4, 5), (0, 3)):
        asked = Asked(PROMPT, 2.5, "all", heads, NEW)
        assert list(gated.answers(asked))[-1] == list(steered.answers(asked))[-1]


def test_one_who_neither_reads_on_nor_leaves_holds_up_nobody(steered):
    abandoned = steered.answers(Asked(PROMPT, 1.0, "all", (0,), 20))
    next(abandoned)
    *_, answers = steered.answers(Asked(PROMPT, 1.0, "all", (0,), 2))
    assert len(answers[1].ids) <= 2
    abandoned.close()


def test_an_answer_ends_after_its_seconds(steered):
    *_, answers = steered.answers(Asked(PROMPT, 2.5, "all", (0,), NEW, seconds=1e-6))
    assert NEW > 1 and all(len(answer.ids) <= 1 for answer in answers)


def test_one_who_leaves_stops_the_computing(steered):
    visit = steered.answers(Asked(PROMPT, 1.0, "all", (0,), 200))
    next(visit), next(visit)
    visit.close()
    *_, answers = steered.answers(Asked(PROMPT, 1.0, "all", (0,), 2))  # the next one is served
    assert len(answers[1].ids) <= 2


def test_projections_are_those_that_hooks_read(steered, plain, directions):
    asked = Asked(PROMPT, 2.0, "generated", (0, 1, 2, 3, 4, 5), NEW)
    *_, answers = steered.answers(asked)
    found = steered.projections(asked, answers)
    prompt, raw = tiny_tokenizer()(PROMPT)["input_ids"], []
    for answer in answers:
        positions = torch.zeros(1, len(prompt) + len(answer.ids))
        positions[:, len(prompt) - 1 :] = 1
        raw.append(_read(plain, directions, prompt, answer, positions))
    centre = raw[1].mean(-1, keepdims=True)
    for ours, theirs in zip(found, raw, strict=True):
        np.testing.assert_allclose(ours.numpy(), (theirs - centre) / directions.sigma.numpy()[:, None], atol=2e-4)


def _read(plain, directions, prompt, answer, positions):
    """[heads, tokens]: what plain Llama with hooks has where directions add, with the hooks' own shift taken away."""
    seen, handles = {}, []
    with hooks(plain, directions, answer.alpha, positions):
        for layer, block in enumerate(plain.model.layers):

            def see(module, arguments, output, layer=layer):
                seen[layer] = (arguments[0] if directions.site == "head" else output)[0].clone()

            handles.append(block.self_attn.o_proj.register_forward_hook(see))
        with torch.no_grad():
            plain(torch.tensor([[*prompt, *answer.ids]]))
    for handle in handles:
        handle.remove()
    weights = torch.ones(len(directions.sigma)) if directions.weights is None else directions.weights
    for (layer, head), theta, sigma, weight in zip(
        directions.heads.tolist(), directions.directions, directions.sigma, weights, strict=True
    ):
        at = slice(head * directions.head_dim, (head + 1) * directions.head_dim)
        seen[layer][:, at] -= positions[0, :, None] * answer.alpha * sigma * weight * theta
    rows = []
    for (layer, head), theta in zip(directions.heads.tolist(), directions.directions.numpy(), strict=True):
        x = seen[layer].unflatten(-1, (-1, directions.head_dim))[-len(answer.ids) :, head]
        rows.append(x.numpy().astype(np.float64) @ theta)
    return np.array(rows)


@pytest.mark.parametrize("scope", ["all", "generated"])
def test_the_curve_is_the_answers_own_log_probability(steered, plain, directions, scope):
    asked = Asked(PROMPT, 2.0, scope, (0, 3), NEW)
    *_, answers = steered.answers(asked)
    alphas = [-2.0, 0.0, 1.5]
    curve = steered.curve(asked, answers, alphas)
    prompt = tiny_tokenizer()(PROMPT)["input_ids"]
    for answer, line in zip(answers, curve, strict=True):
        for alpha, value in zip(alphas, line, strict=True):
            positions = torch.ones(1, len(prompt) + len(answer.ids))
            positions[:, : len(prompt) - 1 if scope == "generated" else 0] = 0
            with torch.no_grad(), hooks(plain, kept(directions, asked.heads), alpha, positions):
                logits = plain(torch.tensor([[*prompt, *answer.ids]])).logits[0].double().log_softmax(-1)
            own = [logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer.ids)]
            assert value == pytest.approx(np.mean(own), abs=1e-4)


@pytest.mark.parametrize(
    "prompt,said",
    [("", "empty"), (" \n ", "empty"), ("x" * 400, "401 tokens; at most 240"), ("x" * 10**6, "1,000,000")],
)
def test_what_is_not_answered_is_said_in_words(steered, prompt, said):
    with pytest.raises(ValueError, match=said):
        next(steered.answers(Asked(prompt, 1.0, "all", (0,))))


def test_a_model_without_steering_is_refused(plain, directions):
    model = steered_copy(plain, directions, iti_alpha=2.0)
    model.set_iti_directions(None)
    with pytest.raises(ValueError, match="not steered"):
        Steered(model, tiny_tokenizer())
