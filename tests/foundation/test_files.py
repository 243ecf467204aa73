"""Files that are written whole, and rows that a kill cut off."""

import pytest

from iti_llama.toolkit.foundation.files import read_rows, write_text


def test_a_text_is_written_whole_or_not_at_all(tmp_path):
    path = write_text(tmp_path / "new" / "a.txt", "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_bytes() == "ä\n".encode() and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_the_last_row_may_be_cut_off_and_no_other(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    path.write_text('{"a": 1}\n\n{"a": 2}\n{"a": ')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": \n{"a": 2}\n')
    with pytest.raises(ValueError, match="line 1: not JSON"):
        read_rows(path)
