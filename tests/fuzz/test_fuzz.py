"""Files changed at random either load to exactly what they say or give one of our errors: never another exception, a
hang, or a wrong model. A fixed number of examples here; `make fuzz` tries 10,000 of each."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import some_directions, tiny_config

from iti_llama import ITIDirections, ITIDirectionsError, ITILlamaConfig
from iti_llama.toolkit.data.labelled_set import read_examples
from iti_llama.toolkit.repo.legacy_files import read_legacy
from iti_llama.toolkit.repo.unpickle import LegacyError


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


def test_the_number_of_examples_is_what_was_asked_for():
    assert pytest.approx(EXAMPLES) == fuzz.max_examples
