"""The three checks: they pass what works, and fail what does not."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from reference import tiny_tokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.intervals import Estimate
from iti_llama.toolkit.measure.bundled_tasks import corpus_set
from iti_llama.toolkit.measure.checks import controllability, rephrase_tasks, robustness, utility
from iti_llama.toolkit.measure.divergence import Divergence
from iti_llama.toolkit.measure.evaluate import Answers
from iti_llama.toolkit.measure.grade import Grade
from iti_llama.toolkit.measure.keep_labelled_set import read_parts
from iti_llama.toolkit.measure.labelled_tasks import labelled_set
from iti_llama.toolkit.measure.measure_steering import measure_steering
from iti_llama.toolkit.measure.saved_completions import SavedCompletions
from iti_llama.toolkit.measure.settings import MeasureSettings
from iti_llama.toolkit.measure.target import matches, with_target
from iti_llama.toolkit.measure.tasks import FileTask, TaskSet
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.settings import RepoSettings


def answered(name: str, correct: list[bool], target: list[bool]) -> Answers:
    return Answers(name, 1, [""] * len(correct), [Grade(c, "", t) for c, t in zip(correct, target, strict=True)])


def tasks(n: int, sound: str = "correct") -> TaskSet:
    own = [FileTask(f"task {i}\n", f"g{i}") for i in range(n)]
    return TaskSet("t", own, "x", None, lambda *_: [], {"prompts": []}, sound=sound)


def neutral(change: float) -> Divergence:
    own = Estimate(change, change, change, 40, 40)
    return Divergence(1.0, own, 0.0, 2.0, 2.0 * math.exp(change), own, 100)


def test_controllability_wants_the_interval_above_plain_s_and_every_random_draw_s():
    n, right = 100, [True] * 100
    answers = {
        "plain": answered("plain", right, [i < 10 for i in range(n)]),
        "steered": answered("steered", right, [i < 60 for i in range(n)]),
        "random 1": answered("random 1", right, [i < 12 for i in range(n)]),
        "asked in words": answered("asked in words", right, right),
    }
    assert controllability(answers, tasks(n)).passed
    answers["random 2"] = answered("random 2", right, [i < 55 for i in range(n)])
    check = controllability(answers, tasks(n))
    assert not check.passed and "of random 2, the nearest" in check.why
    wrong = answers | {"steered": answered("steered", [False] * n, [i < 60 for i in range(n)])}
    del wrong["random 2"]
    assert not controllability(wrong, tasks(n)).passed  # in the target, and wrong


@pytest.mark.parametrize(
    "lost,change,passed",
    [(0, 0.0, True), (5, 0.05, True), (6, 0.0, False), (0, 0.12, False), (0, math.log(1.1), True)],
)
def test_utility_counts_what_is_lost_and_the_perplexity_of_neutral_texts(lost, change, passed):
    n = 100
    answers = {
        "plain": answered("plain", [True] * n, [False] * n),
        "steered": answered("steered", [i >= lost for i in range(n)], [True] * n),
    }
    check = utility(answers, tasks(n), neutral(change), 0.05, 1.1)
    assert check.passed == passed
    assert f"{-lost:+.1f}" in check.why.replace("-0.0", "+0.0") and f"{math.exp(change):.3f}" in check.why


@pytest.mark.parametrize("plain,steered,passed", [(98, 95, True), (98, 80, False), (50, 30, True)])
def test_utility_counts_answers_to_their_own_request_where_plain_is_above_chance(plain, steered, passed):
    n = 100
    answers = {name: answered(name, [True] * n, [True] * n) for name in ("plain", "steered")}
    own = {"plain": [float(i < plain) for i in range(n)], "steered": [float(i < steered) for i in range(n)]}
    check = utility(answers, tasks(n), neutral(0.0), 0.05, 1.1, own)
    assert check.passed == passed and (f"{steered - plain:+.1f} [" in check.why) == (plain > 90)


@pytest.mark.parametrize("change,passed", [(-0.04, True), (-0.06, False)])
def test_utility_counts_right_choices_that_have_nothing_to_do_with_it(change, passed):
    answers = {name: answered(name, [True], [True]) for name in ("plain", "steered")}
    damage = Estimate(change, change - 0.01, change + 0.01, 570, 570)
    check = utility(answers, tasks(1), neutral(0.0), 0.05, 1.1, damage=damage)
    assert check.passed == passed and f"{100 * change:+.1f} [" in check.why and "of 570" in check.why


def test_a_file_of_pairs_is_measured_plain_and_steered(taught, held_out_pairs, tmp_path):
    rows = [{"question": f"def g{i}(x):", "correct": " x", "incorrect": " y"} for i in range(8)]
    (tmp_path / "mmlu.json").write_text(json.dumps(rows))
    settings = MeasureSettings(alpha=0.5, checks=True, damage=str(tmp_path / "mmlu.json"))
    record = measure_steering(taught, tiny_tokenizer(), held_out_pairs("test"), None, settings).record
    assert record["damage"]["name"] == "mmlu.json" and record["damage"]["plain"]["n"] == 8
    change = record["damage"]["steered"]["mean"] - record["damage"]["plain"]["mean"]
    assert record["damage"]["change"]["mean"] == pytest.approx(change)
    assert "right choices: " in next(c["why"] for c in record["checks"] if c["name"] == "utility")


def test_how_much_perplexity_may_be_lost_is_said():
    answers = {name: answered(name, [True], [True]) for name in ("plain", "steered")}
    check = utility(answers, tasks(1), neutral(0.12), 0.05, 1.2)
    assert check.passed and check.why.endswith("times plain's, at most 1.2")


def test_a_set_without_a_measure_of_soundness_is_judged_by_perplexity_alone():
    answers = {"plain": answered("plain", [True], [False]), "steered": answered("steered", [False], [True])}
    assert utility(answers, tasks(1, sound=""), neutral(0.0), 0.05, 1.1).passed


def check_at(alpha: float, model, held_out_pairs):
    settings = MeasureSettings(alpha=alpha, checks=True)
    return measure_steering(model, tiny_tokenizer(), held_out_pairs("test"), None, settings)


def test_every_check_passes_where_the_steering_works(taught, held_out_pairs):
    found = check_at(0.5, taught, held_out_pairs)
    assert [(check["name"], check["passed"]) for check in found.record["checks"]] == [
        ("controllability", True),
        ("utility", True),
        ("robustness", True),
    ]
    assert len(found.phrasings) == 4 and all(one.change.low > 0 for one in found.phrasings)


def test_at_alpha_0_there_is_nothing_to_try(taught, held_out_pairs):
    with pytest.raises(ValueError, match="iti_alpha is 0: nothing is steered"):
        check_at(0.0, taught, held_out_pairs)


def test_a_strength_far_too_large_fails_utility(taught, held_out_pairs):
    found = check_at(60.0, taught, held_out_pairs)
    assert "utility" in [check.name for check in found.checks if not check.passed]


@pytest.mark.parametrize("seed", range(2))
def test_directions_of_shuffled_labels_fail(taught_dir, fitted_dir, held_out_pairs, tmp_path, seed):
    """Labels are exchanged in a half of the groups, drawn by chance, and then in the other half: what is left is
    chance, and its direction points either way, so that one of the two has an effect."""
    rows = read_parts(fitted_dir, "fit")
    groups = sorted({row.group for row in rows})
    half = set(random.Random(seed).sample(groups, len(groups) // 2))
    for name, exchanged in (("one", half), ("other", set(groups) - half)):
        own = [replace(row, label=1 - row.label) if row.group in exchanged else row for row in rows]
        settings = FitSettings(top_k=6, folds=3, permutations=20)
        report = fit_repo(RepoSettings(taught_dir, fitting=settings), own, tmp_path / name)
        assert not report["supported"]
        model = ITILlamaForCausalLM.from_pretrained(tmp_path / name).eval()
        found = check_at(0.5, model, held_out_pairs)
        check = next(check for check in found.checks if check.name == "controllability")
        assert not check.passed and check.why.startswith("no head reads the labels better than shuffled ones")


def test_phrasings_stand_where_the_writer_s_own_words_begin():
    rows = [
        Example("<user>say 1\n", text, label, "a", meta={"shown": "say 1\n", "shown_at": 6})
        for label, text in ((0, "x"), (1, "y"))
    ]
    own = labelled_set("s", rows, pairs=True)
    assert [other.prompt_of(own.tasks[0]) for _, other in rephrase_tasks(own)] == [
        "<user>\nsay 1\n",
        "<user>Next:\n\nsay 1\n",
        "<user>---\nsay 1\n",
        "<user># 2\nsay 1\n",
    ]


def test_the_phrasings_of_the_bundled_tasks_say_the_same_in_other_words():
    own = corpus_set("test", 40)
    for task in own.tasks:
        *prompts, other = [other.prompt_of(task) for _, other in rephrase_tasks(own)]
        assert len({task.prompt, *prompts, other}) == 6
        for prompt in prompts:
            assert task.docstring.rstrip(".?").lower() in prompt.lower() and prompt.endswith('"""\n    ')
        head = f"def {task.name}({task.signature}):\n"
        assert other.startswith(head) and task.docstring.rstrip(".?!") not in other


