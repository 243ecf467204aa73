"""Two processes on CPU (gloo): tensor parallel, FSDP2, pipeline; of the steered repo and of its plain checkpoint."""

import pytest
import torch
import transformers
from apart import run_in_two
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
    torch.save(ids, tmp_path / "ids.pt")
    run_in_two(SCRIPT, tmp_path / form, tmp_path, kind)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    with torch.no_grad(), hooks(base, ITIDirections.load(repo / "iti_directions.safetensors"), 1.5):
        want = base(ids).logits
    ranks = sorted(tmp_path.glob("?.pt"))
    found = [torch.load(rank) for rank in ranks]
    assert len(found) == 2
    for logits in found if kind != "pp" else found[-1:]:  # the last stage has the logits
        assert_close(logits, want)
