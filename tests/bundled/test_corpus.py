"""The corpus: what it holds, how it is split, and what its styles are."""

import ast
import random

import pytest

from iti_llama.toolkit.bundled.corpus import (
    HEADERS,
    IDIOMATIC_SHARE,
    classics,
    combinations,
    sample_document,
    sample_tasks,
    split_of,
)
from iti_llama.toolkit.bundled.corpus_parts import SOURCES
from iti_llama.toolkit.data.style import style_of


def test_composition_gives_thousands_of_tasks_and_classics_are_named():
    groups = {combination.group for source in SOURCES for combination in combinations(source)}
    assert len(groups) > 5000
    names = {task.group for task in classics()}
    for name in ("prime", "factorial", "palindrome", "fibonacci", "anagram", "gcd", "flatten"):
        assert f"classic:{name}" in names


def test_no_group_is_in_two_splits_and_each_split_is_large_enough_to_measure_on():
    groups = {split: {task.group for task in sample_tasks(split, 250, 0)} for split in ("train", "validation", "test")}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]
    assert min(map(len, groups.values())) > 50


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_both_solutions_of_a_task_run_and_agree_with_its_tests(split):
    for task in sample_tasks(split, 60, 1):
        for style, body in task.solutions.items():
            namespace = {}
            exec(task.program(body), namespace)
            for arguments, expected in task.tests:
                copies = [list(a) if isinstance(a, list) else a for a in arguments]
                assert namespace[task.name](*copies) == expected, (task.group, style)


def test_solutions_are_of_the_style_they_claim():
    for task in (*sample_tasks("train", 200, 2), *classics()):
        for style, body in task.solutions.items():
            assert style_of(task.program(body)) == style, task.program(body)


def test_style_of_names_what_is_neither():
    assert style_of("def f(:") == "unparsable"
    assert style_of("def f(x):\n    pass\n") == "neither"


def test_training_documents_hold_the_documented_share_of_styles_and_no_held_out_group():
    rng = random.Random(5)
    documents = [sample_document(rng) for _ in range(2000)]
    headers = [header for pair in HEADERS.values() for header in pair]
    bare = [d for d in documents if not d.prompt.startswith(tuple(headers))]
    share = sum(style_of(d.prompt + d.completion) == "idiomatic" for d in bare) / len(bare)
    assert abs(share - IDIOMATIC_SHARE) < 0.05
    held_out = {task.prompt for split in ("test", "validation") for task in sample_tasks(split, 250, 0)}
    assert not any(document.prompt.endswith(tuple(held_out)) for document in documents)


def test_headers_of_the_two_styles_hold_the_same_words():
    for idiomatic, plain in zip(HEADERS["idiomatic"], HEADERS["plain"], strict=True):
        words = [sorted(text.lower().replace(".", "").replace(",", "").split()) for text in (idiomatic, plain)]
        assert words[0] == words[1]


def test_every_prompt_ends_inside_the_function_and_every_program_parses():
    for task in sample_tasks("test", 100, 0):
        assert task.prompt.endswith('"""\n    ')
        for body in task.solutions.values():
            ast.parse(task.program(body))


def test_splits_depend_on_the_group_alone():
    assert split_of("ints:sum:id:even") == split_of("ints:sum:id:even")
    assert split_of("classic:prime") == "train"
