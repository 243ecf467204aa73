"""`make bench` at a tiny shape, without peers: which ways of decoding give the tokens of hooks on plain Llama."""

import json
import subprocess
import sys

from iti_llama.toolkit.foundation.package import ROOT


PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np, torch
from peer_ways import WAYS, loaded
from peers import decodings
from side_by_side import prepare

folder = Path(sys.argv[1])
prepare(folder, "tiny", 6, 8)
held = np.load(folder / "reference.npz")
prompts, plain = torch.from_numpy(held["prompts"]), loaded(folder)
names = ("iti-llama", "plain again")
print(json.dumps({name: decodings(WAYS[name](folder).generate, plain, prompts, 8, held) for name in names}))
"""


def test_this_model_gives_the_tokens_of_hooks_in_all_ways_at_both_scopes_and_plain_llama_does_not(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    ours, plain = found["iti-llama"], found["plain again"]
    assert {scope: set(ways.values()) for scope, ways in ours.items()} == {"all": {"right"}, "generated": {"right"}}
    assert [len(ways) for ways in ours.values()] == [8, 8]
    assert plain["all"]["greedy"] == "wrong" and set(plain["generated"].values()) == {"not offered"}
