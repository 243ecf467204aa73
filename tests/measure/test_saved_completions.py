"""Completions on disk belong to one run."""

import pytest

from iti_llama.toolkit.measure.saved_completions import SavedCompletions


def test_what_was_added_is_there_again_for_the_same_settings_only(tmp_path):
    path = tmp_path / "new" / "c.jsonl"
    store = SavedCompletions(path, {"alpha": 1})
    store.add([("plain", 0, 0, "a"), ("plain", 1, 0, "b")])
    with path.open("a") as file:
        file.write('{"condition": "pl')  # cut off by a kill
    again = SavedCompletions(path, {"alpha": 1})
    assert (again.get("plain", 1, 0), again.get("plain", 2, 0)) == ("b", None)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another run"):
        SavedCompletions(path, {"alpha": 2})
    assert path.read_bytes() == before


def test_without_a_path_nothing_is_kept_on_disk():
    store = SavedCompletions(None, {})
    store.add([("plain", 0, 0, "a")])
    assert store.get("plain", 0, 0) == "a"


def test_a_run_that_goes_on_after_a_full_disk_leaves_the_file_of_one_that_never_stopped(tmp_path):
    rows = [("plain", index, sample, "x" * index) for index in range(4) for sample in range(2)]
    whole = SavedCompletions(tmp_path / "whole.jsonl", {"alpha": 1})
    whole.add(rows)
    expected = whole.path.read_bytes()
    for kept in range(len(expected)):  # what the disk took
        path = tmp_path / "cut.jsonl"
        path.write_bytes(expected[:kept])
        SavedCompletions(path, {"alpha": 1}).add(rows)
        assert path.read_bytes() == expected


def test_rows_that_an_earlier_version_wrote_twice_are_written_once(tmp_path):
    store = SavedCompletions(tmp_path / "c.jsonl", {})
    store.add([("plain", 0, 0, "a"), ("plain", 1, 0, "b")])
    expected = store.path.read_bytes()
    store.path.write_bytes(expected + expected.splitlines(keepends=True)[1])
    SavedCompletions(store.path, {})
    assert store.path.read_bytes() == expected
