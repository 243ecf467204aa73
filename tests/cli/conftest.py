"""The command line, as a user runs it."""

import sys

import pytest

from iti_llama.toolkit import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command as a user would; returns (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["iti-llama", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return call
