"""`iti-llama from-gguf`, and what every command says of a GGUF file that is given as a base."""

import json

import pytest
from gguf_files import gguf_llama, write_gguf

from iti_llama.toolkit.foundation.files import folder_of


def test_a_gguf_becomes_a_base(run, tmp_path):
    path = write_gguf(gguf_llama(), tmp_path / "a.gguf")
    code, out, _ = run("from-gguf", path, "--out", tmp_path / "base", "--dtype", "float32")
    assert code == 0 and "its weights read from F32 of a.gguf" in out and f"--base {tmp_path / 'base'}" in out
    assert json.loads((tmp_path / "base" / "config.json").read_text())["dtype"] == "float32"
    code, _, error = run("from-gguf", path, "--out", tmp_path / "base")
    assert code == 2 and "is there already; choose another --out" in error


@pytest.mark.parametrize("command", ["fit", "run"])
def test_a_gguf_as_a_base_is_answered_with_the_command(run, tmp_path, command):
    data = tmp_path / "d.jsonl"
    data.write_text("{}")
    given = ["--data", data] if command == "fit" else [data]
    code, _, error = run(command, *given, "--base", "x.gguf", "--out", tmp_path / "out", "--behaviour", "x")
    assert code == 2 and "iti-llama from-gguf x.gguf --out DIR" in error


def test_a_gguf_is_no_folder_and_no_name_of_a_repo():
    with pytest.raises(ValueError, match=r"base owner/x\.gguf: a GGUF file; `iti-llama from-gguf owner/x\.gguf"):
        folder_of("owner/x.gguf", "base ")
