"""The files of a repo, one by one."""

import os

import pytest

from iti_llama.toolkit.repo.open_repo import open_repo


def test_files_and_links_are_listed_and_git_is_not(tmp_path):
    for name in ("a.txt", "sub/b.txt", ".git/config", ".hidden/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    os.symlink(tmp_path / "nothing", tmp_path / "link")
    opened = open_repo(tmp_path)
    assert opened.names() == (".hidden/c", "a.txt", "link", "sub/b.txt")
    assert opened.get("sub/b.txt").read_text() == "x"
    with pytest.raises(FileNotFoundError, match="no c.txt"):
        opened.get("c.txt")


@pytest.mark.parametrize("text,said", [("{", "not JSON"), ("[]", "list; expected an object"), ("\xff", "not JSON")])
def test_a_config_that_is_no_object_is_named(tmp_path, text, said):
    (tmp_path / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=f"config.json: {said}"):
        open_repo(tmp_path).config()


def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_repo(tmp_path / "nothing")
