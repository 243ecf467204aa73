"""Engines that read the plain checkpoint of `export --to llama`, each in its own environment: `make test-engines`.
`ITI_ENGINES` names that environment's Python. Compared are the log-probabilities of the next token with hooks."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from reference import hooks
from transformers import AutoTokenizer

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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    export(ROOT, "llama", folder / "steered")
    export(ROOT, "llama", folder / "plain", alpha=0.0)
    return folder


@pytest.fixture(scope="module")
def reference():
    model = ITILlamaForCausalLM.from_pretrained(ROOT).eval()
    directions, alpha = model.iti_directions, model.iti_alpha
    model.set_iti_directions(None)
    ids = AutoTokenizer.from_pretrained(ROOT)('def is_prime(n):\n    """Check if a number is prime."""\n')["input_ids"]

    @torch.no_grad()
    def logs(strength: float) -> np.ndarray:
        with hooks(model, directions, strength):
            return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()

    return ids, {"plain": logs(0.0), "steered": logs(alpha)}


@pytest.mark.parametrize("engine", SCRIPTS)
def test_an_engine_steers_as_hooks_do(engine, exported, reference, record_property):
    ids, want = reference
    for name, logs in want.items():
        command = [PYTHON, "-c", SCRIPTS[engine], str(exported / name), json.dumps(ids)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert found.returncode == 0, found.stderr[-3000:]
        version, answer = json.loads(found.stdout.strip().splitlines()[-1])
        assert len(answer) == len(logs)
        worst = np.abs(np.array(answer) - logs).max()
        print(
            f"{engine} {version}, {name}: {worst:.1e} from hooks; {np.abs(logs - want['plain']).max():.1f} from plain"
        )
        assert worst < 1e-4
