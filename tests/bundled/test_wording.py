"""A task can be told from its words: what a name does not say of the argument, the sentence does."""

import random
import re

import pytest

from iti_llama.toolkit.bundled.corpus import sample_task
from iti_llama.toolkit.bundled.corpus_parts import SOURCES


TELLING = {name for source in SOURCES for name in source.arguments}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (r"\.(values|items)\(\)", "dict|map|key|table"),
        (r"\.split\(\)", "sentence|text|line|phrase|string|message"),
    ],
)
def test_a_dictionary_or_a_text_of_any_name_is_called_one(code, words):
    rng, called = random.Random(3), []
    for _ in range(4000):
        task = sample_task("train", rng)
        argument = re.search(r"\((\w+)", task.prompt)[1]
        if argument not in TELLING and re.search(code, task.solutions["plain"]):
            called.append(bool(re.search(words, task.docstring.replace(argument, ""), re.IGNORECASE)))
    assert len(called) > 20
    assert sum(called) >= 0.97 * len(called), (sum(called), len(called))
