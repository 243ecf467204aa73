"""The parts of a labelled set that a repo keeps: none shares a group with another."""

import numpy as np
import pytest

from iti_llama.toolkit.data.labelled_set import Example, read_examples
from iti_llama.toolkit.measure.keep_labelled_set import FILE, keep_labelled_set, read_parts


def rows(groups: int) -> list[Example]:
    return [Example("p", f"c{i}", i % 2, f"g{i // 3}", meta={"from": "x"}) for i in range(3 * groups)]


def held_out(examples, groups: int) -> np.ndarray:
    names = {f"g{number}" for number in range(groups)}
    return np.array([row for row, example in enumerate(examples) if example.group in names])


@pytest.mark.parametrize("groups", [2, 3, 8])
def test_the_parts_cover_every_row_and_share_no_group(groups, tmp_path):
    examples = rows(20)
    keep_labelled_set(examples, held_out(examples, groups), 0, tmp_path)
    parts = {part: read_parts(tmp_path, part) for part in ("fit", "validation", "test")}
    assert sorted(e.completion for own in parts.values() for e in own) == sorted(e.completion for e in examples)
    names = [{e.group for e in own} for own in parts.values()]
    assert all(names) and sum(map(len, names)) == len(set.union(*names)) == 20
    assert names[1] | names[2] == {f"g{number}" for number in range(groups)}
    assert all(e.meta == {"from": "x", "part": part} for part, own in parts.items() for e in own)


def test_rows_stay_in_their_order_and_the_seed_decides(tmp_path):
    examples, found = rows(20), []
    for number, seed in enumerate((0, 0, 1)):
        keep_labelled_set(examples, held_out(examples, 8), seed, tmp_path / str(number))
        kept = read_examples(tmp_path / str(number) / FILE)
        assert [e.completion for e in kept] == [e.completion for e in examples]
        found.append([e.meta["part"] for e in kept])
    assert found[0] == found[1] != found[2]


def test_several_parts_are_read_together(tmp_path):
    examples = rows(10)
    keep_labelled_set(examples, held_out(examples, 4), 0, tmp_path)
    both = read_parts(tmp_path, "validation", "test")
    assert len(both) == 12 and {e.meta["part"] for e in both} == {"validation", "test"}


def test_one_held_out_group_is_for_measuring_and_choosing_on_none_is_refused(tmp_path):
    examples = rows(10)
    keep_labelled_set(examples, held_out(examples, 1), 0, tmp_path)
    assert {e.group for e in read_parts(tmp_path, "test")} == {"g0"}
    with pytest.raises(ValueError, match="no rows of validation; add groups"):
        read_parts(tmp_path, "validation")
