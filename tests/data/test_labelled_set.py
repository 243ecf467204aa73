"""Labelled sets: what is read, and what is refused."""

import json
from functools import partial

import pytest
from reference import tiny_tokenizer
from taught import TEMPLATE

from iti_llama.toolkit.data.labelled_set import checksum, read_examples, write_examples
from iti_llama.toolkit.foundation.tokenize import chat_prompt


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


@pytest.mark.parametrize("false,true", [(False, True), ("false", "true"), ("False", "True"), ("0", "1")])
def test_a_label_may_be_true_or_false_as_in_data_for_kto(write, false, true):
    rows = [one | {"label": true if one["label"] else false} for one in GOOD]
    assert [one.label for one in read_examples(write(rows))] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    "rows,message",
    [
        ([*GOOD, {"prompt": "p", "completion": "c", "group": "g"}], "line 5: label is None; expected 0 or 1"),
        ([*GOOD, row(label="yes")], "line 5: label is 'yes'"),
        ([*GOOD, row(label=2)], "line 5: label is 2"),
        ([*GOOD, row(completion=" \n")], "line 5: completion is empty"),
        ([*GOOD, row(prompt=None)], "line 5: prompt is None; expected a string"),
        ([*GOOD, row(group=3)], "line 5: group is 3"),
        ([*GOOD, row(meta="x")], "line 5: meta is 'x'"),
        ([*GOOD, "{"], "line 5: not JSON"),
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


SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


@pytest.fixture
def as_prompt():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return partial(chat_prompt, tokenizer)


def talk(**fields):
    return {"messages": SAID, "completion": "c", "label": 0, "group": "g"} | fields


def test_messages_become_the_templates_prompt_and_what_was_said_last_is_kept(write, as_prompt):
    path = write([talk(), talk(label=1, group="h", meta={"from": "x"}), row(prompt="ab")])
    first, second, third = read_examples(path, as_prompt)
    assert first.prompt == "<bos>[system]Be brief.\n[user]hi\n[assistant]"
    around = {"shown": "hi", "shown_at": first.prompt.index("hi\n"), "messages": SAID}
    assert (first.meta, second.meta) == (around, {"from": "x"} | around)
    assert (third.prompt, third.meta) == ("<bos>[user]ab\n[assistant]", {"shown": "ab", "shown_at": 11})
    again = read_examples(write_examples([first, second, third], path), as_prompt)  # a template is used once
    assert [e.prompt for e in again] == [first.prompt, second.prompt, third.prompt]
    assert [e.meta for e in again] == [first.meta, second.meta, third.meta]


def test_a_paraphrase_goes_through_the_template_as_its_prompt(write, as_prompt):
    path = write([talk(meta={"paraphrase": "hello"}), row(prompt="ab", label=1, group="h", meta={"paraphrase": "ba"})])
    found = read_examples(path, as_prompt)
    assert [one.meta["paraphrase"] for one in found] == [
        "<bos>[system]Be brief.\n[user]hello\n[assistant]",
        "<bos>[user]ba\n[assistant]",
    ]
    assert read_examples(write_examples(found, path), as_prompt) == found
    with pytest.raises(ValueError, match=r"line 1: meta\.paraphrase is 7; expected a string"):
        read_examples(write([row(meta={"paraphrase": 7})]))


def test_without_a_template_nothing_is_shown_apart_from_the_prompt(write):
    found = read_examples(write(GOOD), partial(chat_prompt, tiny_tokenizer()))
    assert found == read_examples(write(GOOD)) and all(example.meta == {} for example in found)


@pytest.mark.parametrize(
    "bad,message",
    [
        (talk(prompt="p"), "line 2: prompt and messages; expected one of them"),
        (talk(messages="hi"), "line 2: messages is 'hi'; expected a list of objects with role and content"),
        (talk(messages=[]), "line 2: messages is []; expected a list"),
        (talk(messages=[{"role": "user"}]), "line 2: messages is [{'role': 'user'}]; expected a list"),
        (talk(messages=[{"role": "user", "content": [1]}]), "line 2: messages is"),
        (talk(messages=["hi"]), "line 2: messages is ['hi']; expected a list"),
    ],
)
def test_bad_messages_are_named(write, as_prompt, bad, message):
    path = write([row(), bad])
    with pytest.raises(ValueError) as error:
        read_examples(path, as_prompt)
    assert str(path) in str(error.value) and message in str(error.value)


def test_messages_need_the_template_of_a_model(write):
    path = write([row(), talk(label=1, group="h")])
    with pytest.raises(ValueError, match="line 2: messages, which need the chat template of a model"):
        read_examples(path)
    with pytest.raises(ValueError, match="line 2: messages, but the base's tokenizer has no chat template"):
        read_examples(path, partial(chat_prompt, tiny_tokenizer()))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_file_that_is_not_utf_8_is_named(write, encoding):
    path = write(GOOD)
    path.write_bytes(path.read_text().replace('"p"', '"\u00e9"').encode(encoding))
    with pytest.raises(ValueError) as error:
        read_examples(path)
    assert f"{path}, line 1: " in str(error.value) and (
        "not UTF-8" in str(error.value) or "not JSON" in str(error.value)
    )


def test_a_byte_order_mark_is_no_part_of_the_first_row(write):
    path = write(GOOD)
    plain = read_examples(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_examples(path) == plain
