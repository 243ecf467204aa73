"""The tasks that the bundled model is shown and measured on, its labelled pairs, and how answers are graded."""

import ast
from collections import Counter

import pytest

from iti_llama.toolkit.data.style import style_of
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.bundled_tasks import ASKS_FOR_IDIOMATIC, corpus_set, demo_tasks, labelled_pairs


def test_the_demo_starts_with_the_prime_and_says_where_its_tasks_come_from():
    shown = demo_tasks(4)
    assert shown[0][1].docstring == "Check if a number is prime." and ((91,), False) in shown[0][1].tests
    assert [origin for origin, _ in shown] == ["a classic of the training corpus"] + ["held out from training"] * 3
    assert [task for _, task in shown[1:]] == corpus_set("test", 3).tasks
    assert all(demo_tasks(n) == shown[:n] for n in range(1, 4))
    with pytest.raises(ValueError, match="n is 302; expected at most 301"):
        demo_tasks(302)


def test_a_smaller_task_set_is_the_beginning_of_a_larger_one_and_more_than_there_are_is_refused():
    for split in ("test", "validation"):
        assert corpus_set(split, 300).tasks[:7] == corpus_set(split, 7).tasks
        with pytest.raises(ValueError, match=f"301 tasks of corpus:{split} were asked for; it holds 300"):
            corpus_set(split, 301)


def test_each_group_has_a_row_of_either_label_and_its_prompt_asks_for_that():
    tasks = {task.group for split in ("test", "validation") for task in corpus_set(split, 300).tasks}
    for behaviour in ("idiomatic", "commented"):
        rows = labelled_pairs(behaviour, 300)
        assert set(Counter(row.group for row in rows).values()) == {2} and len(rows) == 600
        assert not tasks & {row.group for row in rows}
        assert labelled_pairs(behaviour, 20) == rows[:40]
        for zero, one in zip(rows[::2], rows[1::2], strict=True):
            (asked, prompt), (other, same) = (row.prompt.split("\n", 1) for row in (one, zero))
            assert (zero.label, one.label) == (0, 1) and prompt == same and asked != other
            if behaviour == "idiomatic":
                assert [style_of(prompt + row.completion) for row in (zero, one)] == ["plain", "idiomatic"]
            else:
                comment, _, rest = one.completion.partition("\n    ")
                assert comment.startswith("# ") and rest == zero.completion


def test_pairs_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="301 groups of labelled pairs were asked for; there are 300"):
        labelled_pairs("idiomatic", 301)
    with pytest.raises(ValueError, match="the behaviour is 'rude'; expected one of idiomatic, commented"):
        labelled_pairs("rude", 10)


def test_a_prompt_that_asks_has_the_header_above_it():
    tasks = corpus_set("test", 1)
    assert tasks.asked(tasks.tasks[0]) == f"{ASKS_FOR_IDIOMATIC}\n{tasks.tasks[0].prompt}"


def test_no_frozen_file_is_read_before_it_is_needed():
    import subprocess
    import sys

    code = (
        "import sys\n"
        "def hook(event, args):\n"
        "    if event == 'open' and str(args[0]).endswith('.jsonl'): sys.exit('read')\n"
        "sys.addaudithook(hook)\n"
        "import iti_llama, iti_llama.toolkit.cli.app, iti_llama.toolkit.measure.bundled_tasks as tasks\n"
        "print('imported')\n"
        "tasks.demo_tasks(1)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert run.stdout == "imported\n" and run.stderr.strip() == "read"


def test_a_task_set_depends_on_split_and_seed_alone():
    tasks = corpus_set("validation", 8, seed=1)
    assert tasks.name == "corpus:validation" and tasks.target == "idiomatic"
    assert tasks.tasks == corpus_set("validation", 8, seed=1).tasks
    others = (corpus_set("test", 8, seed=1), corpus_set("validation", 8, seed=2))
    assert not any({task.prompt for task in tasks.tasks} == {task.prompt for task in other.tasks} for other in others)


def test_its_texts_are_its_prompts_and_both_solutions_of_each_task():
    tasks = corpus_set("validation", 5)
    assert {name: len(texts) for name, texts in tasks.texts.items()} == {
        "plain code": 5,
        "idiomatic code": 5,
        "prompts": 5,
    }
    for name, texts in tasks.texts.items():
        assert [text.group for text in texts] == [task.group for task in tasks.tasks]
        whole = [text.prompt + text.completion for text in texts]
        assert all(text.startswith(task.prompt) for text, task in zip(whole, tasks.tasks, strict=True))
        if name != "prompts":
            assert all(len(ast.parse(text).body) == 1 for text in whole)


def test_its_own_solutions_are_graded_right_and_others_wrong(sandbox):
    tasks = corpus_set("test", 4)
    for style in ("plain", "idiomatic"):
        grades = tasks.grade(tasks.tasks, [task.solutions[style] + "\n" for task in tasks.tasks], sandbox)
        assert [(g.correct, g.style, g.target) for g in grades] == [(True, style, style == "idiomatic")] * 4
    wrong = tasks.grade(tasks.tasks, ["return [None for _ in range(3)]\n"] * 4, sandbox)
    assert [(g.correct, g.target) for g in wrong] == [(False, True)] * 4
