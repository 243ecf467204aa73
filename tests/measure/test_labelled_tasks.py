"""Tasks of a labelled set: prompts, or pairs that share a prompt."""

from dataclasses import replace

import pytest

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.measure.labelled_tasks import labelled_set


ROWS = [
    Example("p", "bad", 0, "g"),
    Example("p", "good", 1, "g"),
    Example("p", "better", 1, "g"),
    Example("q", "fine", 1, "h"),
    Example("<user>hi</user>", "good r", 1, "h", meta={"shown": "hi", "shown_at": 6}),
    Example("<user>hi</user>", "bad r", 0, "h", meta={"shown": "hi", "shown_at": 6}),
    Example("p", "of another group", 0, "i"),
]


def test_pairs_are_completions_of_one_prompt_and_group_the_wanted_one_first():
    tasks = labelled_set("x", ROWS, pairs=True)
    assert [(t.prompt, t.group, t.completions) for t in tasks.tasks] == [
        ("p", "g", ("good", "bad")),
        ("<user>hi</user>", "h", ("good r", "bad r")),
    ]
    assert tasks.pairs and tasks.sound == "" and tasks.target == "prefers label 1"


def test_without_pairs_each_prompt_is_a_task_once_and_has_no_target_yet():
    tasks = labelled_set("x", ROWS)
    assert [(t.prompt, t.group) for t in tasks.tasks] == [("p", "g"), ("q", "h"), ("<user>hi</user>", "h"), ("p", "i")]
    assert tasks.target == "" and tasks.sound == "intact" and not tasks.pairs and tasks.asked is None


def test_divergence_is_measured_on_the_texts_of_label_0():
    for pairs in (False, True):
        (_, texts), (neutral, prompts) = labelled_set("x", ROWS, pairs=pairs).texts.items()
        assert [text.completion for text in texts] == ["bad", "bad r", "of another group"]
        assert neutral == "prompts" and {text.completion for text in prompts} == {row.prompt for row in ROWS}


def test_a_set_without_a_pair_is_refused_and_what_to_pass_is_said():
    with pytest.raises(ValueError, match="x: no prompt has completions of both labels") as error:
        labelled_set("x", [ROWS[0], ROWS[3]], pairs=True)
    assert all(
        advice in str(error.value) for advice in ("--target", "regular expression", "FILE.py:function", "probe")
    )


def test_a_header_goes_before_what_the_writer_wrote_inside_the_template():
    tasks = labelled_set("x", ROWS, "# Be brief.", pairs=True)
    assert [tasks.asked(task) for task in tasks.tasks] == ["# Be brief.\np", "<user># Be brief.\nhi</user>"]


def test_a_header_is_inside_the_template_also_where_the_template_holds_the_words_of_the_prompt():
    rows = [
        Example("<user>use</user>", text, label, "h", meta={"shown": "use", "shown_at": 6})
        for label, text in enumerate("ab")
    ]
    tasks = labelled_set("x", rows, "# Be brief.", pairs=True)
    assert tasks.asked(tasks.tasks[0]) == "<user># Be brief.\nuse</user>"


def test_a_header_is_not_lost_where_the_template_strips_the_message():
    rows = [
        Example("<user>r:</user>", text, label, "h", meta={"shown": "r:\n", "shown_at": 6})
        for label, text in enumerate("ab")
    ]
    tasks = labelled_set("x", rows, "# Be brief.", pairs=True)
    assert tasks.asked(tasks.tasks[0]) == "<user># Be brief.\nr:</user>"


def test_every_prompt_has_a_paraphrase_or_none():
    rows = [replace(row, meta=row.meta | {"paraphrase": f"other {row.prompt}"}) for row in ROWS]
    for pairs in (False, True):
        own = labelled_set("x", rows, pairs=pairs)
        assert [own.paraphrase(task) for task in own.tasks] == [f"other {task.prompt}" for task in own.tasks]
        assert labelled_set("x", ROWS, pairs=pairs).paraphrase is None
        with pytest.raises(ValueError, match="x: '<user>hi</user>' has no paraphrase, others have one"):
            labelled_set("x", [*rows[:4], *ROWS[4:6]], pairs=pairs)


def test_a_grade_is_of_the_sign_of_the_log_odds_and_keeps_them():
    tasks = labelled_set("x", ROWS, pairs=True)
    grades = tasks.grade(tasks.tasks, ["+0.2500", "-1.5000"], None)
    assert [(g.target, g.correct, g.measures) for g in grades] == [
        (True, True, {"log-odds": 0.25}),
        (False, True, {"log-odds": -1.5}),
    ]


def test_rows_without_prompts_are_pairs_and_nothing_to_complete():
    rows = [Example("", "bad", 0, "g"), Example("", "good", 1, "g"), Example("", "fine", 1, "h")]
    pairs = labelled_set("x.jsonl", rows, pairs=True)
    assert [task.completions for task in pairs.tasks] == [("good", "bad")] and list(pairs.texts) == ["label 0 texts"]
    with pytest.raises(ValueError, match="x.jsonl: every prompt is empty.*--tasks"):
        labelled_set("x.jsonl", rows)
    mixed = labelled_set("x.jsonl", [*rows, Example("p", "a", 1, "i")])
    assert [text.completion for text in mixed.texts["prompts"]] == ["p"]
