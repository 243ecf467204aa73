"""Two processes on CPU (gloo): tensor parallel, FSDP2, pipeline; of the steered repo and of its plain checkpoint."""

from dataclasses import replace

import pytest
import torch
import transformers
from apart import run_in_two
from reference import assert_close, hooks
from steered import steered_repo
from transformers import AutoModelForCausalLM

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.generation_iti_llama import record_heads
from iti_llama.iti_directions import ITIGate
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


GATED = """
import sys, torch
from iti_llama import ITILlamaForCausalLM
model = ITILlamaForCausalLM.from_pretrained(sys.argv[1], tp_plan="auto").eval()
ids = torch.load(sys.argv[2] + "/ids.pt")
tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, min_new_tokens=8, do_sample=False)
torch.save(tokens, f"{sys.argv[2]}/{torch.distributed.get_rank()}.pt")
torch.distributed.barrier()
"""


def test_a_gate_decides_the_same_under_tensor_parallelism(ids, tmp_path):
    """Each rank holds half of the heads that the gate reads."""
    repo = steered_repo(tmp_path)
    model = ITILlamaForCausalLM.from_pretrained(repo).eval()
    generator = torch.Generator().manual_seed(3)
    read, threshold = torch.tensor([[1, 0], [1, 3], [2, 2]]), torch.zeros(2)
    gate = ITIGate(read, torch.randn(3, 24, generator=generator), torch.zeros(1), threshold)
    heads = record_heads(model.model, lambda heads: heads[:, -1], input_ids=ids)
    scores = torch.zeros(3)
    for (layer, head), weights in zip(read.tolist(), gate.weights, strict=True):
        scores += heads[layer].view(3, 4, 24)[:, head] @ weights
    gate = replace(gate, threshold=scores.sort()[0][1].repeat(2))
    model.set_iti_directions(replace(model.iti_directions, gate=gate))
    model.save_pretrained(repo)
    torch.save(ids, tmp_path / "ids.pt")
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    alone = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    run_in_two(GATED, repo, tmp_path)
    for rank in (0, 1):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), alone)
