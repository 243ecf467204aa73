"""GGUF, run by llama.cpp itself (xllamacpp): the whole model, and the steering added to a file of the base."""

import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import hooks, some_directions
from steered import steered_repo
from transformers import AutoModelForCausalLM, AutoTokenizer

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.convert.dequantise_gguf import dequantise_gguf
from iti_llama.toolkit.export.export import check_base_of, export
from iti_llama.toolkit.export.gguf_file import LLAMA_3, export_gguf, split_name
from iti_llama.toolkit.export.gguf_patch import patch_gguf
from iti_llama.toolkit.export.select_behaviours import ExportError
from iti_llama.toolkit.export.source import open_source
from iti_llama.toolkit.foundation.package import ROOT


gguf = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


def in_llama_cpp(path, ids) -> np.ndarray:
    from iti_llama.toolkit.export.forms import InLlamaCpp

    return InLlamaCpp(path).next_token(ids)


@torch.no_grad()
def logs(model, ids) -> np.ndarray:
    return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()


@pytest.fixture(scope="module")
def bundled():
    """The bundled model's plain base, its directions, and tokens."""
    model = ITILlamaForCausalLM.from_pretrained(ROOT).eval()
    ids = AutoTokenizer.from_pretrained(ROOT)('def is_prime(n):\n    """Check if a number is prime."""\n')["input_ids"]
    alpha, directions = model.iti_alpha, model.iti_directions
    model.set_iti_directions(None)
    with hooks(model, directions, alpha):
        steered = logs(model, ids)
    return ids, logs(model, ids), steered


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Steered in float32, plain in float32 and q8_0, and the latter two with the steering added."""
    folder = tmp_path_factory.mktemp("gguf")
    export_gguf(open_source(ROOT), folder / "steered.gguf")
    for kind in ("f32", "q8_0"):
        export_gguf(open_source(ROOT, alpha=0.0), folder / f"plain-{kind}.gguf", kind)
        patch_gguf(ROOT, folder / f"plain-{kind}.gguf", folder / f"patched-{kind}.gguf")
    return folder


def test_llama_cpp_steers_as_hooks_do(files, bundled):
    ids, plain, steered = bundled
    assert np.abs(steered - plain).max() > 1
    for name, want in (("steered", steered), ("patched-f32", steered), ("plain-f32", plain)):
        assert np.abs(in_llama_cpp(files / f"{name}.gguf", ids) - want).max() < 1e-4


def test_a_quantised_file_is_no_further_from_steered_than_it_was_from_plain(files, bundled):
    ids, plain, steered = bundled
    before = np.abs(in_llama_cpp(files / "plain-q8_0.gguf", ids) - plain).max()
    after = np.abs(in_llama_cpp(files / "patched-q8_0.gguf", ids) - steered).max()
    assert after < 1.5 * before < 0.5


def rewritten(old, new, keep=lambda name: True, **numbers: int):
    """The tensors of `old` that are to be kept, with all its fields and further ones, as the file `new`."""
    reader, writer = gguf.GGUFReader(old), gguf.GGUFWriter(new, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != gguf.Keys.General.ARCHITECTURE:
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for name, number in numbers.items():
        writer.add_uint16(name.replace("_", "."), number)
    for tensor in reader.tensors:
        if keep(tensor.name):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    return new


def test_a_file_without_biases_is_given_them(files, bundled, tmp_path):
    old = rewritten(files / "plain-f32.gguf", tmp_path / "old.gguf", lambda name: not name.endswith(".bias"))
    assert not [tensor.name for tensor in gguf.GGUFReader(old).tensors if tensor.name.endswith(".bias")]
    patch_gguf(ROOT, old, tmp_path / "new.gguf")
    ids, plain, steered = bundled
    for path, want in ((old, plain), (tmp_path / "new.gguf", steered)):
        assert np.abs(in_llama_cpp(path, ids) - want).max() < 1e-4


@pytest.mark.parametrize("name", ["typed", None])
def test_a_behaviour_brings_its_own_heads_and_one_without_alpha_has_1(name, files, tmp_path):
    """By name alone, and in the mix, whose shifts are added."""
    model = ITILlamaForCausalLM.from_pretrained(ROOT)
    directions = model.iti_directions
    flipped = replace(directions, directions=-directions.directions.flip(0), heads=directions.heads.flip(0))
    fields = json.loads((ROOT / "config.json").read_text()) | {"iti_behaviours": {"typed": {"top_k": 2}}}
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "config.json").write_text(json.dumps(fields))
    shutil.copy(ROOT / "iti_directions.safetensors", tmp_path / "repo")
    flipped.save(tmp_path / "repo" / "iti_directions.typed.safetensors")
    patch_gguf(tmp_path / "repo", files / "plain-f32.gguf", tmp_path / "out.gguf", name=name)
    expected = {}
    for alpha, rows, used in ((1.0, flipped, 2), (0.0 if name else model.iti_alpha, directions, model.iti_top_k)):
        for (layer, head), theta, sigma in list(zip(rows.heads.tolist(), rows.directions, rows.sigma, strict=True))[
            :used
        ]:
            width = slice(head * rows.head_dim, (head + 1) * rows.head_dim)
            weight = model.model.layers[layer].self_attn.o_proj.weight.detach().float()[:, width]
            expected[layer] = expected.get(layer, 0) + alpha * sigma * (weight @ theta)
    plain = {tensor.name: tensor.data for tensor in gguf.GGUFReader(files / "plain-f32.gguf").tensors}
    for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors:
        if tensor.name.endswith("attn_output.bias"):
            before = plain.get(tensor.name, np.zeros_like(tensor.data))
            want = expected.pop(int(tensor.name.split(".")[1]), torch.zeros(len(before)))
            np.testing.assert_allclose(tensor.data - before, want.numpy(), atol=1e-5)
    assert all(not shift.any() for shift in expected.values())


def test_a_file_that_is_not_whole_is_refused_by_name(files, tmp_path):
    whole, bad = (files / "plain-f32.gguf").read_bytes(), tmp_path / "bad.gguf"
    source = open_source(ROOT)
    cut = (0, 3, 4, 10, 20, 100, 1000, len(whole) // 2, len(whole) - 1)
    for content in (b"no gguf", b"GGUF", b"no gguf, but text " * 9, *(whole[:length] for length in cut)):
        bad.write_bytes(content)
        for read in (lambda: patch_gguf(ROOT, bad, tmp_path / "out.gguf"), lambda: check_base_of(source, bad)):
            with pytest.raises(ValueError, match="bad.gguf: not a GGUF file"):
                read()
    part = rewritten(files / "plain-f32.gguf", tmp_path / "part.gguf", lambda name: "blk.3" not in name, split_count=2)
    for read in (lambda: patch_gguf(ROOT, part, tmp_path / "out.gguf"), lambda: check_base_of(source, part)):
        with pytest.raises(ValueError, match="part.gguf: is one of 2 parts; .*llama-gguf-split --merge"):
            read()
    part = rewritten(files / "plain-f32.gguf", tmp_path / "less.gguf", lambda name: "attn_output.weight" not in name)
    with pytest.raises(ExportError, match="less.gguf: has no blk.*attn_output.weight"):
        patch_gguf(ROOT, part, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_what_alpha_0_writes_is_called_plain(files, tmp_path):
    export(ROOT, "gguf", tmp_path / "whole", alpha=0.0)
    (whole,) = (tmp_path / "whole").glob("*.gguf")
    assert whole.name == "iti-llama-demo-plain-f32.gguf"
    assert gguf.GGUFReader(whole).fields["general.name"].contents() == "iti-llama-demo, plain"
    assert "\n# iti-llama-demo, plain\n" in (tmp_path / "whole" / "README.md").read_text()
    export(ROOT, "gguf", tmp_path / "patched", into=whole, alpha=0.0)
    assert next((tmp_path / "patched").glob("*.gguf")).name == "iti-llama-demo-plain-f32-plain.gguf"


def test_every_other_tensor_and_field_of_a_patched_file_is_as_it_was(files):
    old, new = (gguf.GGUFReader(files / f"{name}-q8_0.gguf") for name in ("plain", "patched"))
    tensors = {tensor.name: tensor for tensor in new.tensors}
    for tensor in old.tensors:
        if not tensor.name.endswith("attn_output.bias"):
            assert tensors[tensor.name].data.tobytes() == tensor.data.tobytes()
            assert tensors[tensor.name].tensor_type == tensor.tensor_type
    for name, field in old.fields.items():
        if not name.startswith("GGUF."):
            assert new.fields[name].contents() == field.contents() and new.fields[name].types == field.types


def test_the_rotary_scaling_of_llama_3_is_kept(tmp_path):
    """A tokenizer of bytes on a base with llama3 rope, which the tiny one's tokenizer of characters is not."""
    repo = steered_repo(tmp_path, vocab_size=768, max_position_embeddings=256)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        for folder in ("repo", "base"):
            (tmp_path / folder / name).write_bytes((ROOT / name).read_bytes())
    ids = torch.randint(3, 700, (120,), generator=torch.Generator().manual_seed(0)).tolist()
    export_gguf(open_source(repo), tmp_path / "steered.gguf")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    with hooks(base, ITIDirections.load(repo / "iti_directions.safetensors"), 1.5):
        want = logs(base, ids)
    assert np.abs(in_llama_cpp(tmp_path / "steered.gguf", ids) - want).max() < 1e-3


