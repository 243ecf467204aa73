"""What a run says that it will take."""

from inspect import signature

import pytest
from reference import tiny_tokenizer

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.repo.plan_run import plan_run
from iti_llama.toolkit.repo.settings import RunSettings
from iti_llama.toolkit.repo.sweep_repo import sweep_model


def test_the_cache_that_is_counted_is_that_of_the_answers_which_a_sweep_writes_at_once(steered, base_dir, tmp_path):
    """From two short runs, the bytes of an answer; a long run has those of a whole batch, and no more."""
    examples = [Example(f"f{n:03}", "yn"[label], label, f"f{n:03}") for n in range(200) for label in (0, 1)]

    def plan(n: int):
        settings = RunSettings(
            tmp_path / "data.jsonl", base_dir, tmp_path / "out", n=n, alphas=(1.0,), checks=False, target="(?s).*"
        )
        return plan_run(settings, examples, steered, tiny_tokenizer())

    fewer, more, many = plan(2), plan(4), plan(40)
    batch = signature(sweep_model).parameters["batch_size"].default
    assert fewer.answers < more.answers < batch < many.answers and not many.pairs
    an_answer = (more.bytes - fewer.bytes) / (more.answers - fewer.answers)
    assert many.bytes - fewer.bytes == pytest.approx(an_answer * (batch - fewer.answers), abs=2)
