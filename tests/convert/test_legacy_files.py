"""What older files say, and how it is named when they say it wrongly."""

import json
import pickle
import time

import numpy as np
import pytest

from iti_llama.toolkit.convert import legacy_files
from iti_llama.toolkit.convert.legacy_files import read_legacy
from iti_llama.toolkit.convert.unpickle import LegacyError


def probes(tmp_path, accuracies):
    content = {"directions": {(0, 1): np.ones(4), (1, 0): np.ones(4)}, "num_layers": 2, "num_heads": 2}
    path = tmp_path / "probe_results.pkl"
    path.write_bytes(pickle.dumps(content | {"all_head_accs": accuracies}))
    return path


def test_accuracies_of_every_head_rank_those_with_directions(tmp_path):
    found = read_legacy(probes(tmp_path, [0.5, 0.6, 0.9, 0.7]))
    assert list(found.vectors) == [(1, 0), (0, 1)] and found.ranked
    assert found.scores == {(1, 0): 0.9, (0, 1): 0.6}
    with pytest.raises(LegacyError, match="all_head_accs has 3 numbers; expected"):
        read_legacy(probes(tmp_path, [0.5, 0.6, 0.9]))


def test_a_single_file_is_named_once(tmp_path):
    path = tmp_path / "directions.pkl"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(LegacyError, match=f"^{path}: list; expected a dict"):
        read_legacy(path)
    (tmp_path / "iti_config.json").write_text(json.dumps([1]))
    with pytest.raises(LegacyError, match="expected an object"):
        read_legacy(tmp_path)


def shared(levels, leaf=1.0):
    """A list of two lists that are one, and so on: small on disk, 2 ** levels numbers to who counts them."""
    for _ in range(levels):
        leaf = [leaf, leaf]
    return leaf


ONE = {"directions": {(0, 0): [1.0, 2.0]}, "num_layers": 1, "num_heads": 1}
PRIME = (1 << 61) - 1


@pytest.mark.parametrize(
    "content,said",
    [
        ({(0, 0): shared(40)}, "a direction is list; expected numbers"),
        ({(0, 0): (shared(40), 1.0)}, "a direction is list"),
        ({(0, 0): {"direction": [1.0], "std": shared(40)}}, "a direction is list"),
        (ONE | {"all_head_accs": shared(40)}, "all_head_accs is .*expected a flat list of numbers"),
        (ONE | {"top_heads": [(shared(40), 1)]}, r"top_heads: a key is .*expected \(layer, head\)"),
        (ONE | {"top_heads": [{"layer": shared(40), "head": 1}]}, "top_heads: a key is"),
        (ONE | {"top_heads": [{"layer": [1], "head": 0}]}, "top_heads: a key is"),
        (ONE | {"top_heads": 5}, "top_heads: int; expected a list"),
        (ONE | {"top_heads": [5]}, "top_heads: a key is 5"),
        (ONE | {"top_heads": [(0, 0)], "top_heads_scores": 5}, "top_heads_scores: int; expected a list"),
        (ONE | {"metadata": {"alpha": shared(40)}}, "alpha is .*; expected a number"),
        ({(0, 0): [10**400, 2.0]}, "holds an integer of 1329 bits"),
        ({i * PRIME: 1 for i in range(1, 200)}, "holds an integer of"),
        ({(i, 1 << 40): 1 for i in range(3)}, "a few numbers of usual size"),
        ({(0.5, 1.5): 1}, "a few numbers of usual size"),
        ({(1, 2, 3): 1}, "a few numbers of usual size"),
        ({(0, head): [1.0] * 5000 for head in range(5)}, "directions of more than 20,000 numbers in all"),
    ],
)
def test_what_would_hang_or_is_of_a_wrong_kind_is_one_clear_error(tmp_path, monkeypatch, content, said):
    monkeypatch.setattr(legacy_files, "MOST_NUMBERS", 20_000)
    path, started = tmp_path / "directions.pkl", time.monotonic()
    path.write_bytes(pickle.dumps(content, 4))
    with pytest.raises(LegacyError, match=said) as error:
        read_legacy(path)
    assert str(error.value).count(str(path)) == 1 and len(str(error.value)) < 500
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "text,said",
    [
        ("[1]", ": list; expected an object"),
        ('{"directions": {"0_0": [1, 2]}, "metadata": {"alpha": "x"}}', ": alpha is 'x'; expected a number"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, ": not JSON that can be read"),
        ('{"directions": {"0_0": [1%s, 2]}}' % ("0" * 400), ": not JSON .*an integer of 401 digits"),
        ('{"directions": {"0_0": [1%s, 2]}}' % ("0" * 5000), ": not JSON .*an integer of 5001 digits"),
    ],
)
def test_a_single_config_is_named_once(tmp_path, text, said):
    path = tmp_path / "iti_config.json"
    path.write_text(text)
    with pytest.raises(LegacyError, match=f"^{path}{said}"):
        read_legacy(path)


def test_the_file_that_says_alpha_is_named(tmp_path):
    path = tmp_path / "directions.pkl"
    path.write_bytes(pickle.dumps(ONE | {"metadata": {"alpha": "x"}}))
    with pytest.raises(LegacyError, match=f"^{path}: alpha is 'x'"):
        read_legacy(tmp_path)


def test_heads_may_be_arrays_and_accuracies_rows_of_layers(tmp_path):
    content = {"directions": {(0, 1): np.ones(4), (1, 0): np.ones(4)}, "top_heads": np.array([[1, 0], [0, 1]])}
    path = tmp_path / "directions.pkl"
    path.write_bytes(pickle.dumps(content))
    assert list(read_legacy(path).vectors) == [(1, 0), (0, 1)]
    assert list(read_legacy(probes(tmp_path, [[0.5, 0.6], [0.9, 0.7]])).vectors) == [(1, 0), (0, 1)]