def test_what_cannot_be_is_refused(files, tmp_path):
    other = steered_repo(tmp_path)
    with pytest.raises(ExportError, match="num_attention_heads is 8, but the directions were made for 4"):
        patch_gguf(other, files / "plain-f32.gguf", tmp_path / "out.gguf")
    with pytest.raises(ExportError, match="WordLevel tokenizer"):
        export_gguf(open_source(other), tmp_path / "out.gguf")
    with pytest.raises(ExportError, match="--quantisation is 'q2'"):
        export_gguf(open_source(ROOT), tmp_path / "out.gguf", "q2")
    with pytest.raises(FileExistsError, match="is there already"):
        export_gguf(open_source(ROOT), files / "steered.gguf")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"iti_scope": "generated"}))
    with pytest.raises(ExportError, match="pass --scope all"):
        patch_gguf(other, files / "plain-f32.gguf", tmp_path / "out.gguf")
    assert not list(tmp_path.glob("*out.gguf*"))


def test_a_file_of_another_base_is_seen(files, tmp_path):
    source = open_source(ROOT)
    check_base_of(source, files / "plain-q8_0.gguf")
    old, other = gguf.GGUFReader(files / "plain-f32.gguf"), tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(other, "llama")
    for tensor in old.tensors:
        noise = np.random.default_rng(0).normal(0, tensor.data.std() + 1e-6, tensor.data.shape)
        writer.add_tensor(tensor.name, noise.astype(np.float32))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    with pytest.raises(ExportError, match="of its size away from that of iti-llama-demo"):
        check_base_of(source, other)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_file_with_nan_or_infinity_is_not_the_base_and_gives_no_biases(files, tmp_path, wrong):
    """In every output projection, so in that which the base is known by."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes((files / "plain-f32.gguf").read_bytes())
    for tensor in gguf.GGUFReader(bad, "r+").tensors:
        if tensor.name.endswith("attn_output.weight"):
            tensor.data[0, :] = wrong
    with pytest.raises(ExportError, match="bad.gguf: blk.*attn_output.weight is .* away from"):
        check_base_of(open_source(ROOT), bad)
    saying = "bad.gguf: blk.*attn_output.bias would hold NaN or infinity"
    with np.errstate(invalid="ignore"), pytest.raises(ExportError, match=saying):
        patch_gguf(ROOT, bad, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def with_fields(old, new, drop=(), **texts: str):
    """`old` as `new`, without some fields and with others in the place of theirs."""
    reader, writer = gguf.GGUFReader(old), gguf.GGUFWriter(new, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != gguf.Keys.General.ARCHITECTURE and name not in drop:
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for name, text in texts.items():
        writer.add_string(name.replace("__", "."), text)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    return new


def test_fields_that_are_missing_or_of_another_kind_are_named(files, tmp_path):
    plain, length, width = files / "plain-f32.gguf", "llama.attention.key_length", "llama.embedding_length"
    for name, drop, texts, said in (
        ("split", (), {"split__count": "2"}, "split.count is '2'"),
        ("narrow", (length, width), {}, "has no llama.embedding_length"),
        ("words", (width, length), {"llama__embedding_length": "128"}, "llama.embedding_length is '128'"),
        ("heads", ("llama.attention.head_count",), {}, "num_attention_heads is None"),
    ):
        with pytest.raises(ValueError, match=f"{name}.gguf: {said}"):
            patch_gguf(ROOT, with_fields(plain, tmp_path / f"{name}.gguf", drop, **texts), tmp_path / "out.gguf")
    patch_gguf(ROOT, with_fields(plain, tmp_path / "fine.gguf", (length,)), tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").is_file()


def test_a_file_is_patched_without_torch(files, tmp_path):
    script = """
        import sys
        sys.modules["torch"] = None
        from pathlib import Path
        from iti_llama.toolkit.export.gguf_patch import patch_gguf
        patch_gguf(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), ROOT, files / "plain-q8_0.gguf", tmp_path / "out.gguf"]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out.gguf").read_bytes() == (files / "patched-q8_0.gguf").read_bytes()


