"""At a vocabulary of 128k no tensor is larger than the bound, and batches follow memory."""

import pytest
import torch
from reference import some_directions, tiny_llama, tiny_tokenizer
from taught import two_ways
from torch.utils._python_dispatch import TorchDispatchMode

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.fit import causal
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.foundation import bound_memory
from iti_llama.toolkit.foundation.bound_memory import batches_of, token_logs, tokens_a_batch
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.measure.divergence import Text, measure_divergence
from iti_llama.toolkit.measure.score import Given, log_probabilities
from iti_llama.toolkit.truthfulqa.multiple_choice import Question, SharedPrefix, answer_scores


VOCABULARY = 131_072
BOUND = 1 << 24
TEXT = "def f(x):\n    return x + 1\n"


class Largest(TorchDispatchMode):
    """Keeps the bytes of the largest tensor that any operation gives back."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.weights:
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return result


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> ITILlamaForCausalLM:
    folder = tmp_path_factory.mktemp("wide")
    shape = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16, "head_dim": 8}
    plain = tiny_llama(num_hidden_layers=2, tie_word_embeddings=True, **shape)
    plain.save_pretrained(folder)
    return ITILlamaForCausalLM.from_base(folder, some_directions(plain.config, k=2, layers=[0]), alpha=1.0).eval()


def score(model, tokenizer) -> list[float]:
    return log_probabilities(model, tokenizer, [Given("a", TEXT, 1.0), Given("b", TEXT[:9])] * 2)


def diverge(model, tokenizer) -> list[float]:
    texts = [Text("a", TEXT, "g"), Text("b", TEXT[:9], "h")]
    return [value for d in measure_divergence(model, tokenizer, texts, [1.0, -1.0]) for value in (d.kl.mean, d.kl_95)]


def choose(model, tokenizer) -> list[float]:
    question = Question("Is it?", (TEXT, "Yes."), ("No.",))
    return answer_scores(SharedPrefix(model), tokenizer, question, [0.0, 1.0]).flatten().tolist()


def by_cause(model, tokenizer) -> list[float]:
    config, rows = model.config, causal.bare_rows(two_ways(4), tokenizer)
    offsets = torch.full((config.num_hidden_layers, config.num_attention_heads, config.head_dim), 0.1)
    slopes = causal.derivatives(model, rows, offsets, "all", 0)
    gain, divergence = causal.measure_heads(model, rows, offsets, [1, 6], [0.5, 1.0], "all", 0)
    return [*slopes.ravel().tolist(), *gain.tolist(), *divergence.tolist()]


def record(model, tokenizer) -> list[float]:
    return capture(model, tokenizer, two_ways(8), Policy("last")).heads.flatten().tolist()


def go_on(model, tokenizer) -> list[str]:
    return complete(model, tokenizer, [TEXT, TEXT[:9]] * 2, [1.0, 0.0] * 2, max_new_tokens=3)


WORK = pytest.mark.parametrize("work", [score, diverge, choose, by_cause, record, go_on])


@WORK
def test_no_tensor_is_larger_than_a_piece(wide, work, monkeypatch):
    monkeypatch.setattr(bound_memory, "PIECE_BYTES", BOUND)
    with Largest() as largest:
        largest.weights = {p.untyped_storage().data_ptr() for p in wide.parameters()}
        work(wide, tiny_tokenizer())
    assert 0 < largest.bytes <= BOUND  # the logits of one text alone are 14 MiB, those of a call some 60 to 400


def test_log_probabilities_by_pieces_are_those_at_once(wide, monkeypatch):
    hidden, targets = torch.randn(50, 16), torch.randint(0, VOCABULARY, (50,))
    with torch.no_grad():
        logs = wide.lm_head(hidden).double().log_softmax(-1)
        targets[:9] = logs[:9].argmax(-1)
        monkeypatch.setattr(bound_memory, "PIECE_BYTES", 4 * VOCABULARY * 7)
        values, likeliest = token_logs(wide, hidden, targets)
    assert torch.allclose(values.double(), logs.gather(1, targets[:, None])[:, 0], atol=1e-4)
    assert likeliest.tolist() == (logs.argmax(-1) == targets).tolist() and likeliest[:9].all()


def test_batches_hold_each_row_once_and_no_more_tokens_than_they_may():
    lengths = [3, 50, 7, 8, 8, 1, 120, 30]
    batches = batches_of(lengths, batch_size=3, most_tokens=60)
    assert sorted(i for batch in batches for i in batch) == list(range(8))
    assert batches[0] == [6] and batches[1] == [1]  # a row that is longer than the bound goes alone
    for batch in batches[1:]:
        assert len(batch) <= 3 and len(batch) * max(lengths[i] for i in batch) <= 60
    assert max(map(len, batches)) == 3


@WORK
def test_with_little_memory_batches_are_small_and_results_the_same(steered, work, monkeypatch):
    want, shapes = work(steered, tiny_tokenizer()), []
    steered.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    monkeypatch.setattr(bound_memory, "BATCH_BYTES", 200_000)
    found = work(steered, tiny_tokenizer())
    assert len(shapes) > 1 and all(rows * length <= tokens_a_batch(steered) for rows, length in shapes if rows > 1)
    assert found == [pytest.approx(value, abs=1e-3) if isinstance(value, float) else value for value in want]
