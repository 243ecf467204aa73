"""Repos, bases and files that try to run code, to read elsewhere, to hang or to fill the memory. Each is refused by
name, by `verify` and where it would matter by the loaders. docs/publish.md says what is refused."""

import gzip
import io
import json
import os
import pickle
import struct
import time
import zipfile

import pytest
from reference import tiny_tokenizer
from steered import logits
from transformers import AutoConfig, AutoModelForCausalLM

from iti_llama import ITIDirections, ITIDirectionsError, ITILlamaConfig, ITILlamaForCausalLM
from iti_llama.toolkit.convert.unpickle import LegacyError, read_pickle
from iti_llama.toolkit.repo.verify import verify


@pytest.fixture
def repo(adapter_dir):
    tiny_tokenizer().save_pretrained(adapter_dir)
    assert verify(str(adapter_dir)).problems == ()
    return adapter_dir


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


CODE_BY_CONFIG = [
    ("_attn_implementation_internal", "stranger/kernel"),
    ("attn_implementation", "stranger/kernel"),
    ("_attn_implementation", "stranger/kernel:run"),
    ("_experts_implementation_internal", "stranger/kernel"),
    ("custom_generate", "stranger/recipe"),
]


@pytest.mark.parametrize("field,value", CODE_BY_CONFIG)
def test_a_field_that_names_code_is_refused_in_repo_and_base(repo, base_dir, directions, tmp_path, field, value):
    edit(repo / "config.json", **{field: value})
    assert any(field in problem and "run code" in problem for problem in verify(str(repo)).problems)
    for loader in (ITILlamaForCausalLM, ITILlamaConfig, AutoConfig, AutoModelForCausalLM):
        with pytest.raises(ValueError, match=f"{repo}/config.json: {field} is '{value}'; expected no such field"):
            loader.from_pretrained(repo)
    hostile = tmp_path / "base"
    hostile.mkdir()
    for path in base_dir.iterdir():
        (hostile / path.name).write_bytes(path.read_bytes())
    edit(hostile / "config.json", **{field: value})
    with pytest.raises(ValueError, match=f"base model .*{field} is '{value}'"):
        ITILlamaForCausalLM.from_base(hostile, directions)


@pytest.mark.parametrize("loader", [ITILlamaForCausalLM, AutoModelForCausalLM])
def test_who_loads_may_choose_the_attention(repo, tmp_path, loader):
    for chosen in ("eager", "sdpa"):
        model = loader.from_pretrained(repo, attn_implementation=chosen)
        assert model.config._attn_implementation == chosen
        model.save_pretrained(tmp_path / chosen)
        assert loader.from_pretrained(tmp_path / chosen).config._attn_implementation == "sdpa"
    config = AutoConfig.from_pretrained(repo, attn_implementation="stranger/kernel")
    assert config._attn_implementation == "stranger/kernel"


def test_only_what_makes_a_llama_is_taken_over_from_a_base(base_dir, directions, tmp_path, ids):
    hostile = tmp_path / "base"
    hostile.mkdir()
    for path in base_dir.iterdir():
        (hostile / path.name).write_bytes(path.read_bytes())
    extra = {"auto_map": {"AutoModel": "evil.Evil"}, "_name_or_path": "/etc", "iti_alpha": 9, "torchscript": True}
    edit(hostile / "config.json", **extra)
    model = ITILlamaForCausalLM.from_base(hostile, directions, alpha=1.5)
    fields = model.config.to_dict()
    assert fields["auto_map"]["AutoModel"] == "modeling_iti_llama.ITILlamaModel" and fields["iti_alpha"] == 1.5
    assert not fields.get("torchscript")
    assert logits(model, ids).shape[-1] == 97


@pytest.mark.parametrize(
    "name,content,said",
    [
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "tokenizer_config.json maps"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": "other/repo--evil.T"}}, "code of another repo"),
        ("generation_config.json", {"custom_generate": "x/y"}, "custom_generate='x/y'"),
        ("sub/processor_config.json", {"a": [{"auto_map": {"AutoProcessor": "evil.P"}}]}, "maps AutoProcessor"),
        ("adapter_config.json", {"base_model_name_or_path": "x/y"}, "PEFT adapter"),
    ],
)
def test_every_json_file_is_read_for_code(repo, name, content, said):
    path = repo / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    assert any(said in problem for problem in verify(str(repo)).problems)


