"""Long work that a person can follow: quiet, what is next, and what Ctrl-C leaves."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import typer
from rich.console import Console

from iti_llama.toolkit.cli.app import app
from iti_llama.toolkit.cli.options import console, progress_bar
from iti_llama.toolkit.cli.sweep import sweep_plot
from iti_llama.toolkit.foundation.intervals import Estimate
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.sweep import Point, Rates


COMMAND = [sys.executable, "-m", "iti_llama.toolkit.cli"]


def commands(group=None):
    """By name, those of `dataset` and `reproduce` too; not `serve`, whose options are the server's."""
    found = {}
    for name, command in (group or typer.main.get_command(app)).commands.items():
        found |= commands(command) if hasattr(command, "commands") else {name: command}
    return {name: command for name, command in found.items() if name != "serve"}


@pytest.mark.parametrize("name", commands())
def test_every_command_can_be_quiet(name):
    assert any("--quiet" in parameter.opts for parameter in commands()[name].params)


def test_quiet_says_nothing_but_json_and_errors(run):
    assert run("info", "--quiet") == (0, "", "")
    code, out, err = run("info", "-q", "--json")
    assert code == 0 and json.loads(out)["form"] == "self-contained" and err == ""
    code, out, err = run("info", "/nowhere", "--quiet")
    assert code == 2 and out == "" and "/nowhere" in err
    assert run("info")[1]  # the next command is not quiet


def test_a_quiet_command_shows_no_progress(capsys):
    console.quiet = True
    try:
        with progress_bar(3) as advance:
            advance("capture", 3)
    finally:
        console.quiet = False
    assert capsys.readouterr() == ("", "")


def test_where_the_output_is_a_file_a_line_now_and_then_tells_of_the_progress(capsys, monkeypatch):
    for seconds, lines in ((0, ["read, after 0 minutes: 1 of 4", "draw 2 of 9, after 0 minutes"]), (60, [])):
        monkeypatch.setattr("iti_llama.toolkit.cli.options.SECONDS_BETWEEN_LINES", seconds)
        with progress_bar(4) as advance:
            advance("read", 1)
            advance("draw 2 of 9")
        out, err = capsys.readouterr()
        told = [line for line in err.splitlines() if line]
        assert out == "" and len(told) == len(lines)
        assert all(line.startswith(start) for line, start in zip(told, lines, strict=True)), told


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path):
    out = tmp_path / "out"
    command = [*COMMAND, "sweep", "--tasks", "corpus:validation", "--n", "60", "--out", str(out)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell makes background jobs deaf
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, preexec_fn=heard, **streams) as ours:
        deadline = time.time() + 100
        while not list(out.glob("*completions.jsonl")) and ours.poll() is None and time.time() < deadline:
            time.sleep(0.05)
        ours.send_signal(signal.SIGINT)
        said, err = ours.communicate(timeout=100)
    assert ours.returncode == 130, err
    assert f"interrupted: answers given so far are in {out}: the same command goes on from there" in err
    assert "Traceback" not in err and said == "" and not (out / "sweep.json").exists()


FIT = ["fit", "--base", ROOT, "--data", "DATA", "--out", "OUT", "--behaviour", ""]
RUN = ["run", "DATA", "--base", ROOT, "--out", "OUT", "--behaviour", "b"]


@pytest.mark.parametrize(
    "function,arguments,kept",
    [
        ("repo.fit_repo.fit_repo", FIT, "--cache DIR"),
        ("repo.fit_repo.fit_repo", [*FIT, "--cache", "C"], "activations read so far are in C"),
        ("repo.run_pipeline.fit_once", RUN, "nothing was written"),
        ("repo.run_pipeline.fit_once", [*RUN, "--out", "BEGUN"], "in BEGUN: the same"),
        ("export.export.export", ["export", ROOT, "--out", "OUT"], "OUT is as it was before"),
        ("convert.convert.convert", ["convert", "SOURCE", "--base", ROOT, "--out", "OUT"], "OUT is as it was before"),
        ("repo.push.push", ["push", ROOT, "me/mine"], "the Hub is as it was"),
        ("repo.verify.verify", ["verify", ROOT], "nothing was written"),
    ],
)
def test_each_command_says_its_own(run, tmp_path, monkeypatch, function, arguments, kept):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    data = tmp_path / "labels.jsonl"
    rows = [{"prompt": "p", "completion": f"c{i}", "label": i % 2, "group": f"g{i // 2}"} for i in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    Path("BEGUN.cache").mkdir()
    monkeypatch.setattr(f"iti_llama.toolkit.{function}", interrupted)
    code, out, err = run(*[data if one == "DATA" else one for one in arguments])
    assert code == 130 and kept in " ".join(err.split())
    assert out == "" or out.startswith(f"{data}: 8 rows: ")  # what was understood of the labelled set


def test_the_plot_of_a_sweep_shows_each_points_share():
    def rate(mean):
        return Estimate(mean, max(0, mean - 0.1), min(1, mean + 0.1), 20, 20)

    points = [
        Point(
            12, alpha, "all", Rates(rate(1 - share / 10), rate(share), rate(share)), None, None, share / 100, None, 1.0
        )
        for alpha, share in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0))
    ]
    printed = Console(width=80, record=True, file=io.StringIO())
    printed.print(sweep_plot(points, "idiomatic", "correct"))
    _, _, *lines = printed.export_text().splitlines()
    assert [line.count("\N{FULL BLOCK}") for line in lines] == [0, 15, 30]
    assert lines[1].split()[0] == "0.5" and "50.0%" in lines[1] and "95.0%" in lines[1] and "0.005" in lines[1]


def test_the_shell_completes_commands():
    environment = os.environ | {"_TYPER_COMPLETE_ARGS": "iti-llama ev", "_ITI_LLAMA_COMPLETE": "complete_zsh"}
    script = "from iti_llama.toolkit import cli; import sys; sys.argv = ['iti-llama']; cli.main()"
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "evaluate" in found.stdout, found
