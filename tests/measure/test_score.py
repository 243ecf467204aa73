"""Log-probabilities of completions are those of a plain Llama with hooks, one text at a time."""

import pytest
import torch
from reference import SCOPE_POSITIONS, hooks, some_directions, tiny_llama, tiny_tokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.measure.score import Given, log_probabilities, score_tokens


ROWS = [
    Given("def f(x):\n", "return x\n", 0.0),
    Given("def f(x):\n", "return x\n", 1.3),
    Given("a", "bc", -0.8),
    Given("print(1 + 2)\nprint(", "3)", 1.3),
    Given("x = ", "y", 2.0),
    Given("def f(x):\n", "pass  # for now, and for some time to come\n", 1.3),
    Given("def f(x):\n", "x", 1.3),
]


def alone(plain, directions, scope: str, row: Given) -> float:
    """The sum over a completion's tokens. Under scope "generated" the prompt is read first, its last token shifted,
    then the completion, token by token, as generation does."""
    tokenizer = tiny_tokenizer()
    prompt = tokenizer(row.prompt)["input_ids"]
    completion = tokenizer(row.completion, add_special_tokens=False)["input_ids"]
    total, cache, fed = 0.0, None, prompt
    with torch.no_grad(), hooks(plain, directions, row.alpha, SCOPE_POSITIONS[scope]):
        for token in completion:
            out = plain(torch.tensor([fed]), past_key_values=cache, use_cache=True)
            total += out.logits[0, -1].double().log_softmax(-1)[token].item()
            cache, fed = out.past_key_values, [token]
    return total


def test_each_completion_scores_as_a_plain_llama_with_hooks_scores_it(tiny, plain, tokenizer):
    expected = [alone(plain, tiny.iti_directions, tiny.iti_scope, row) for row in ROWS]
    assert log_probabilities(tiny, tokenizer, ROWS) == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 2) for value in expected}) == len(ROWS)


def test_a_score_does_not_depend_on_what_shares_its_batch(tiny, tokenizer):
    counted = []
    together = log_probabilities(tiny, tokenizer, ROWS, progress=counted.append)
    by_two = log_probabilities(tiny, tokenizer, ROWS[::-1], batch_size=2, progress=counted.append)[::-1]
    single = [log_probabilities(tiny, tokenizer, [row])[0] for row in ROWS]
    assert together == pytest.approx(single, abs=1e-4) and by_two == pytest.approx(single, abs=1e-4)
    assert counted == [7, 2, 2, 2, 1]


def test_a_prompt_that_completions_share_is_read_once(tiny, tokenizer, monkeypatch):
    passes, forward = [], tiny.model.forward
    monkeypatch.setattr(tiny.model, "forward", lambda **call: passes.append(call["input_ids"]) or forward(**call))
    log_probabilities(tiny, tokenizer, ROWS)
    assert [len(ids) for ids in passes] == [5, 7]
    passes.clear()
    log_probabilities(tiny, tokenizer, [Given("x = ", "y"), Given("x = ", "z")])
    assert [len(ids) for ids in passes] == [1]  # one token each: nothing is read after the prompt


def test_rotary_scaling_sees_no_more_positions_than_a_text_has(tmp_path):
    """Dynamic scaling turns all positions otherwise as soon as one is beyond the limit."""
    base = tiny_llama(max_position_embeddings=64, rope_scaling={"rope_type": "dynamic", "factor": 4.0})
    base.save_pretrained(tmp_path)
    model = ITILlamaForCausalLM.from_base(tmp_path, some_directions(base.config)).eval()
    tokens = [([5] * 60, [6] * 2), ([7] * 20, [8] * 40)]
    together = score_tokens(model, tokens, [0.0, 0.0])
    single = [score_tokens(model, [row], [0.0])[0] for row in tokens]
    for (prompt, completion), beside, alone in zip(tokens, together, single, strict=True):
        with torch.no_grad():
            logs = base(torch.tensor([[*prompt, *completion]])).logits[0].double().log_softmax(-1)
        expected = sum(logs[len(prompt) + i - 1, token].item() for i, token in enumerate(completion))
        assert beside.log_probability == pytest.approx(expected, abs=1e-4)
        assert alone.log_probability == pytest.approx(expected, abs=1e-4)


def test_completions_without_a_token_score_nothing(tiny, tokenizer):
    assert log_probabilities(tiny, tokenizer, [Given("x = ", ""), Given("y", "")]) == [0.0, 0.0]


def test_texts_that_are_too_long_are_counted_and_not_cut(steered, tokenizer):
    rows = [Given("a", "b" * 254), Given("a", "b" * 255), Given("a" * 300, "b")]
    with pytest.raises(ValueError, match="2 of 3 texts are longer than the model's 256 tokens"):
        log_probabilities(steered, tokenizer, rows)
    assert log_probabilities(steered, tokenizer, rows[:1])[0] < 0