def test_json_that_is_deep_double_or_cut_off_is_named(repo):
    path = repo / "tokenizer_config.json"
    path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    assert any("not JSON that can be read (RecursionError)" in problem for problem in verify(str(repo)).problems)
    path.write_text('{"tokenizer_class": "A", "tokenizer_class": "B"}')
    assert any("says 'tokenizer_class' twice" in problem for problem in verify(str(repo)).problems)
    (repo / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        verify(str(repo))


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.safetensors", "a/b", "a\\b", "C:x", "", ".", "\0"])
def test_directions_lie_in_the_repo(repo, name):
    edit(repo / "config.json", iti_directions_file=name)
    with pytest.raises(ValueError, match="iti_directions_file is .*plain file name"):
        ITILlamaForCausalLM.from_pretrained(repo)
    assert any("iti_directions_file" in problem for problem in verify(str(repo)).problems)


def test_links_and_code_in_folders_are_seen(repo, tmp_path):
    (tmp_path / "outside.txt").write_text("secret")
    os.symlink(tmp_path / "outside.txt", repo / "notes.txt")
    os.symlink(tmp_path, repo / "more")
    os.symlink(tmp_path / "nowhere.py", repo / "run.py")
    (repo / "deep" / "er").mkdir(parents=True)
    (repo / "deep" / "er" / "run.py").write_text("raise SystemExit(3)")
    problems = verify(str(repo)).problems
    for said in (
        "notes.txt is a link to somewhere else",
        "run.py is a link to somewhere else",
        "deep/er/run.py is not a file of this package",
    ):
        assert any(said in problem for problem in problems), problems


def declared(**tensors) -> bytes:
    """A safetensors file with a header and no content."""
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    "data",
    [
        declared(heads={"dtype": "I64", "shape": [1 << 40, 2], "data_offsets": [0, 1 << 44]}),
        declared(sigma={"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 4]}),
        struct.pack("<Q", 1 << 60) + b"{}",
        b"",
        pickle.dumps({"heads": [0]}),
        gzip.compress(bytes(1 << 20)),
    ],
    ids=["huge tensor", "overflowing shape", "huge header", "empty", "pickle", "gzip bomb"],
)
def test_a_directions_file_that_is_something_else_is_refused_at_once(repo, data):
    path, started = repo / "iti_directions.safetensors", time.monotonic()
    path.write_bytes(data)
    with pytest.raises(ITIDirectionsError, match=str(path)):
        ITIDirections.load(path)
    with pytest.raises(ITIDirectionsError):
        ITILlamaForCausalLM.from_pretrained(repo)
    assert any(
        "it will not load: " in problem and "iti_directions.safetensors" in problem
        for problem in verify(str(repo)).problems
    )
    assert time.monotonic() - started < 20


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(1 << 22))
    return buffer.getvalue()


def key_of_shared_tuples(levels: int = 40) -> bytes:
    value = ()
    for _ in range(levels):
        value = (value, value)
    return b"\x80\x04}" + pickle.dumps(value, 4)[2:-1] + b"K\x01s."


@pytest.mark.parametrize(
    "data,said",
    [
        (key_of_shared_tuples(), "has a key that is neither a text nor a few numbers"),
        (b"\x80\x04}(" + key_of_shared_tuples()[3:-2] + b"u.", "has a key"),
        (zip_bomb(), "is a zip archive"),
        (b"cposix\nsystem\n(S'true'\ntR.", "names posix.system"),
        (b"\x80\x04" + b"(" * 200_000 + b".", "cannot be read|refused"),
        (gzip.compress(pickle.dumps({})), "refused|cannot be read"),
    ],
    ids=["shared tuples", "shared tuples in a set of items", "zip bomb", "code", "a hundred thousand marks", "gzip"],
)
def test_a_pickle_that_hangs_or_runs_is_refused_at_once(tmp_path, data, said):
    path, started = tmp_path / "x.pkl", time.monotonic()
    path.write_bytes(data)
    with pytest.raises(LegacyError, match=said):
        read_pickle(path)
    assert time.monotonic() - started < 10


def test_a_repo_that_was_changed_after_its_push_is_seen(repo):
    import hashlib

    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in repo.iterdir() if path.is_file()}
    (repo / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    (repo / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    assert verify(str(repo)).problems == ()
    (repo / "chat_template.jinja").write_text("{{ messages }}")
    edit(repo / "generation_config.json", max_new_tokens=1)
    (repo / "tokenizer_config.json").unlink()
    problems = verify(str(repo)).problems
    assert any("generation_config.json is not the file that was pushed" in problem for problem in problems)
    assert any("chat_template.jinja is not in SHA256SUMS" in problem for problem in problems)
    assert any("lists tokenizer_config.json, and there is no such file" in problem for problem in problems)
