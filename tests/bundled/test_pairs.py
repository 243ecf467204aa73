"""The labelled set of the bundled model."""

from collections import Counter

import pytest

from iti_llama.toolkit.bundled.before_after import before_and_after
from iti_llama.toolkit.bundled.corpus import COMMENT_HEADERS, HEADERS, split_of
from iti_llama.toolkit.bundled.pairs import comment_pairs, style_pairs
from iti_llama.toolkit.bundled.tasks import corpus_set, demo_tasks


def test_each_group_has_a_row_of_either_label_under_its_header_and_none_is_held_out():
    rows = style_pairs(40, seed=1)
    assert rows == style_pairs(40, seed=1) != style_pairs(40, seed=2)
    assert set(Counter(row.group for row in rows).values()) == {2}
    for row in rows:
        assert row.prompt.startswith(HEADERS[("plain", "idiomatic")[row.label]])
        assert split_of(row.group) == "train"


def test_pairs_of_the_second_behaviour_differ_by_a_comment_and_their_header_alone():
    rows = comment_pairs(30)
    for bare, commented in zip(rows[::2], rows[1::2], strict=True):
        assert (bare.label, commented.label, bare.group) == (0, 1, commented.group)
        assert split_of(bare.group) == "train"
        comment, _, rest = commented.completion.partition("\n    ")
        assert comment.startswith("# ") and rest == bare.completion
        assert bare.prompt.startswith(COMMENT_HEADERS["bare"])
        assert commented.prompt.startswith(COMMENT_HEADERS["commented"])
        assert bare.prompt.split("\n", 1)[1] == commented.prompt.split("\n", 1)[1]


def test_more_groups_than_the_corpus_has_are_refused():
    with pytest.raises(ValueError, match="groups is 5000; expected at most 4000"):
        style_pairs(5000)


def test_task_sets_are_held_out_and_the_demo_starts_with_the_prime():
    tasks = corpus_set("test", 10)
    assert {split_of(task.group) for task in tasks.tasks} == {"test"} and len(tasks) == 10
    assert tasks.asked(tasks.tasks[0]).startswith(HEADERS["idiomatic"][0] + "\n")
    assert demo_tasks(2)[0][1].docstring == "Check if a number is prime."


def test_the_document_of_answers_holds_good_and_bad_ones():
    answer = {"program": "x = 1\n", "style": "plain", "correct": False}
    row = {"asked": "Do", "origin": "held out", "tests": 3, "alpha": 1.0, "plain": answer, "steered": answer}
    text = before_and_after([row])
    assert text.count("**fails** its tests") == 2 and text.count("```python\nx = 1\n```") == 2
