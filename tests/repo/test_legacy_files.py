"""What older files say, and how it is named when they say it wrongly."""

import json
import pickle

import numpy as np
import pytest

from iti_llama.toolkit.repo.legacy_files import read_legacy
from iti_llama.toolkit.repo.unpickle import LegacyError


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
