"""Engines that read the plain checkpoint of `export --to llama`, each in its own environment: `make test-engines`.
`ITI_ENGINES` names that environment's Python. Compared are the log-probabilities of the next token with hooks."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from real_model import need_smollm2
from reference import hooks
from transformers import AutoTokenizer

import iti_llama
from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.foundation.package import ROOT


PYTHON = os.environ.get("ITI_ENGINES")
pytestmark = pytest.mark.skipif(not PYTHON, reason="ITI_ENGINES names no Python; see `make test-engines`")

SCRIPTS = {
    "mlx": """
import json, sys
import mlx.core as mx, mlx.nn as nn, mlx_lm
from mlx_lm.utils import load_model
from pathlib import Path
model, _ = load_model(Path(sys.argv[1]))
logits = model(mx.array([json.loads(sys.argv[2])]))[0, -1]
print(json.dumps([mlx_lm.__version__, nn.log_softmax(logits.astype(mx.float32)).tolist()]))
""",
    "ctranslate2": """
import json, sys, tempfile
import ctranslate2, numpy
from ctranslate2.converters import TransformersConverter
from transformers import AutoTokenizer
with tempfile.TemporaryDirectory() as holder:
    TransformersConverter(sys.argv[1]).convert(holder + "/model", quantization="float32")
    generator = ctranslate2.Generator(holder + "/model", device="cpu", compute_type="float32")
    tokens = AutoTokenizer.from_pretrained(sys.argv[1]).convert_ids_to_tokens(json.loads(sys.argv[2]))
    logits = numpy.array(generator.forward_batch([tokens]))[0, -1].astype("float64")
logs = logits - logits.max()
print(json.dumps([ctranslate2.__version__, (logs - numpy.log(numpy.exp(logs).sum())).tolist()]))
""",
    "onnxruntime_genai": """
import json, subprocess, sys, tempfile
import numpy, onnxruntime_genai
with tempfile.TemporaryDirectory() as holder:
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", sys.argv[1], "-o", holder + "/model"]
    subprocess.run(command + ["-p", "fp32", "-e", "cpu"], check=True, stdout=sys.stderr)
    model = onnxruntime_genai.Model(holder + "/model")
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=200)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(json.loads(sys.argv[2]))
    logits = numpy.asarray(generator.get_logits(), dtype="float64")
    logits = logits.reshape(-1, logits.shape[-1])[-1]
logs = logits - logits.max()
print(json.dumps([onnxruntime_genai.__version__, (logs - numpy.log(numpy.exp(logs).sum())).tolist()]))
""",
}


BASES = {
    "bundled": (ROOT, 'def is_prime(n):\n    """Check if a number is prime."""\n'),
    "smollm2": (ROOT / "examples" / "smollm2" / "brief", "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n"),
}
"""A steered repo, and a prompt: the small model that this repo bundles, and SmolLM2-135M-Instruct."""


@pytest.fixture(scope="module", params=BASES)
def exported(request, tmp_path_factory):
    """(the folder of two plain checkpoints, the prompt's ids, and by name the log-probabilities after it by hooks)."""
    (repo, prompt), folder, base = BASES[request.param], tmp_path_factory.mktemp("engines"), {}
    if request.param == "smollm2":
        need_smollm2()
        base = {"base_model_name_or_path": str(iti_llama.smollm2("float32"))}
    model = ITILlamaForCausalLM.from_pretrained(repo, **base, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(repo)
    if base:
        repo = folder / "repo"
        model.save_pretrained(repo)
        tokenizer.save_pretrained(repo)
    name = "HuggingFaceTB/SmolLM2-135M-Instruct" if base else None
    for form, alpha in (("steered", None), ("plain", 0.0)):
        export(repo, "llama", folder / form, alpha=alpha, base_name=name, with_canary=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    directions, alpha = model.iti_directions.top(model.iti_top_k), model.iti_alpha
    model.set_iti_directions(None)

    @torch.no_grad()
    def logs(strength: float) -> np.ndarray:
        with hooks(model, directions, strength):
            return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()

    return folder, ids, {"plain": logs(0.0), "steered": logs(alpha)}


@pytest.mark.parametrize("engine", SCRIPTS)
def test_an_engine_steers_as_hooks_do(engine, exported):
    folder, ids, want = exported
    for name, logs in want.items():
        command = [PYTHON, "-c", SCRIPTS[engine], str(folder / name), json.dumps(ids)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert found.returncode == 0, found.stderr[-3000:]
        version, answer = json.loads(found.stdout.strip().splitlines()[-1])
        assert len(answer) == len(logs)
        worst = np.abs(np.array(answer) - logs).max()
        print(
            f"{engine} {version}, {name}: {worst:.1e} from hooks; {np.abs(logs - want['plain']).max():.1f} from plain"
        )
        assert worst < 1e-4
