"""The tasks that the bundled model is shown and measured on, and how their answers are graded."""

import ast

from iti_llama.toolkit.bundled.corpus import classic, sample_tasks, split_of
from iti_llama.toolkit.bundled.tasks import corpus_set, demo_tasks


def test_a_classic_is_found_by_name_and_wording():
    task = classic("prime", "Check if a number is prime.")
    assert (task.group, task.docstring) == ("classic:prime", "Check if a number is prime.")
    assert ((91,), False) in task.tests
    assert classic("prime", "Check whether n is prime").signature == "n"


def test_the_demo_says_which_tasks_were_trained_on():
    shown = demo_tasks(4)
    assert [split_of(task.group) for _, task in shown] == ["train", "test", "test", "test"]
    assert [origin for origin, _ in shown] == ["a classic of the training corpus"] + ["held out from training"] * 3
    assert [task for _, task in shown[1:]] == sample_tasks("test", 3, seed=0)


def test_a_shorter_demo_is_the_beginning_of_a_longer_one():
    shown = demo_tasks(5)
    assert all(demo_tasks(n) == shown[:n] for n in range(1, 5))


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
