"""The eight sentences: what their rules see, and the table of their runs."""

import json
import re

import pytest

from iti_llama.examples.sentences import checkers
from iti_llama.examples.sentences.measure_sentences import HEADS, SENTENCES, table


SEEN = {
    "brief": ("Use a towel.", "word " * 26),
    "capitals": ("USE A TOWEL, OR 2.", "Use a TOWEL."),
    "steps": ("Do this:\n1. Wash it.\n2. Dry it.", "1. Wash it, then dry it."),
    "spanish": ("El gato duerme en la casa de los vecinos.", "The cat sleeps in the house of the people at El Paso."),
    "warm": ("That is a wonderful plan, and you can do it.", "Wash the towel and dry it."),
    "pirate": ("Ahoy, matey, wash it.", "Wash the towel and dry it."),
    "example": ("Use cloth, for example a towel.", "Use cloth."),
    "code": ("def wash(towel):\n    return towel", "Wash it, for I define the import of it."),
}


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.name)
def test_each_sentence_has_a_rule_that_sees_what_it_asks(sentence):
    rule = getattr(checkers, sentence.name)
    does, does_not = SEEN[sentence.name]
    assert rule("", does) and not rule("", does_not)


def test_a_sentence_that_is_not_followed_is_a_row_of_the_table(tmp_path):
    said = (
        f"the base does not follow '{SENTENCES[1].text}': a classifier takes 47.0% of 160; expected less. What helps"
    )
    (tmp_path / "capitals.json").write_text(json.dumps({"seconds": 120.0, "done": True, "stopped": said}))
    heads, _, row = table(tmp_path).splitlines()
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", heads)) == len(HEADS) + 1
    assert "not followed: a classifier takes 47.0% of 160 |" in row and row.endswith("| 2 |")
