"""The wordings of phrases.json: each says what its place needs, and no made-up name breaks a program."""

import keyword
import random
from string import Formatter

import pytest

from iti_llama.toolkit.bundled.corpus_parts import CHARS, INTS, WORDS
from iti_llama.toolkit.bundled.phrases import PHRASES, RESERVED, made_up_name


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("aggregate", PHRASES["aggregates"])
def test_a_form_names_the_items_and_nothing_that_is_not_given(aggregate):
    known = {
        "any": {"0", "1", "2", "3"},
        "all": {"0", "1", "2", "3"},
        "none": {"0", "1", "2", "3"},
        "dict": {"0", "1"},
    }
    for form in PHRASES["aggregates"][aggregate]:
        assert fields(form) and fields(form) <= known.get(aggregate, {""}), form


def test_a_filter_s_wordings_name_its_number_where_it_has_one():
    for domain, filters in (("ints", INTS), ("words", WORDS), ("chars", CHARS)):
        assert {keep.key for keep in filters} == PHRASES["filters"][domain].keys()
        for keep in filters:
            for text in (*keep.after, *keep.are, *keep.rest_after):
                assert fields(text) <= {"k"}, text
                assert bool(keep.slot) == ("k" in fields(text)), (domain, keep.key, text)


def test_a_made_up_name_is_an_identifier_that_is_neither_reserved_nor_taken():
    rng = random.Random(0)
    names = [made_up_name(rng, ("t",)) for _ in range(2000)]
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
    assert not {"t", *RESERVED} & set(names)
    assert len(set(names)) > 1000
