"""NeoCoder: reading its files, running its solutions, labelling them."""

import functools
import hashlib
import http.server
import threading

import pytest
from neocoder_files import REAL, real

from iti_llama.toolkit.neocoder.problems import FILES, fetch, load, parse_samples


def test_states_that_repeat_are_left_out_and_the_first_has_no_constraints(problems):
    assert [len(problem.statements) for problem in problems] == [2, 2]
    assert problems[0].constraints == (frozenset(), frozenset({"for loop"}))
    assert "- \n" not in problems[0].statements[1]


def test_samples_come_from_the_statement():
    raw = "Text\nExamples\nInput\n1 2\n3\nOutput\nYES\nInput\n4\nOutput\nNO\nno\nNote\nInput\nx\nOutput\ny"
    assert parse_samples(raw) == (("1 2\n3\n", "YES"), ("4\n", "NO\nno"))


def test_missing_and_foreign_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no NeoCoder\.json"):
        load(tmp_path)
    for name in FILES:
        (tmp_path / name).write_text("[{}]")
    with pytest.raises(ValueError, match="not NeoCoder's files"):
        load(tmp_path)


def test_files_are_downloaded_once_and_checked(folder, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ValueError, match=r"NeoCoder\.json: SHA-256 is [0-9a-f]{64}; expected 00"):
            fetch(url, tmp_path, {"NeoCoder.json": "00"})
        assert not (tmp_path / "NeoCoder.json").exists()
        sums = fetch(url, tmp_path)
        server.shutdown()
    assert sums == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    assert fetch("http://127.0.0.1:9", tmp_path, sums) == sums  # from the folder, with nobody there to ask
    assert len(load(tmp_path)) == 2


@real
def test_the_real_files_are_read_whole():
    problems = load(REAL)
    assert len(problems) == 160
    assert all(problem.samples for problem in problems)
    assert all(len(problem.humans) == len(problem.human_labels) for problem in problems)
