"""Labelled sets: what is read, and what is refused."""

import json

import pytest

from iti_llama.toolkit.bundled.pairs import style_pairs
from iti_llama.toolkit.data.labelled_set import checksum, read_examples, write_examples
from iti_llama.toolkit.data.style import style_of


def row(**fields):
    return {"prompt": "p", "completion": "c", "label": 0, "group": "g"} | fields


GOOD = [row(), row(label=1), row(group="h"), row(group="h", label=1)]


@pytest.fixture
def write(tmp_path):
    def to_file(rows):
        path = tmp_path / "data.jsonl"
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
        return path

    return to_file


def test_what_is_written_is_read_again(tmp_path, write):
    examples = read_examples(write(GOOD))
    again = read_examples(write_examples(examples, tmp_path / "again.jsonl"))
    assert again == examples
    assert checksum(again) == checksum(examples)


@pytest.mark.parametrize(
    "rows,message",
    [
        ([*GOOD, {"prompt": "p", "completion": "c", "group": "g"}], "line 5: label is None; expected 0 or 1"),
        ([*GOOD, row(label=True)], "line 5: label is True"),
        ([*GOOD, row(label=2)], "line 5: label is 2"),
        ([*GOOD, row(completion=" \n")], "line 5: completion is empty"),
        ([*GOOD, row(prompt=None)], "line 5: prompt is None; expected a string"),
        ([*GOOD, row(group=3)], "line 5: group is 3"),
        ([*GOOD, row(meta="x")], "line 5: meta is 'x'"),
        ([*GOOD, "{"], "line 5: no JSON"),
        ([*GOOD, "[1]"], "line 5: list; expected an object"),
        ([row(), row(group="h")], "every label is 0"),
        ([row(), row(label=1)], "every row is of group 'g'"),
        ([], "no rows"),
    ],
)
def test_bad_rows_are_named(write, rows, message):
    path = write(rows)
    with pytest.raises(ValueError) as error:
        read_examples(path)
    assert str(path) in str(error.value) and message in str(error.value)


def test_style_pairs_hold_each_task_once_in_either_style():
    rows = style_pairs(50)
    assert len(rows) == 100 and len({r.group for r in rows}) == 50
    for example in rows:
        body = example.prompt.split("\n", 1)[1] + example.completion
        assert style_of(body) == ("idiomatic" if example.label else "plain")
    assert style_pairs(50) == rows
    assert style_pairs(50, seed=1) != rows
