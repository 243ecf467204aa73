"""Labelled files as other people write them: read, and said in a line, or refused with the fields that they have."""

import csv
import json
from functools import partial
from pathlib import Path

import pytest
from reference import tiny_tokenizer
from taught import TEMPLATE

from iti_llama.toolkit.data.labelled_row import parse_mapping
from iti_llama.toolkit.data.labelled_set import checksum, is_labelled, read_examples, write_examples
from iti_llama.toolkit.foundation.tokenize import chat_prompt


CAA = Path(__file__).parents[3] / "shared" / "data" / "caa"

DATED = "{{ strftime_now('%d %b %Y') }}" + TEMPLATE
"""A chat template that prints the date, as Llama 3's does."""


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


@pytest.fixture
def write(tmp_path):
    def to_file(*rows, name="data.jsonl"):
        path = tmp_path / name
        if name.endswith(".csv"):
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        else:
            lines = json.dumps(rows, indent=1) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
            path.write_text(lines)
        return path

    return to_file


@pytest.fixture
def as_prompt():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return partial(chat_prompt, tokenizer)


def told(examples) -> list[tuple]:
    return [(example.prompt, example.completion, example.label, example.group) for example in examples]


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.csv"])
@pytest.mark.parametrize(
    "positive,negative",
    [
        ("positive", "negative"),
        ("positive_response", "negative_response"),
        ("chosen", "rejected"),
        ("answer_matching_behavior", "answer_not_matching_behavior"),
    ],
)
@pytest.mark.parametrize("prompt", ["prompt", "question"])
def test_a_pair_is_two_examples_of_one_group(write, name, positive, negative, prompt):
    rows = [
        {prompt: text, positive: f"{text} yes", negative: f"{text} no", "more": "x"} for text in ("a", "b,\n", "a")
    ]
    examples = read_examples(write(*rows, name=name))
    assert told(examples) == [
        (text, f"{text} {word}", label, group)
        for text, group in (("a", "prompt 1"), ("b,\n", "prompt 2"), ("a", "prompt 1"))
        for word, label in (("yes", 1), ("no", 0))
    ]
    assert examples.understood == (
        f"3 pairs: {prompt}, {positive} as label 1, {negative} as label 0; 2 groups, rows of the same prompt in one"
    )


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.csv"])
def test_rows_of_one_completion_each_may_be_a_list_or_a_table_and_need_no_group(write, name):
    rows = [{"prompt": f"p{n // 2}", "completion": f"c{n}", "label": n % 2} for n in range(4)]
    examples = read_examples(write(*rows, name=name))
    assert told(examples) == [(f"p{n // 2}", f"c{n}", n % 2, f"prompt {n // 2 + 1}") for n in range(4)]
    assert examples.understood == "4 rows: prompt, completion, label; 2 groups, rows of the same prompt in one"


def test_a_group_that_is_named_is_kept(write):
    rows = [{"prompt": "p", "positive": "y", "negative": "n", "group": group} for group in ("g", "h")]
    examples = read_examples(write(*rows))
    assert [example.group for example in examples] == ["g", "g", "h", "h"]
    assert examples.understood.endswith("; 2 groups")


@pytest.mark.parametrize("explicit", ["text", "messages", "inside"])
def test_a_pair_of_message_lists_as_trl_has_it(write, as_prompt, explicit):
    rows = []
    for text in ("hi", "ho"):
        start = [{"role": "system", "content": "Be kind."}, user(text)]
        if explicit == "inside":
            rows.append({"chosen": [*start, assistant("yes")], "rejected": [*start, assistant("no")]})
        else:
            rows.append({"chosen": [assistant("yes")], "rejected": [assistant("no")]})
            rows[-1]["prompt"] = text if explicit == "text" else start
    system = "" if explicit == "text" else "[system]Be kind.\n"
    assert told(read_examples(write(*rows), as_prompt)) == [
        (f"<bos>{system}[user]{text}\n[assistant]", word, label, f"prompt {number}")
        for number, text in enumerate(("hi", "ho"), 1)
        for word, label in (("yes", 1), ("no", 0))
    ]


def test_a_prompt_beside_whole_conversations_is_not_said_twice(write, as_prompt):
    rows = [
        {"prompt": text, "messages": [user(text), assistant("a")],
         "chosen": [user(text), assistant("a")], "rejected": [user(text), assistant("b")]}
        for text in ("hi", "ho")
    ]  # fmt: skip
    assert {example.prompt for example in read_examples(write(*rows), as_prompt)} == {
        "<bos>[user]hi\n[assistant]",
        "<bos>[user]ho\n[assistant]",
    }


