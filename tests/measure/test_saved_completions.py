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
