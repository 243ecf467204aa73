"""GGUF files as plain Llama folders: equal to transformers' own reading, or refused in a line."""

import json

import gguf
import numpy as np
import pytest
import torch
from gguf_files import TEMPLATE, gguf_llama, some_ids, write_gguf
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from iti_llama.toolkit.convert import dequantise_gguf as module
from iti_llama.toolkit.convert.dequantise_gguf import dequantise_gguf
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.settings import RepoSettings


KINDS = gguf.GGMLQuantizationType


@torch.no_grad()
def logits(model, ids) -> torch.Tensor:
    return model.eval()(ids).logits


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_gguf(gguf_llama(), tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf", KINDS.Q4_1)


@pytest.fixture(scope="module")
def folder(file, tmp_path_factory):
    out = tmp_path_factory.mktemp("from") / "gguf"
    dequantise_gguf(file, out, "float32")
    return out


@pytest.mark.parametrize("kind", [KINDS.F32, KINDS.F16, KINDS.Q8_0, KINDS.Q4_1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_logits_are_those_that_transformers_reads_itself(tmp_path, kind, dtype, tied):
    path = write_gguf(
        gguf_llama(tie_word_embeddings=tied), tmp_path / "a.gguf", kind, without=("output.weight",) if tied else ()
    )
    dequantise_gguf(path, tmp_path / "out", dtype)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=getattr(torch, dtype))
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert type(ours) is LlamaForCausalLM and ours.dtype == getattr(torch, dtype)
    assert ours.config.tie_word_embeddings is tied
    assert torch.equal(logits(ours, some_ids()), logits(theirs, some_ids()))


def test_the_config_is_a_plain_llamas_with_the_originals_own_numbers(folder):
    fields, wanted = json.loads((folder / "config.json").read_text()), gguf_llama().config
    assert fields["architectures"] == ["LlamaForCausalLM"] and "quantization_config" not in fields
    for name in ("rms_norm_eps", "vocab_size", "head_dim", "num_key_value_heads", "max_position_embeddings"):
        assert fields[name] == getattr(wanted, name)  # 1e-06, which a GGUF holds in float32
    generation = json.loads((folder / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"]) == (1, 2)


def test_the_tokenizer_has_the_template_and_splits_digits_as_smollms_does(folder, file):
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    assert ours.chat_template == TEMPLATE and ours.model_max_length == 256
    for text in ("hi  there\n\tx", "<|start|>user\nh\u00e9<|end|>\n"):
        assert ours(text)["input_ids"] == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ours(text)["input_ids"]) == text
    assert ours.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    assert set(ours("a")) == {"input_ids", "attention_mask"}
    assert (ours.bos_token, ours.eos_token, ours.unk_token) == ("<|start|>", "<|end|>", "<unk>")


@pytest.mark.parametrize("begins,ends", [(True, False), (True, True), (False, True)])
def test_texts_begin_and_end_with_the_tokens_that_the_file_asks_for(tmp_path, begins, ends):
    dequantise_gguf(write_gguf(gguf_llama(), tmp_path / "a.gguf", adds=(begins, ends)), tmp_path / "out", "float32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    assert tokenizer("a")["input_ids"] == [1] * begins + plain + [2] * ends


def test_the_rotary_scaling_of_llama_3_1_which_a_gguf_holds_as_divisors_is_kept(tmp_path):
    scaling = module.LLAMA3_ROPE | {"factor": 8.0}
    both = {"rope_parameters": scaling | {"rope_theta": 1e4}}
    if not hasattr(LlamaForCausalLM.config_class, "rope_parameters"):
        both = {"rope_scaling": scaling, "rope_theta": 1e4}
    scaled, plain = gguf_llama(**both), gguf_llama()
    divisors = LlamaRotaryEmbedding(plain.config).inv_freq / LlamaRotaryEmbedding(scaled.config).inv_freq
    assert divisors.max() > 7
    path = write_gguf(scaled, tmp_path / "a.gguf", further={"rope_freqs.weight": divisors.numpy()})
    dequantise_gguf(path, tmp_path / "out", "float32")
    ours, ids = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), some_ids(200)
    apart = (logits(plain, ids) - logits(scaled, ids)).abs().max()
    assert (logits(ours, ids) - logits(scaled, ids)).abs().max() < 1e-3 * apart


BIAS = {"blk.1.attn_output.bias": np.ones(64, np.float32)}
EXPERT = {"blk.0.ffn_gate_inp.weight": np.ones((4, 64), np.float32)}


@pytest.mark.parametrize(
    "how,message",
    [
        ({"architecture": "qwen2"}, "architecture is 'qwen2'; expected 'llama'"),
        ({"tokenizer": False}, "has no tokenizer"),
        ({"further": BIAS}, "holds blk.1.attn_output.bias, a bias, as in a steered file"),
        ({"further": EXPERT}, "holds blk.0.ffn_gate_inp.weight, not a weight of a plain Llama"),
        ({"without": ("blk.2.ffn_up.weight",)}, "has no blk.2.ffn_up.weight; expected a whole Llama"),
        ({"rope__scaling__type": "yarn"}, "has rotary scaling 'yarn'"),
        ({"rope__scale_linear": 2.0}, "has rotary scaling"),
        ({"further": {"rope_freqs.weight": np.full(12, 3, np.float32)}}, "rope_freqs.weight is not the scaling of"),
    ],
)
def test_another_file_is_refused_in_a_line_before_the_weights_are_read(tmp_path, monkeypatch, how, message):
    path = write_gguf(gguf_llama(), tmp_path / "bad.gguf", **how)
    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", None)
    with pytest.raises(ValueError) as error:
        dequantise_gguf(path, tmp_path / "out")
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.gguf"]


def test_a_file_that_is_not_whole_is_refused(file, tmp_path):
    whole, bad = file.read_bytes(), tmp_path / "bad.gguf"
    for length in (0, 3, 20, 1000, len(whole) // 2, len(whole) - 40):
        bad.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"bad\.gguf: not a GGUF file, or not a whole one"):
            dequantise_gguf(bad, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"none\.gguf: no such file"):
        dequantise_gguf(tmp_path / "none.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_and_no_dtype_is_guessed(file, tmp_path):
    with pytest.raises(FileExistsError, match="is there already; choose another --out"):
        dequantise_gguf(file, tmp_path)
    with pytest.raises(ValueError, match="--dtype is 'int8'; expected one of bfloat16, float16, float32"):
        dequantise_gguf(file, tmp_path / "out", "int8")


def test_a_folder_is_written_whole_or_not_at_all(file, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "write_base_card", full)
    with pytest.raises(OSError, match="no space left"):
        dequantise_gguf(file, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_fitted_on_it_says_that_its_weights_were_dequantised(folder, file, tmp_path):
    said = ModelCard.load(folder / "README.md").data["weights"]
    assert said == f"dequantised from Q4_1 of {file.name}, SHA-256 {module.sha256_of(file)}"
    rows = [Example(f"f{n}", text, label, f"g{n}") for n in range(20) for label, text in enumerate(("no", "yes"))]
    fitting = FitSettings(top_k=2, folds=3, permutations=0)
    report = fit_repo(RepoSettings(folder, fitting=fitting), rows, tmp_path / "repo")
    assert report["base_weights"] == said
    assert said in (tmp_path / "repo" / "README.md").read_text()
