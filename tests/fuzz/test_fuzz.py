"""Files changed at random either load to exactly what they say or give one of our errors: never another exception, a
hang, or a wrong model, and reading takes no more than a stated multiple of the file's size. A fixed number of examples
here; `make fuzz` tries 10,000 of each."""

import json
import os
import pickle
import random
import subprocess
import sys
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import some_directions, tiny_config
from safetensors.torch import save_file
from transformers import AutoConfig, LlamaConfig

from iti_llama import ITIDirections, ITIDirectionsError, ITILlamaConfig
from iti_llama.configuration_iti_llama import FREE_FIELDS, LLAMA_FIELDS
from iti_llama.toolkit.convert.legacy_files import read_legacy
from iti_llama.toolkit.convert.unpickle import LegacyError
from iti_llama.toolkit.data.labelled_set import read_examples


EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=5000,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

changes = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "swap"]), st.floats(0, 1), st.binary(min_size=1, max_size=9)),
    min_size=1,
    max_size=4,
)


def changed(data: bytes, how) -> bytes:
    for kind, where, extra in how:
        at = int(where * max(0, len(data) - 1))
        if kind == "flip":
            data = data[:at] + bytes(b ^ x for b, x in zip(data[at:], extra, strict=False)) + data[at + len(extra) :]
        elif kind == "cut":
            data = data[:at] + data[at + len(extra) :]
        elif kind == "insert":
            data = data[:at] + extra + data[at:]
        else:
            data = data[:at] + data[at + len(extra) :] + data[at : at + len(extra)]
    return data


@fuzz
@given(changes)
def test_a_directions_file(tmp_path, how):
    path = tmp_path / "d.safetensors"
    whole = some_directions(tiny_config()).save(path).read_bytes()
    path.write_bytes(changed(whole, how))
    try:
        found = ITIDirections.load(path)
    except ITIDirectionsError as error:
        assert str(path) in str(error)
        return
    again = ITIDirections.load(found.save(tmp_path / "again.safetensors"))
    assert torch.equal(again.directions, found.directions) and torch.equal(again.heads, found.heads)
    assert bool(torch.isfinite(found.sigma).all()) and again.provenance == found.provenance


words = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)
names = [
    "iti_alpha",
    "iti_top_k",
    "iti_scope",
    "iti_directions_file",
    "base_model_name_or_path",
    "base_model_revision",
]


@fuzz
@given(st.dictionaries(st.sampled_from(names), words, min_size=1))
def test_the_fields_of_a_config(tmp_path, fields):
    path = tmp_path / "config.json"
    ITILlamaConfig(**{k: v for k, v in tiny_config().to_dict().items() if k != "model_type"}).save_pretrained(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    try:
        config = ITILlamaConfig.from_pretrained(tmp_path)
    except ValueError as error:
        assert any(name in str(error) for name in fields), error
        return
    for name, value in fields.items():
        assert getattr(config, name) == value


def loads_to_what_it_says_or_is_refused(folder, data: bytes) -> None:
    """The oracle for the fields of a Llama is its own configuration."""
    (folder / "config.json").write_bytes(data)
    try:
        config = ITILlamaConfig.from_pretrained(folder)
    except (ValueError, OSError) as error:
        assert str(error)
        return
    fields = json.loads(data)
    plain = LlamaConfig(**{name: value for name, value in fields.items() if name in (*LLAMA_FIELDS, *FREE_FIELDS)})
    for name in (*LLAMA_FIELDS, "max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"):
        assert repr(getattr(config, name, None)) == repr(getattr(plain, name, None)), name
    for name in names:
        assert getattr(config, name) == fields.get(name, getattr(ITILlamaConfig(), name))
    said = {} if fields.get("iti_behaviours") is None else fields["iti_behaviours"]
    assert config.iti_behaviours.keys() == said.keys()
    for name, entry in config.iti_behaviours.items():
        assert entry == entry | said[name]


ropes = st.dictionaries(
    st.sampled_from(["rope_type", "rope_theta", "factor", "low_freq_factor", "original_max_position_embeddings"]),
    st.one_of(words, st.sampled_from(["llama3", "default", "linear", "yarn"])),
)
entries = st.dictionaries(st.sampled_from(["file", "alpha", "top_k", "scope"]), words)
behaviours = st.dictionaries(st.sampled_from(["style", "default", "a b", "../x", ""]), st.one_of(words, entries))
llama_fields = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys((*LLAMA_FIELDS, *FREE_FIELDS, "num_labels", "id2label", "layer_types"), words)
    | {"rope_parameters": st.one_of(words, ropes), "rope_scaling": st.one_of(words, ropes)}
    | {"iti_behaviours": st.one_of(words, behaviours)},
)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    fields = {name: value for name, value in tiny_config().to_dict().items() if name != "model_type"}
    ITILlamaConfig(**fields, iti_behaviours={"style": {"alpha": 0.5}}).save_pretrained(folder)
    return folder, (folder / "config.json").read_bytes()


