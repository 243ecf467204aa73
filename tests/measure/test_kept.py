"""What is kept of an instruction's effect, by the answers that the base gives with it and without it."""

import numpy as np
import pytest

from iti_llama.toolkit.foundation.intervals import estimate
from iti_llama.toolkit.measure.kept import AnswerClassifier, kept_share, shape_of


GROUPS = [str(number) for number in range(30)]


def long_answers(start: int, n: int = 30) -> list[str]:
    return [f"It depends on the {i} of it. There are many ways to see this, and some take long." for i in
            range(start, start + n)]  # fmt: skip


def short_answers(start: int, n: int = 30) -> list[str]:
    return [f"Use {i}." for i in range(start, start + n)]


def test_plain_answers_keep_nothing_told_ones_all_and_there_is_a_way_between_and_beyond():
    random = np.random.default_rng(1)
    plain = random.normal(-2, 1, 30)
    told = plain + random.uniform(2, 4, 30)
    for share in (0, 0.5, 1, 1.7, -0.4):
        kept = kept_share(plain + share * (told - plain), plain, told, GROUPS)
        assert (kept.mean, kept.low, kept.high) == pytest.approx((share,) * 3, abs=1e-9)


def test_its_interval_is_that_of_the_steps_where_every_prompt_has_the_same_way():
    random = np.random.default_rng(2)
    plain, steps, groups = random.normal(0, 1, 60), random.normal(1, 1, 60), [*GROUPS, *GROUPS]
    kept, steps = kept_share(plain + steps, plain, plain + 4, groups), estimate(steps / 4, groups)
    assert (kept.mean, kept.low, kept.high) == pytest.approx((steps.mean, steps.low, steps.high))
    assert (kept.n, kept.groups) == (60, 30)


def test_an_instruction_without_an_effect_has_none_to_keep():
    with pytest.raises(ValueError, match="no effect to keep"):
        kept_share([1.0] * 30, [0.5] * 30, [0.5] * 30, GROUPS)


def test_the_classifier_tells_what_it_did_not_see_and_says_where_it_cannot():
    classifier = AnswerClassifier.fit(long_answers(0), short_answers(0))
    assert classifier.error(long_answers(50), short_answers(50), GROUPS).mean == 0
    assert classifier.target().score(["", ""], [short_answers(80)[0], long_answers(80)[0]]) == [1.0, 0.0]
    same = AnswerClassifier.fit(long_answers(0), long_answers(100))
    assert same.error(long_answers(200), long_answers(300), GROUPS).mean == pytest.approx(0.5, abs=0.25)


def test_the_shape_of_a_text_is_counted():
    shape = shape_of(["Ab c.\n\n12", ""])
    logs = np.log1p([9, 3, 2, 3])
    assert shape[0].tolist() == pytest.approx([*logs, 1 / 9, 2 / 9, 1 / 9, 2, 0])
    assert shape[1].tolist() == pytest.approx([0.0] * 9)
