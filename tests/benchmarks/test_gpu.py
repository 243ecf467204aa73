"""`make gpu` without the card: the same command at a tiny shape on the CPU, so that only the card is missing."""

import re

import pytest
import torch
from apart import run_apart

from iti_llama.toolkit.foundation.package import ROOT


COMMAND = """
import runpy
runpy.run_path("gpu.py", run_name="__main__")
"""
TINY = ["--shape", "tiny", "--device", "cpu", "--rounds", "2", "--batch", "1", "2", "--prompt", "8", "--rows", "6"]


def test_parts_run_and_are_written_down(tmp_path):
    out, parts = tmp_path / "gpu.md", ["speed", "capture", "forms"]
    arguments = [*TINY, "--attention", "sdpa", "--no-compile", "--parts", ",".join(parts), "--out", str(out)]
    done = run_apart(COMMAND, *arguments, cwd=ROOT / "benchmarks")
    written = out.read_text()
    assert done.returncode == 0, done.stderr + written
    assert re.findall(r"^## (\w+)", written, re.MULTILINE) == parts and "failed" not in written
    for name in ("eager, batch 1, prefill, steered", "eager, batch 2, decode, steered", "load time"):
        assert name in written
    assert f"torch {torch.__version__}" in written and "no card" in written
    apart = [float(value) for value in re.findall(r"\| (\d[\d.e+-]*) \|$", written.split("## forms")[1], re.MULTILINE)]
    assert len(apart) == 2 and all(value < 1e-3 for value in apart)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so_and_unknown_parts_are_refused():
    done = run_apart(COMMAND, cwd=ROOT / "benchmarks")
    assert done.returncode == 2 and "no CUDA device" in done.stderr
    done = run_apart(COMMAND, "--parts", "decoding,everything", cwd=ROOT / "benchmarks")
    assert done.returncode == 2 and "everything; there are demo" in done.stderr


COMPILED = """
import torch
from decode import SHAPES, build, run

_, steered, _ = build(SHAPES["tiny"], 6, "cpu", torch.float32)
prefill, decode = run(steered, torch.tensor([[5, 6, 7, 8]]), 2, torch.compile(steered, backend="eager"), 4)
assert prefill > 0 and decode > 0
"""


def test_a_compiled_step_is_timed():
    done = run_apart(COMPILED, cwd=ROOT / "benchmarks")
    assert done.returncode == 0, done.stderr
