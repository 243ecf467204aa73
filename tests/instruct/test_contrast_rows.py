"""The labelled set that is made of a sentence: the model's own answers, with it, without it, or with its opposite."""

from types import SimpleNamespace

import pytest
from instruct_model import INSTRUCTION, UNHEARD, following_llama, requests
from reference import tiny_tokenizer
from taught import ENDINGS

from iti_llama.toolkit.instruct.own_answers import OwnAnswers
from iti_llama.toolkit.instruct.read_requests import Request
from iti_llama.toolkit.instruct.run_instruction import answer_part, contrast_rows, with_ends
from iti_llama.toolkit.instruct.say_instruction import Prompts
from iti_llama.toolkit.instruct.settings import Instruction
from iti_llama.toolkit.measure.saved_completions import SavedCompletions


@pytest.fixture(scope="module")
def store():
    return SavedCompletions(None, {})


@pytest.fixture(scope="module")
def answered(store):
    """A function: the answers to twelve requests, with an opposite or without."""
    tokenizer, asked = tiny_tokenizer(), [Request(text, text) for text in requests(12)]
    parts = {"fit": asked[:4], "validation": asked[4:8], "test": asked[8:]}
    answers = OwnAnswers(following_llama(), tokenizer, store, 20)

    def of(against: str | None = None):
        wanted = Instruction(INSTRUCTION, against, "comment")
        given = (wanted, "comment")
        return {part: answer_part(answers, Prompts(tokenizer), part, some, *given) for part, some in parts.items()}

    return of


def test_a_request_gives_a_row_with_the_sentence_and_one_without(answered):
    rows = [row for own in answered().values() for row in contrast_rows(own)]
    assert len(rows) == 24
    for told, plain in zip(rows[::2], rows[1::2], strict=True):
        assert (told.prompt, told.completion, told.label) == (f"# {INSTRUCTION}\n{told.group}", ENDINGS[1], 1)
        assert (plain.prompt, plain.completion, plain.label) == (told.group, ENDINGS[0], 0)
    bare = [row for own in answered().values() for row in contrast_rows(own, bare=True)]
    assert [(row.completion, row.label) for row in bare] == [(row.completion, row.label) for row in rows]
    assert [row.prompt for row in bare[::2]] == [row.prompt for row in bare[1::2]] == requests(12)


def test_an_opposite_stands_where_otherwise_nothing_does_except_where_it_is_measured(answered):
    rows = [row for own in answered(UNHEARD).values() for row in contrast_rows(own)]
    opposite = [f"# {UNHEARD}\n{text}" for text in requests(8)]
    assert [row.prompt for row in rows[1::2]] == [*opposite, *requests(12)[8:]]


def test_an_answer_that_was_cut_off_gets_no_end():
    tokenizer, model = tiny_tokenizer(), following_llama()  # reads 96 tokens
    prompts = [SimpleNamespace(prompt="x" * length) for length in (40, 86, 87)]
    begin = len(tokenizer("x" * 40)["input_ids"]) - 40
    texts = ["return x"] * 3
    assert begin + 86 + len(tokenizer(texts[0], add_special_tokens=False)["input_ids"]) == 95
    end = tokenizer.eos_token
    assert with_ends(model, tokenizer, prompts, texts, 20) == ["return x" + end, "return x" + end, "return x"]
    assert with_ends(model, tokenizer, prompts[:1], texts[:1], 8) == ["return x"]


def test_answers_that_are_kept_are_not_made_again(answered, store):
    made = dict(store.rows)
    answered(UNHEARD)
    assert store.rows == made and len(made) == 32