@fuzz
@given(changes)
def test_the_bytes_of_a_config(config_file, how):
    loads_to_what_it_says_or_is_refused(config_file[0], changed(config_file[1], how))


@fuzz
@given(llama_fields)
def test_the_llama_fields_and_behaviours_of_a_config(config_file, fields):
    folder, whole = config_file
    some = dict(sorted(fields.items(), key=lambda item: repr(item))[:2])  # with more, most are refused
    loads_to_what_it_says_or_is_refused(folder, json.dumps(json.loads(whole) | some).encode())


@pytest.mark.parametrize(
    "field,value",
    [("num_attention_heads", 0), ("head_dim", "x"), ("rope", {"rope_type": "llama3"}), ("num_labels", 1 << 70)],
)
def test_what_transformers_stumbles_over_is_named(config_file, field, value):
    folder, whole = config_file
    field = field if field != "rope" else ("rope_parameters" if b"rope_parameters" in whole else "rope_scaling")
    (folder / "config.json").write_text(json.dumps(json.loads(whole) | {field: value}))
    for loader in (ITILlamaConfig, AutoConfig):
        with pytest.raises(ValueError, match=f"{folder}/config.json: .*{field}"):
            loader.from_pretrained(folder)


@fuzz
@given(changes)
def test_a_labelled_set(tmp_path, how):
    path = tmp_path / "set.jsonl"
    rows = [{"prompt": f"p{i}", "completion": "c", "label": i % 2, "group": f"g{i // 2}"} for i in range(4)]
    path.write_bytes(changed("".join(json.dumps(row) + "\n" for row in rows).encode(), how))
    try:
        examples = read_examples(path)
    except ValueError as error:
        assert str(path) in str(error), error
        return
    assert {example.label for example in examples} == {0, 1}


numbers = st.recursive(st.one_of(words, st.integers(-(1 << 70), 1 << 70)), lambda part: st.lists(part, max_size=3))
shared = words.map(lambda part: reduce(lambda inner, _: [inner, inner], range(40), part))
parts = st.one_of(numbers, shared)
legacy = st.fixed_dictionaries(
    {"directions": st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), parts, max_size=3)},
    optional={"num_layers": words, "num_heads": words, "all_head_accs": parts, "top_heads": parts}
    | {"metadata": st.builds(dict, alpha=parts)}
    | {"top_heads_scores": st.lists(st.builds(dict, layer=parts, head=parts, auc=parts))},
)


@fuzz
@given(legacy)
def test_what_a_legacy_pickle_holds(tmp_path, content):
    path = tmp_path / "directions.pkl"
    path.write_bytes(pickle.dumps(content, 4))
    try:
        found = read_legacy(path)
    except LegacyError as error:
        assert str(path) in str(error) and len(str(error)) < 500, error
        return
    assert all(np.isfinite(vector).all() for vector, _ in found.vectors.values())


@fuzz
@given(changes, st.integers(0, 5))
def test_a_legacy_pickle(tmp_path, how, protocol):
    path = tmp_path / "directions.pkl"
    content = {(i, i % 4): (np.full(24, 0.2, np.float16), np.float32(1.5)) for i in range(3)}
    path.write_bytes(changed(pickle.dumps(content, protocol), how))
    try:
        found = read_legacy(path)
    except LegacyError as error:
        assert "directions.pkl" in str(error), error
        return
    assert all(np.isfinite(vector).all() for vector, _ in found.vectors.values())


MEASURE = """
import json, os, resource, sys
from pathlib import Path
import safetensors.torch, torch
from iti_llama import ITIDirections
from iti_llama.toolkit.data.labelled_set import read_examples
from iti_llama.toolkit.convert.legacy_files import read_legacy

READERS = {".safetensors": ITIDirections.load, ".jsonl": read_examples, ".pkl": read_legacy}


def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field + ":"))


for path in map(Path, map(str.strip, sys.stdin)):
    if os.fork() == 0:
        before = memory("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (before + (1 << 30),) * 2)
        try:
            READERS[path.suffix](path)
            end = "read"
        except ValueError as error:
            end = str(error)
        os.write(1, json.dumps([end, memory("VmPeak") - before]).encode() + b"\\n")
        os._exit(0)
    if os.wait()[1]:
        print("null", flush=True)
"""
CONSTANT = 4 << 20


