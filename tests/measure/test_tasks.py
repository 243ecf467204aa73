"""Measuring: against independent computations, resumable, and honest about nothing."""

import json
from functools import partial

import pytest
from reference import tiny_tokenizer
from taught import TEMPLATE

from iti_llama.toolkit.foundation.tokenize import chat_prompt
from iti_llama.toolkit.measure.evaluate import prompts_hash
from iti_llama.toolkit.measure.tasks import file_set


def test_tasks_of_a_file_are_run_by_call_or_as_programs(tmp_path, sandbox):
    path = tmp_path / "tasks.jsonl"
    rows = [
        {"prompt": "def f(x):\n    ", "tests": [{"call": "f(2)", "value": 4}, {"call": "f(3)", "value": 6}]},
        {"prompt": "Print the double.\n", "tests": [{"input": "4\n", "output": "8"}], "group": "g"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = file_set(path, "# Be brief.\n")
    assert [task.group for task in tasks.tasks] == ["1", "g"]
    right = tasks.grade(tasks.tasks, ["return 2 * x\n", "```python\nprint(2 * int(input()))\n```"], sandbox)
    wrong = tasks.grade(tasks.tasks, ["return x + 2\n", "print(4)"], sandbox)
    fooled = tasks.grade(
        tasks.tasks, ["return x\n\nprint = lambda *a, **k: None\n", "import os; os._exit(0)"], sandbox
    )
    assert [g.correct for g in right] == [True, True]
    assert not any(g.correct for g in wrong + fooled)


@pytest.mark.parametrize(
    "row,said",
    [
        ({"tests": []}, "prompt is None"),
        ({"prompt": 7}, "prompt is 7"),
        ({"prompt": "p", "paraphrase": 7}, "paraphrase is 7"),
        ({"prompt": "p", "tests": [{"call": "f()"}]}, "a test is"),
        ({"prompt": "p", "tests": [{"call": "f()", "value": 1}, {"input": "", "output": ""}]}, "mix call and input"),
    ],
)
def test_bad_tasks_are_named(tmp_path, row, said):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="line 1") as error:
        file_set(path, "# Be brief.\n")
    assert said in str(error.value)


@pytest.fixture
def write(tmp_path):
    def to_file(*rows, name="tasks.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    return to_file


def test_without_tests_an_answer_has_only_to_be_intact(write, sandbox):
    tasks = file_set(write({"prompt": "p"}, {"prompt": "q", "tests": [], "group": "g"}), None)
    assert (tasks.sound, tasks.target, tasks.asked, tasks.pairs) == ("intact", "", None, False)
    grades = tasks.grade([tasks.tasks[0]] * 3, ["fine", " \n", "go on and on " * 9], sandbox)
    assert [grade.correct for grade in grades] == [True, False, False]


def test_every_prompt_has_a_paraphrase_or_none(write):
    own = file_set(write({"prompt": "p", "paraphrase": "q"}, {"prompt": "r", "paraphrase": "s"}), None)
    assert [own.paraphrase(task) for task in own.tasks] == ["q", "s"]
    assert file_set(write({"prompt": "p"}), None).paraphrase is None
    with pytest.raises(ValueError, match="'p' has no paraphrase, others have one; expected all or none"):
        file_set(write({"prompt": "p"}, {"prompt": "r", "paraphrase": "s"}), None)


def test_rows_with_tests_and_rows_without_are_not_mixed(write):
    tested = {"prompt": "def f(x):", "tests": [{"call": "f(1)", "value": 1}]}
    with pytest.raises(ValueError, match="row 2 has no tests, others have; expected all or none"):
        file_set(write(tested, {"prompt": "p"}), None)


def test_a_file_that_is_not_utf_8_is_named_and_a_byte_order_mark_is_nothing(write):
    path = write({"prompt": "p"})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert file_set(path, None).tasks[0].prompt == "p"
    path.write_text('{"prompt": "p"}', encoding="utf-16")
    with pytest.raises(ValueError, match=r"tasks\.jsonl, line 1: not UTF-8 at byte 0"):
        file_set(path, None)


def test_a_prompt_goes_through_the_template_and_the_header_into_it(write):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tasks = file_set(write({"prompt": "what is x"}), "# Be brief.", partial(chat_prompt, tokenizer))
    (task,) = tasks.tasks
    assert (task.prompt, task.shown) == ("<bos>[user]what is x\n[assistant]", "what is x")
    assert tasks.asked(task) == "<bos>[user]# Be brief.\nwhat is x\n[assistant]"


@pytest.fixture
def as_prompt():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return partial(chat_prompt, tokenizer)


SYSTEM = {"role": "system", "content": "Be kind."}


def test_messages_may_stand_for_a_prompt_and_for_its_paraphrase(write, as_prompt):
    talk = [SYSTEM, {"role": "user", "content": "hi"}]
    other = [{"role": "user", "content": "ho"}]
    path = write({"messages": talk, "paraphrase": "hello"}, {"question": "hu", "paraphrase": other})
    tasks = file_set(path, "# Be brief.", as_prompt)
    first, second = tasks.tasks
    assert first.prompt == "<bos>[system]Be kind.\n[user]hi\n[assistant]" and first.shown == "hi"
    assert first.paraphrase == "<bos>[system]Be kind.\n[user]hello\n[assistant]"
    assert second.prompt == "<bos>[user]hu\n[assistant]" and second.paraphrase == "<bos>[user]ho\n[assistant]"
    assert tasks.asked(first) == "<bos>[system]Be kind.\n[user]# Be brief.\nhi\n[assistant]"
    with pytest.raises(ValueError, match="line 1: messages, which need the chat template of a model"):
        file_set(path, None)
    path = write({"messages": [*talk, {"role": "assistant", "content": "x"}]})
    with pytest.raises(ValueError, match="line 1: the last message is the assistant's; expected the user's"):
        file_set(path, None, as_prompt)
    with pytest.raises(ValueError, match="line 1: prompt and messages; expected one of them"):
        file_set(write({"prompt": "p", "messages": talk}), None, as_prompt)


def test_a_chat_models_answer_is_the_whole_function(write, as_prompt, sandbox):
    tasks = file_set(write({"prompt": "Double x: def f(x)", "tests": [{"call": "f(2)", "value": 4}]}), None, as_prompt)
    answers = ["Sure:\n```python\ndef f(x):\n    return 2 * x\n```", "```python\ndef f(x):\n    return x\n```"]
    assert [grade.correct for grade in tasks.grade(tasks.tasks * 2, answers, sandbox)] == [True, False]


@pytest.mark.parametrize("name", ["tasks.json", "tasks.csv"])
def test_tasks_may_be_a_list_or_a_table(tmp_path, name):
    text = '[{"question": "a"}, {"question": "b"}]' if name.endswith("json") else "question\na\nb\n"
    (tmp_path / name).write_text(text)
    assert [task.prompt for task in file_set(tmp_path / name, None).tasks] == ["a", "b"]


def test_prompts_are_hashed_as_they_were_written_whatever_day_the_template_prints(write, as_prompt):
    path = write({"messages": [SYSTEM, {"role": "user", "content": "hi"}]}, {"prompt": "ho"})

    def on(day: str, header: str | None = "# Be brief."):
        return prompts_hash(file_set(path, header, lambda said, where: day + as_prompt(said, where)))

    assert on("29 Nov 2026") == on("30 Nov 2026")
    assert on("29 Nov 2026") != on("29 Nov 2026", "# Be long.")
    before = on("29 Nov 2026")
    path = write(
        {"messages": [{**SYSTEM, "content": "Be rude."}, {"role": "user", "content": "hi"}]}, {"prompt": "ho"}
    )
    assert on("29 Nov 2026") != before
