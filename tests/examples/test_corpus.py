"""The corpus: how it is split, and what a model that is trained on it reads."""

import random

from iti_llama.examples.bundled_model.corpus import (
    HEADERS,
    IDIOMATIC_SHARE,
    sample_document,
    sample_tasks,
)
from iti_llama.toolkit.data.style import style_of


def test_no_group_is_in_two_splits_and_each_split_is_large_enough_to_measure_on():
    groups = {split: {task.group for task in sample_tasks(split, 250, 0)} for split in ("train", "validation", "test")}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]
    assert min(map(len, groups.values())) > 50


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