def test_prompts_in_other_words_are_asked_for_the_same(taught, held_out_pairs):
    own = held_out_pairs("test")
    tasks = [replace(task, paraphrase=f"Tell me: {task.prompt}") for task in own.tasks]
    own = replace(own, tasks=tasks, paraphrase=lambda task: task.paraphrase)
    check, found = robustness(taught, tiny_tokenizer(), own, 0.5, None, 0.05)
    assert [one.name for one in found][4:] == ["in other words"] and "4 phrasings and in other words, of" in check.why
    direct = replace(own, tasks=[replace(task, prompt=task.paraphrase) for task in tasks], paraphrase=None)
    asked = measure_steering(taught, tiny_tokenizer(), direct, None, MeasureSettings(alpha=0.5))
    odds = [grade.measures["log-odds"] for grade in asked.answers["steered"].grades]
    assert found[4].steered.mean == pytest.approx(np.mean(odds), abs=1e-4)


def test_robustness_goes_on_from_saved_answers(taught, held_out_pairs, tmp_path):
    """Sampled answers of a run that was killed are those of one that was not."""
    own = with_target(held_out_pairs("test", pairs=False), matches("x"))
    call = (taught, tiny_tokenizer(), own, 0.5, None, 0.05)
    whole = SavedCompletions(tmp_path / "whole.jsonl", {})
    check, phrasings = robustness(*call, whole, batch_size=6)
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "killed.jsonl").write_text("".join(lines[: len(lines) // 2]))
    again = robustness(*call, SavedCompletions(tmp_path / "killed.jsonl", {}), batch_size=6)
    assert again == (check, phrasings)
    assert {one.plain.n for one in phrasings} == {8} and np.isfinite([one.change.low for one in phrasings]).all()