@pytest.fixture(scope="module")
def memory_of():
    """How the reading of a file ends, and the most that the address space of a fresh process grows meanwhile."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command, pipes = [sys.executable, "-c", MEASURE], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:

        def ask(path) -> tuple[str, int]:
            print(path, file=process.stdin, flush=True)
            return tuple(json.loads(process.stdout.readline()))

        yield ask
        process.stdin.close()


def large_directions(path, heads: int, head_dim: int) -> bytes:
    vectors = torch.nn.functional.normalize(torch.randn(heads, head_dim, generator=torch.Generator().manual_seed(0)))
    pairs = torch.stack([torch.arange(heads) // 64, torch.arange(heads) % 64], dim=-1)
    shape = {"num_hidden_layers": "10000", "num_attention_heads": "64", "head_dim": str(head_dim)}
    kind = {"format": "iti_directions", "format_version": "1", "site": "head", "base_model": ""}
    save_file({"heads": pairs, "directions": vectors, "sigma": torch.ones(heads)}, path, metadata=kind | shape)
    return path.read_bytes()


def large_set(rows: int, completion: str) -> bytes:
    line = {"prompt": "def f(x):\n", "completion": completion}
    rows = (line | {"label": i % 2, "group": f"g{i // 2}"} for i in range(rows))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def large_pickle(kind: str, protocol: int) -> bytes:
    numbers = np.random.default_rng(0).normal(size=(128, 64, 128)).astype(np.float32)
    pairs = [(layer, head) for layer in range(128) for head in range(64)]
    if kind == "lists":
        return pickle.dumps({pair: numbers[pair].tolist() for pair in pairs[:4096]}, protocol)
    return pickle.dumps({pair: (numbers[pair], np.float32(1.5)) for pair in pairs}, protocol)


# Of 4 to 8 MiB each. The last number is the multiple of its size that reading may take, besides CONSTANT: measured,
# and a fifth more. Directions of a usual shape take twice
# the file; the others become Python objects.
LARGE = {
    "directions": (".safetensors", lambda path: large_directions(path, 8192, 128), 2),
    "directions, one row": (".safetensors", lambda path: large_directions(path, 1, 1 << 20), 2),
    "directions, one number a row": (".safetensors", lambda path: large_directions(path, 150_000, 1), 5),
    "labelled set": (".jsonl", lambda path: large_set(13_000, "    return x\n" * 42), 4),
    "labelled set, short rows": (".jsonl", lambda path: large_set(100_000, "x"), 9),
    "labelled set, wide characters": (
        ".jsonl",
        lambda path: large_set(13_000, "    return x\n" * 42 + "\U0001f600"),
        14,
    ),
    "pickle of arrays, protocol 0": (".pkl", lambda path: large_pickle("arrays", 0), 6),
    "pickle of arrays": (".pkl", lambda path: large_pickle("arrays", 4), 6),
    "pickle of lists": (".pkl", lambda path: large_pickle("lists", 4), 8),
}


@pytest.fixture(scope="module", params=LARGE)
def large(request, tmp_path_factory):
    """A path, the content of a large file for it, and the multiple of its size that reading may take."""
    suffix, content, factor = LARGE[request.param]
    path = tmp_path_factory.mktemp("large") / f"large{suffix}"
    return path, content(path), factor


@pytest.mark.parametrize("number", range(max(4, EXAMPLES // 50)))
def test_reading_a_large_file_whole_or_changed_takes_a_bounded_multiple_of_its_size(memory_of, large, number):
    path, whole, factor = large
    rng = random.Random(number)
    extra = bytes(rng.choices(b"abcdefgh01234567", k=rng.randint(1, 9)))  # UTF-8 stays UTF-8
    how = [(rng.choice(["flip", "cut", "insert", "swap"]), rng.random(), extra)] if number else []
    path.write_bytes(changed(whole, how))
    end, memory = memory_of(path)
    assert end == "read" or (how and path.name in end)
    assert memory <= factor * len(whole) + CONSTANT, f"{memory / len(whole):.1f} times the file"


@pytest.mark.parametrize(
    "shape,end", [([1 << 40, 2], 1 << 44), ([1 << 40, 2], 16), ([1 << 62, 1 << 62], 16), ([1 << 18, 2], 1 << 22)]
)
@pytest.mark.parametrize("length", [None, 1 << 60, 90 << 20])
def test_what_a_header_declares_is_not_allocated(memory_of, tmp_path, shape, end, length):
    path = tmp_path / "huge.safetensors"
    header = json.dumps({"heads": {"dtype": "I64", "shape": shape, "data_offsets": [0, end]}}).encode()
    path.write_bytes((length or len(header)).to_bytes(8, "little") + header + bytes(3 << 20))
    found, memory = memory_of(path)
    assert found.startswith(f"{path}: is truncated, or not a safetensors file")
    assert memory <= path.stat().st_size + CONSTANT


def test_the_number_of_examples_is_what_was_asked_for():
    assert pytest.approx(EXAMPLES) == fuzz.max_examples
