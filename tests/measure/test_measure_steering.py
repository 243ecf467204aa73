"""A measurement: conditions, side effects and answers of a steered model, in JSON types."""

import json
from dataclasses import replace

import numpy as np
import pytest
from reference import hooks, tiny_tokenizer
from transformers import LlamaForCausalLM

from iti_llama.toolkit.measure.evaluate import settings_of
from iti_llama.toolkit.measure.measure_steering import measure_steering
from iti_llama.toolkit.measure.settings import MeasureSettings
from iti_llama.toolkit.measure.target import matches, with_target


AT_2 = MeasureSettings(alpha=2.0)


@pytest.fixture(scope="module")
def of_pairs(taught, held_out_pairs):
    return measure_steering(taught, tiny_tokenizer(), held_out_pairs("test", "# x"), None, AT_2)


def test_every_condition_is_measured_on_every_pair(of_pairs):
    names = ["plain", "steered", "minus alpha", "random 1", "random 2", "random 3"]
    names += ["asked in words", "asked in words, minus alpha"]
    assert [row.condition for row in of_pairs.rows] == names
    assert {row.correct.n for row in of_pairs.rows} == {8}
    odds = {name: [float(text) for text in answers.completions] for name, answers in of_pairs.answers.items()}
    for row in of_pairs.rows:
        assert row.measures["log-odds"].mean == pytest.approx(np.mean(odds[row.condition]))
        assert row.target.mean == np.mean(np.array(odds[row.condition]) > 0)
    assert np.mean(odds["steered"]) > np.mean(odds["plain"]) > np.mean(odds["minus alpha"])
    assert list(of_pairs.divergence) == ["label 0 texts", "prompts"]
    assert set(of_pairs.divergence["label 0 texts"]) == {"steered", "minus alpha", "random 1", "random 2", "random 3"}


def test_a_record_is_json_and_says_what_was_measured_and_how(of_pairs):
    found = of_pairs.record
    assert json.loads(json.dumps(found, allow_nan=False))["summary"] == found["summary"]
    assert (found["target"], found["sound"], found["alpha"], found["heads"]) == ("prefers label 1", "", 2.0, 6)
    assert "held-out:test, 8 tasks" in found["how"] and "the likelier of two given completions" in found["how"]
    assert [row["name"] for row in found["summary"]] == ["plain", "steered", "random directions", "minus alpha"]


def test_a_record_is_the_same_after_a_round_trip_through_json(of_pairs):
    assert json.loads(json.dumps(of_pairs.record)) == of_pairs.record


def test_the_answers_shown_are_those_of_a_plain_llama_with_hooks(of_pairs, taught, taught_dir):
    plain, tokenizer = LlamaForCausalLM.from_pretrained(taught_dir), tiny_tokenizer()
    examples = of_pairs.record["examples"]
    assert len(examples) == 8 and any(one["plain"] != one["steered"] for one in examples)
    for one in examples[:4]:
        ids = tokenizer(one["prompt"], return_tensors="pt", return_token_type_ids=False)
        length = ids["input_ids"].shape[1]
        for name, alpha in (("plain", 0.0), ("steered", 2.0)):
            with hooks(plain, taught.iti_directions, alpha):
                out = plain.generate(**ids, max_new_tokens=72 - length, do_sample=False)
            assert one[name] == tokenizer.decode(out[0, length:], skip_special_tokens=True)
        assert one["shown"] == one["prompt"]


def test_answers_with_a_target_are_graded_and_examples_are_the_same_prompts(taught, held_out_pairs, tmp_path):
    tasks = replace(with_target(held_out_pairs("test", pairs=False), matches("^return")), max_new_tokens=12)
    measured = measure_steering(taught, tiny_tokenizer(), tasks, None, AT_2, completions=tmp_path / "c.jsonl")
    for row in measured.rows:
        own = measured.answers[row.condition].completions
        assert row.target.mean == np.mean(["\nreturn" in f"\n{text}" for text in own])
        assert row.correct.mean == np.mean([bool(text.strip()) for text in own])
    record = measured.record
    assert record["sound"] == "intact" and [row["odds_change"] for row in record["summary"]] == [None] * 4
    assert [example["prompt"] for example in record["examples"]] == [task.prompt for task in tasks.tasks]
    counted = []
    again = measure_steering(
        taught, tiny_tokenizer(), tasks, None, AT_2, completions=tmp_path / "c.jsonl",
        progress=lambda step, rows: counted.append(step),
    )  # fmt: skip
    assert again.record == measured.record and again.answers == measured.answers and "steered" in counted
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 1 + 6 * 8


def test_answers_of_another_length_are_not_taken_for_these(taught, held_out_pairs, tmp_path):
    tasks = with_target(held_out_pairs("test", pairs=False), matches("^return"))

    def answers(length: int) -> list[str]:
        short = replace(tasks, max_new_tokens=length)
        found = measure_steering(taught, tiny_tokenizer(), short, None, AT_2, completions=tmp_path / "c.jsonl")
        return found.answers["steered"].completions

    assert max(map(len, answers(2))) <= 2
    with pytest.raises(ValueError, match="holds the completions of another run"):
        answers(12)


def test_one_answer_of_a_pair_cannot_be_sampled(taught, held_out_pairs):
    with pytest.raises(ValueError, match="samples is 2; expected 1"):
        measure_steering(taught, tiny_tokenizer(), held_out_pairs("test"), None, MeasureSettings(samples=2))


def test_tasks_without_a_target_are_refused_before_anything_is_answered(taught, held_out_pairs, tmp_path):
    with pytest.raises(ValueError, match="do not say what is wanted; pass --target"):
        measure_steering(
            taught, tiny_tokenizer(), held_out_pairs("test", pairs=False), None, completions=tmp_path / "c.jsonl"
        )
    assert not (tmp_path / "c.jsonl").exists()


def test_pairs_that_differ_in_a_completion_alone_are_other_tasks(taught, held_out_pairs):
    tasks = held_out_pairs("test")
    other = replace(tasks, tasks=[replace(tasks.tasks[0], completions=("a", "b")), *tasks.tasks[1:]])
    one, two = (settings_of(taught, own, 1.0, 1, 1.0, 0) for own in (tasks, other))
    assert one["prompts"] != two["prompts"]
