"""Requests of files as people have them, and those of the package."""

import json
from collections import Counter

import pytest

from iti_llama.toolkit.instruct.read_requests import EVERYDAY, read_requests, split_requests


def lines(n: int = 30) -> list[str]:
    return [f"question {number}?" for number in range(n)]


def test_the_packages_own_are_four_hundred_of_eight_kinds_each_once():
    rows = [json.loads(line) for line in EVERYDAY.read_text().splitlines()]
    kinds = Counter(row["kind"] for row in rows)
    assert len(read_requests()) == len(rows) == 400 and len(kinds) == 8 and min(kinds.values()) >= 30
    assert all(row["messages"][-1]["role"] == "user" for row in rows if row["kind"] == "follow-up")


def test_a_text_file_is_a_request_a_line_and_repeated_ones_count_once(tmp_path):
    path = tmp_path / "requests.txt"
    path.write_text("\n\n".join([*lines(), lines()[0]]))
    assert [request.words for request in read_requests(path)] == lines()


@pytest.mark.parametrize("field,mapping", [("prompt", {}), ("question", {}), ("QUESTION", {"prompt": "QUESTION"})])
def test_rows_have_their_prompt_under_a_usual_name_or_under_the_one_that_is_named(field, mapping, tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text("\n".join([f"{field},other", *(f"{line},1" for line in lines())]))
    assert [request.words for request in read_requests(path, mapping)] == lines()


def test_messages_are_kept_whole_and_those_with_the_same_last_words_are_one_group(tmp_path):
    def row(line: str, system: str) -> str:
        return json.dumps({"messages": [{"role": "system", "content": system}, {"role": "user", "content": line}]})

    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join([row(line, system) for line in lines() for system in ("a", "b")]))
    found = read_requests(path)
    assert len(found) == 60 and len({request.group for request in found}) == 30
    assert found[1].written[0] == {"role": "system", "content": "b"} and found[1].words == lines()[0]


def test_a_model_without_a_chat_template_gets_texts_alone(tmp_path):
    assert 300 < len(read_requests(chats=False)) < 400
    assert all(isinstance(request.written, str) for request in read_requests(chats=False))
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps({"messages": [{"role": "user", "content": line}]}) for line in lines()))
    with pytest.raises(ValueError, match="own.jsonl: 30 requests are messages, but the base has no chat template"):
        read_requests(path, chats=False)


@pytest.mark.parametrize(
    "name,text,said",
    [
        ("few.txt", "one\ntwo", "2 requests; expected at least 20"),
        ("rows.jsonl", '{"text": "x"}', "line 1: the fields are text; expected prompt"),
        ("rows.jsonl", '{"prompt": 3}', "line 1: prompt is 3"),
        ("rows.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}', "last message is from 'assistant'"),
    ],
)
def test_what_is_no_request_is_named(name, text, said, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_requests(tmp_path / name)


def test_parts_are_of_other_requests_and_three_two_and_two_tenths_of_them():
    parts = split_requests(read_requests(), seed=3, most=200, most_fitted=400)
    groups = [{request.group for request in part} for part in (parts.fit, parts.validation, parts.test)]
    assert [len(names) for names in groups] == [240, 80, 80] and len(set.union(*groups)) == 400
    fewer = split_requests(read_requests(), seed=3, most=10, most_fitted=24)
    assert [len(part) for part in (fewer.fit, fewer.validation, fewer.test)] == [24, 10, 10]
    assert {request.group for request in fewer.test} < groups[2]
