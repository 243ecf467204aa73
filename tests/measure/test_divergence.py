"""Measuring: against independent computations, resumable, and honest about nothing."""

import numpy as np
import pytest
import torch
from reference import hooks, tiny_tokenizer
from taught import TEMPLATE
from tokenizers import processors

from iti_llama.toolkit.measure.divergence import Text, measure_divergence


def logs(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def test_kl_and_perplexity_are_those_of_two_plain_passes(tiny, plain, tokenizer):
    texts = [
        Text("def f(x):\n", "return x\n", "a"),
        Text("def gg(y):\n", "y += 1\nreturn y\n", "b"),
        Text("", "z = 1\n", "c"),
    ]
    found = measure_divergence(tiny, tokenizer, texts, [0.7, -0.7], batch_size=6)
    for damage, alpha in zip(found, (0.7, -0.7), strict=True):
        kls, before, after = [], [], []
        for text in texts:
            prompt = tokenizer(text.prompt)["input_ids"]
            ids = prompt + tokenizer(text.completion, add_special_tokens=False)["input_ids"]
            span = slice(len(prompt) - 1, len(ids) - 1)
            p = logs(plain, ids)[span]
            first = 0 if tiny.iti_scope == "all" else len(prompt) - 1
            with hooks(plain, tiny.iti_directions, alpha, slice(first, None)):
                q = logs(plain, ids)[span]
            kls.append((p.exp() * (p - q)).sum(-1).numpy())
            target = torch.tensor(ids[len(prompt) :])[:, None]
            before.append(-p.gather(-1, target)[:, 0].numpy())
            after.append(-q.gather(-1, target)[:, 0].numpy())
        assert damage.kl.mean == pytest.approx(np.mean([kl.mean() for kl in kls]), rel=1e-3)
        assert damage.kl_95 == pytest.approx(np.quantile(np.concatenate(kls), 0.95), rel=1e-3)
        assert damage.perplexity_plain == pytest.approx(np.exp(np.concatenate(before).mean()), rel=1e-4)
        assert damage.perplexity_steered == pytest.approx(np.exp(np.concatenate(after).mean()), rel=1e-4)
        assert damage.tokens == sum(map(len, before))


WITHOUT_BOS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"


def with_template(tokenizer, template=None):
    tokenizer.chat_template = template
    return tokenizer


def adds_nothing(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    return tokenizer


@pytest.mark.parametrize(
    "change,text,tokens",
    [
        (with_template, "ab", ["<bos>", "a", "b"]),
        (adds_nothing, "ab", ["a", "b"]),
        (lambda t: with_template(t, WITHOUT_BOS), "ab", ["a", "b"]),
        (lambda t: with_template(t, TEMPLATE), "<bos>[user]ab", ["<bos>", *"[user]ab"]),
        (lambda t: with_template(t, TEMPLATE), "ab", ["<bos>", "a", "b"]),
        (lambda t: adds_nothing(with_template(t, TEMPLATE)), "<bos>ab", ["<bos>", "a", "b"]),
    ],
)
def test_a_text_after_no_prompt_is_scored_from_its_second_token_with_one_bos(tiny, plain, change, text, tokens):
    ids = tiny_tokenizer().convert_tokens_to_ids(tokens)
    (found,) = measure_divergence(tiny, change(tiny_tokenizer()), [Text("", text, "a")], [0.7])
    p = logs(plain, ids)[:-1]
    with hooks(plain, tiny.iti_directions, 0.7):
        q = logs(plain, ids)[:-1]
    assert found.tokens == len(ids) - 1
    assert found.kl.mean == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)
    assert found.perplexity_plain == pytest.approx(
        float(np.exp(-p.gather(-1, torch.tensor(ids[1:])[:, None]).mean())), rel=1e-4
    )


def test_a_text_without_a_token_to_score_says_nothing(tiny):
    tokenizer = adds_nothing(tiny_tokenizer())
    (found,) = measure_divergence(tiny, tokenizer, [Text("", "ab", "a")], [0.7])
    assert measure_divergence(tiny, tokenizer, [Text("", "c", "b"), Text("", "ab", "a")], [0.7]) == [found]
    with pytest.raises(ValueError, match="none of 1 texts has a token to score"):
        measure_divergence(tiny, tokenizer, [Text("", "c", "b")], [0.7])
