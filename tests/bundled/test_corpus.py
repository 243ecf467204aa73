"""The corpus: what it holds, how it is split, and what its styles are."""

import ast
import random

import pytest

from iti_llama.toolkit.bundled.corpus import (
    HEADERS,
    IDIOMATIC_SHARE,
    combinations,
    compose,
    sample_classic,
    sample_document,
    sample_tasks,
    split_of,
)
from iti_llama.toolkit.bundled.corpus_parts import SOURCES
from iti_llama.toolkit.bundled.phrases import RESERVED
from iti_llama.toolkit.data.style import style_of


def test_composition_gives_thousands_of_tasks_and_classics_are_named():
    groups = {combination.group for source in SOURCES for combination in combinations(source)}
    assert len(groups) > 5000
    rng = random.Random(0)
    names = {sample_classic(rng).group for _ in range(1000)}
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
    rng = random.Random(2)
    for task in (*sample_tasks("train", 200, 2), *(sample_classic(rng) for _ in range(300))):
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


def test_what_is_not_kept_is_sometimes_named_instead():
    (found,) = (each for source in SOURCES[:1] for each in combinations(source) if each.group == "ints:list:id:even")
    rng = random.Random(4)
    tasks = [compose(found, rng) for _ in range(400)]
    said = [task for task in tasks if "odd" in task.docstring.split()]
    assert 10 < len(said) < 200
    assert all("% 2 == 0" in task.solutions["idiomatic"] for task in said)


def test_an_argument_s_name_is_often_one_that_says_nothing():
    tasks = sample_tasks("train", 400, 6)
    known = {name for source in SOURCES for name in source.arguments}
    unknown = [task for task in tasks if task.signature.split(",")[0].split(":")[0] not in known]
    assert 0.15 < len(unknown) / len(tasks) < 0.4


def test_no_name_is_reserved_or_said_twice_in_a_signature():
    for task in sample_tasks("train", 600, 7):
        arguments = [argument.split(":")[0] for argument in task.signature.split(", ")]
        assert len({task.name, *arguments}) == len(arguments) + 1
        assert not {*arguments} & RESERVED
