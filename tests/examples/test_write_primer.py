"""The text before each question of TruthfulQA, out of lm-eval's task."""

import pytest


pytest.importorskip("lm_eval")


def test_the_primer_has_six_questions_with_answers_and_ends_before_the_next():
    from iti_llama.examples.write_primer import primer

    *pairs, end = primer().split("\n\n")
    assert len(pairs) == 6 and end == ""
    assert all(pair.startswith("Q: ") and pair.count("\nA: ") == 1 for pair in pairs)