def test_two_texts_without_a_prompt_are_cut_where_they_part(write):
    rows = [
        {"chosen": f"Human: {q}?\n\nAssistant: I would", "rejected": f"Human: {q}?\n\nAssistant: I won't"}
        for q in ("a", "b")
    ]
    assert told(read_examples(write(*rows)))[:2] == [
        ("Human: a?\n\nAssistant: I", " would", 1, "prompt 1"),
        ("Human: a?\n\nAssistant: I", " won't", 0, "prompt 1"),
    ]


def test_messages_that_end_with_the_assistants_turn_are_prompt_and_completion(write, as_prompt):
    rows = [
        {"messages": [{"role": "system", "content": how}, user(text), assistant(how)], "label": label}
        for text in ("hi", "ho")
        for label, how in enumerate(("long", "short"))
    ]
    examples = read_examples(write(*rows), as_prompt)
    assert told(examples)[1] == ("<bos>[system]short\n[user]hi\n[assistant]", "short", 1, "prompt 1")
    assert [example.group for example in examples] == ["prompt 1", "prompt 1", "prompt 2", "prompt 2"]
    assert examples[1].meta["shown"] == "hi"
    assert "4 rows: messages, its last turn as completion, label" in examples.understood


def test_other_files_are_read_by_a_map(write):
    rows = [{"Q": text, "good one": "y", "bad one": "n"} for text in ("a", "b")]
    mapping = parse_mapping("prompt=Q, positive=good one,negative=bad one")
    assert told(read_examples(write(*rows), None, mapping))[:2] == [
        ("a", "y", 1, "prompt 1"),
        ("a", "n", 0, "prompt 1"),
    ]
    rows = [{"Q": "q", "A": "x", "good": n % 2, "of": f"g{n // 2}"} for n in range(4)]
    mapping = parse_mapping("prompt=Q,completion=A,label=good,group=of")
    assert told(read_examples(write(*rows), None, mapping))[3] == ("q", "x", 1, "g1")
    with pytest.raises(ValueError, match="line 1: no Z, which --map calls the prompt; the fields are Q, A, good, of"):
        read_examples(write(*rows), None, {"prompt": "Z"})


@pytest.mark.parametrize(
    "text",
    [
        "prompt",
        "prompt=",
        "prom=x",
        "prompt=a,prompt=b",
        "positive=x",
        "positive=a,negative=b,label=c",
        "prompt=a,positive=b,negative=b",
        "",
    ],
)
def test_a_map_that_cannot_be_meant_is_refused(text):
    with pytest.raises(ValueError, match="--map is .*; expected"):
        parse_mapping(text)