@pytest.mark.parametrize("begins", [False, True])
def test_llama_cpp_reads_a_text_as_the_same_number_of_tokens(begins, tmp_path):
    import gguf_files
    import xllamacpp

    path = gguf_files.write_gguf(gguf_files.gguf_llama(), tmp_path / "a.gguf", adds=(begins, False))
    dequantise_gguf(path, tmp_path / "base", "float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    directions = some_directions(model.config)
    ITILlamaForCausalLM.from_base(tmp_path / "base", directions).save_pretrained(tmp_path / "repo")
    assert export_gguf(open_source(tmp_path / "repo"), tmp_path / "steered.gguf") == []
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx = str(tmp_path / "steered.gguf"), 128
    params.warmup, params.verbosity, params.n_gpu_layers = False, 0, 0
    server, tokenizer = xllamacpp.Server(params), AutoTokenizer.from_pretrained(tmp_path / "base")
    for text in ("ab  12", "a", "The 3  heads 45"):
        answer = server.handle_completions({"prompt": text, "n_predict": 1})
        answer = json.loads(answer) if isinstance(answer, str) else answer
        assert answer["usage"]["prompt_tokens"] == len(tokenizer(text)["input_ids"])


@pytest.mark.parametrize(
    "steps,name",
    [
        ([{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}], "smollm"),
        ([{"type": "ByteLevel", "use_regex": True}], "gpt-2"),
        ([{"type": "Digits", "individual_digits": False}, {"type": "ByteLevel", "use_regex": True}], "default"),
        ([{"type": "Split", "pattern": {"Regex": LLAMA_3 + "..."}}, {"type": "ByteLevel"}], "llama-bpe"),
        ([{"type": "Split", "pattern": {"Regex": "\\s"}}, {"type": "ByteLevel"}], "default"),
    ],
)
def test_how_a_tokenizer_splits_is_named_as_llama_cpp_names_it(steps, name):
    assert split_name({"type": "Sequence", "pretokenizers": steps}) == name
    assert len(steps) > 1 or split_name(steps[0]) == name
