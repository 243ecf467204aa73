"""Two processes on CPU (gloo): tensor parallel, FSDP2, pipeline; of the steered repo and of its plain checkpoint."""

import os
import subprocess
import sys

import pytest
import torch
import transformers
from reference import assert_close, hooks
from steered import steered_repo
from transformers import AutoModelForCausalLM

from iti_llama import ITIDirections
from iti_llama.toolkit.export.llama import export_llama
from iti_llama.toolkit.export.source import open_source


if int(transformers.__version__.split(".")[0]) < 5:
    pytest.skip("DistributedConfig with sizes is of transformers 5", allow_module_level=True)

SCRIPT = """
import sys, torch
import iti_llama
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig
iti_llama.register()
folder, out, kind = sys.argv[1:]
config = DistributedConfig(**{f"{kind}_size": 2}, **({"tp_plan": "auto"} if kind == "tp" else {}))
model = AutoModelForCausalLM.from_pretrained(folder, distributed_config=config).eval()
ids = torch.load(out + "/ids.pt")
with torch.no_grad():
    logits = model(ids, use_cache=False).logits
    logits = logits.full_tensor() if hasattr(logits, "full_tensor") else logits
torch.save(logits, f"{out}/{torch.distributed.get_rank()}.pt")
torch.distributed.barrier()
"""


@pytest.mark.parametrize("kind", ["tp", "fsdp", "pp"])
@pytest.mark.parametrize("form", ["repo", "plain"])
def test_two_processes_steer_as_one(form, kind, ids, tmp_path):
    repo = steered_repo(tmp_path)
    export_llama(open_source(repo), tmp_path / "plain")
    (tmp_path / "script.py").write_text(SCRIPT)
    torch.save(ids, tmp_path / "ids.pt")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tmp_path / form), str(tmp_path), kind],
        capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    with torch.no_grad(), hooks(base, ITIDirections.load(repo / "iti_directions.safetensors"), 1.5):
        want = base(ids).logits
    ranks = sorted(tmp_path.glob("?.pt"))
    found = [torch.load(rank) for rank in ranks]
    assert len(found) == 2
    for logits in found if kind != "pp" else found[-1:]:  # the last stage has the logits
        assert_close(logits, want)