@pytest.mark.parametrize(
    "row,message",
    [
        ({"a": 1, "b": 2}, "the fields are a, b; expected a prompt (prompt, question, messages) with completion and"),
        ({"text": "x", "label": 1}, "the fields are text, label; expected a prompt"),
        ({"prompt": "p", "text": "x", "label": 1}, "the fields are prompt, text, label; expected a prompt"),
        ({"question": "q"}, "--map prompt=FIELD,positive=FIELD,negative=FIELD"),
        ({"prompt": "p", "positive": "x"}, "negative is None; expected a string"),
        ({"prompt": "p", "positive": "x", "negative": " "}, "negative is empty"),
        ({"prompt": "p", "positive": "x", "negative": "y", "chosen": "x"}, "positive and chosen; expected one pair"),
        ({"prompt": "p", "question": "q", "positive": "x", "negative": "y"}, "prompt and question; expected one"),
        ({"positive": "Yes", "negative": "No"}, "no prompt; expected one of prompt, question, messages, or --map"),
        ({"prompt": 7, "positive": "x", "negative": "y"}, "prompt is 7; expected a string"),
        ({"chosen": [user("a")], "rejected": [user("a")]}, "chosen ends with the turn of 'user'; expected the assis"),
        ({"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("y")]}, "differ before their last"),
        ({"prompt": "c", "chosen": [user("a"), assistant("x")], "rejected": [user("a"), assistant("y")]},
         "chosen does not begin with prompt"),
        ({"prompt": "p", "chosen": [assistant("x")], "rejected": "y"}, "chosen is [{"),
        ({"messages": [user("a")], "label": 1}, "messages ends with the turn of 'user'; expected the assistant's"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_with_the_fields_found(write, as_prompt, row, message):
    path = write(row)
    with pytest.raises(ValueError) as error:
        read_examples(path, as_prompt)
    assert str(error.value).startswith(f"{path}, line 1: ") and message in str(error.value)


@pytest.mark.parametrize(
    "name,text,message",
    [
        ("d.json", "[1, 2]", "d.json, row 1: int; expected an object"),
        ("d.json", '[{"prompt": "p"}', "d.json: not JSON"),
        ("d.csv", "prompt,positive,negative\na,b,c,d\n", "d.csv, line 2: has more cells than the header names"),
        ("d.csv", "prompt,positive,negative\na,b,\n", "d.csv, line 2: negative is None"),
        ("d.csv", "", "d.csv: no rows"),
        ("d.csv", "prompt;positive;negative\na;b;c\n", "d.csv, line 2: the fields are prompt;positive;negative"),
    ],
)
def test_a_table_that_is_none_is_refused_by_name(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as error:
        read_examples(tmp_path / name)
    assert message in str(error.value)


def test_a_table_as_a_spreadsheet_writes_it(tmp_path):
    (tmp_path / "d.csv").write_text("prompt , completion,label\na,x,1\n,,\na,y,0\n\nb,x,1\nb,x,0\n")
    examples = read_examples(tmp_path / "d.csv")
    assert [(e.prompt, e.completion, e.label) for e in examples] == [
        ("a", "x", 1),
        ("a", "y", 0),
        ("b", "x", 1),
        ("b", "x", 0),
    ]
    assert examples.understood.endswith("; 1 texts have both labels")


def test_a_file_is_labelled_if_its_first_row_is(write):
    assert is_labelled(write({"question": "q", "chosen": "a", "rejected": "b"}, name="a.json"))
    assert is_labelled(write({"prompt": "q", "completion": "a", "label": 1}))
    assert not is_labelled(write({"prompt": "q"})) and not is_labelled(
        write({"prompt": "q", "tests": []}, name="b.json")
    )


def test_the_checksum_is_of_what_was_written_whatever_day_it_is(write, tmp_path, monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = DATED
    rows = [
        {"prompt": "a", "positive": "y", "negative": "n", "meta": {"paraphrase": "A"}},
        {"messages": [{"role": "system", "content": "s"}, user("b")], "positive": "y", "negative": "n"},
    ]

    def on(day: str):
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock(day))
        return read_examples(write(*rows), partial(chat_prompt, tokenizer))

    today, tomorrow = on("29 Nov 2026"), on("30 Nov 2026")
    assert today[0].prompt == "29 Nov 2026<bos>[user]a\n[assistant]"
    assert today != tomorrow and checksum(today) == checksum(tomorrow)
    assert checksum(read_examples(write_examples(today, tmp_path / "kept.jsonl"))) == checksum(today)
    raw = read_examples(write(rows[0], {**rows[0], "prompt": "b"}))
    assert checksum(raw) != checksum(today)
    rows[1]["messages"][0]["content"] = "t"
    assert checksum(on("29 Nov 2026")) != checksum(today)


class Clock:
    """In place of the datetime of transformers' templates."""

    def __init__(self, day: str):
        self.day = day

    def now(self):
        return self

    def strftime(self, how: str) -> str:
        return self.day


@pytest.mark.skipif(not CAA.is_dir(), reason="CAA's data sets are not on this machine")
@pytest.mark.parametrize("name,pairs", [("refusal/generate_dataset.json", 408), ("persona_agreeableness.jsonl", 1000)])
def test_caa_and_anthropics_evals_are_read_as_they_lie_there(name, pairs):
    examples = read_examples(CAA / name)
    assert len(examples) == 2 * pairs and sum(example.label for example in examples) == pairs
    assert examples.understood.startswith(f"{pairs:,} pairs: question, answer_matching_behavior as label 1, ")


def test_a_system_message_comes_before_prompts_that_have_none_and_counts_as_written(write, as_prompt):
    own = [{"role": "system", "content": "sys"}, {"role": "user", "content": "c"}]
    path = write(
        {"prompt": "a", "positive": "x", "negative": "y"}, {"messages": own, "positive": "x", "negative": "y"}
    )
    bare, brief = read_examples(path, as_prompt), read_examples(path, as_prompt, system="be brief")
    assert brief[0].prompt == "<bos>[system]be brief\n[user]a\n[assistant]" and brief[0].meta["shown"] == "a"
    assert brief[2].prompt == bare[2].prompt == "<bos>[system]sys\n[user]c\n[assistant]"
    others = read_examples(path, as_prompt, system="be long")
    assert len({checksum(examples) for examples in (bare, brief, others)}) == 3
