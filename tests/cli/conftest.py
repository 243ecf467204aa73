"""The command line, as a user runs it."""

import contextlib
import io
import sys

import pytest

from iti_llama.toolkit import cli
from iti_llama.toolkit.cli.options import console


def command(*arguments) -> tuple[int, str, str]:
    """Run the command at 80 columns; returns (exit code, standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["iti-llama", *map(str, arguments)])
        patch.setattr(console, "_width", 80)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    return stopped.value.code or 0, out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def run():
    return command
