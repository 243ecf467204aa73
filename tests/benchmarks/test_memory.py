"""benchmarks/memory.py still does each kind of work that docs/benchmarks.md has numbers of."""

import subprocess
import sys

from iti_llama.toolkit.foundation.package import ROOT


WORK = """
import memory
model, tokenizer = memory.tiny()
for name, work in memory.WORK.items():
    work(model, tokenizer, 4, "abcdefgh")
    print(name)
"""


def test_each_kind_of_work_runs():
    run = subprocess.run([sys.executable, "-c", WORK], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["score", "diverge", "choose", "rank_by_cause", "record"]
