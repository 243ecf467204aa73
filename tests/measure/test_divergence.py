"""Measuring: against independent computations, resumable, and honest about nothing."""

import numpy as np
import pytest
import torch
from reference import hooks

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
