"""A repo is put on disk whole or not at all, and nothing else is overwritten."""

import pytest

from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.folder import CODE, check_out, copy_tokenizer, new_folder, only_run


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        (folder / "config.json").write_text('{"model_type": "iti_llama"}')
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["config.json"]


def test_only_a_steered_repo_is_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        check_out(tmp_path)
    with pytest.raises(FileExistsError, match="is not overwritten"):
        check_out(tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file"):
        check_out(tmp_path / "notes.txt")


def test_what_another_command_wrote_meanwhile_is_left_alone(tmp_path):
    with pytest.raises(FileExistsError, match="is not empty"), new_folder(tmp_path / "out") as folder:
        (folder / "config.json").write_text("mine")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "config.json").write_text("theirs")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["theirs"]


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_over(tmp_path):
    refused = pytest.raises(FileExistsError, match="another run is writing there")
    with only_run(tmp_path / "out"), only_run(tmp_path / "other"), refused, only_run(tmp_path / "x/../out"):
        pass
    with only_run(tmp_path / "out"):
        assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=f"nothing can be written into {tmp_path / 'file'}"):
        check_out(tmp_path / "file" / "out")


def test_tokenizer_files_are_copied_byte_for_byte(tmp_path):
    copy_tokenizer(ROOT, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (ROOT / "tokenizer.json").read_bytes()
    assert all((ROOT / name).is_file() for name in CODE)
