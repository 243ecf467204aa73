"""Measuring: against independent computations, resumable, and honest about nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import hooks

from iti_llama.toolkit.truthfulqa.multiple_choice import (
    Question,
    SharedPrefix,
    answer_scores,
    multiple_choice,
    read_questions,
)


def logs(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


CSV = """Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source
A,B,What is up?,The sky,The sky.; Not down,The ground; The sea.,x
A,B,"Is it, so?",Yes.,Yes; Of course,No,x
"""


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    return read_questions(tmp_path / "t.csv")


def test_questions_are_read_as_truthfulqa_scores_them(questions):
    assert questions[0] == Question("What is up?", ("The sky.", "Not down."), ("The ground.", "The sea."), "B")
    assert questions[1].true == ("Yes.", "Of course.")


def test_a_csv_with_a_byte_order_mark_or_line_ends_of_windows_is_the_same(questions, tmp_path):
    text = CSV.replace("Type,Category,", "").replace("A,B,", "")  # so that a column that is read comes first
    (tmp_path / "u.csv").write_text(text, "utf-8-sig", newline="\r\n")
    assert read_questions(tmp_path / "u.csv") == [replace(question, category="") for question in questions]
    (tmp_path / "u.csv").write_text(CSV, "utf-16")
    with pytest.raises(ValueError, match=r"u\.csv: not UTF-8 at byte 0; expected a CSV file in UTF-8"):
        read_questions(tmp_path / "u.csv")


def test_scores_are_sums_of_plain_log_probabilities_with_the_shift_from_the_answer_on(
    tiny, plain, tokenizer, questions
):
    prefix = SharedPrefix(tiny)
    for question in (*questions, questions[0]):
        found = answer_scores(prefix, tokenizer, question, [0.0, 0.7], batch_size=3)
        for column, text in enumerate((*question.true, *question.false)):
            prompt = tokenizer(question.prompt)["input_ids"]
            answer_ids = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
            for row, alpha in enumerate((0.0, 0.7)):
                with hooks(plain, tiny.iti_directions, alpha, slice(len(prompt), None)):
                    own = logs(plain, prompt + answer_ids)
                score = sum(own[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer_ids))
                assert found[row, column].item() == pytest.approx(score, rel=1e-4)


def test_mc1_and_mc2_are_truthfulqas(tiny, tokenizer, questions):
    zero, steered = multiple_choice(tiny, tokenizer, questions, [0.7])
    expected = []
    for question in questions:
        scores = answer_scores(SharedPrefix(tiny), tokenizer, question, [0.0])[0].double().exp()
        k = len(question.true)
        expected.append((float(scores[0] > scores[k:].max()), float(scores[:k].sum() / scores.sum())))
    assert zero.mc1.mean == pytest.approx(np.mean([e[0] for e in expected]))
    assert zero.mc2.mean == pytest.approx(np.mean([e[1] for e in expected]))
    assert zero.mc2_change.mean == 0 and steered.mc2_change.mean != 0


def test_a_csv_of_another_kind_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("Question,Answer\na,b\n")
    with pytest.raises(ValueError, match="no column 'Best Answer'"):
        read_questions(tmp_path / "t.csv")


def test_what_a_prompt_shares_with_the_one_before_is_not_read_again(tiny, plain, tokenizer, questions):
    prefix, primer = SharedPrefix(tiny), "Q: Is it so?\nA: Yes, it is.\n\n"
    for question in questions:
        shared = answer_scores(prefix, tokenizer, question, [0.7], primer)
        alone = answer_scores(SharedPrefix(tiny), tokenizer, question, [0.7], primer)
        torch.testing.assert_close(shared, alone, rtol=1e-5, atol=1e-5)
    lengths = [len(tokenizer(primer + question.prompt)["input_ids"]) for question in questions]
    assert lengths[0] <= prefix.read < sum(lengths) - len(tokenizer(primer)["input_ids"]) + 8
