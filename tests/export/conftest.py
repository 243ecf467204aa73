"""A steered repo with a tokenizer, on bases of several geometries."""

import pytest
from steered import steered_repo


GEOMETRIES = {
    "head_dim apart": {},
    "hidden = heads * head_dim": {"head_dim": 16},
    "as many kv heads": {"num_key_value_heads": 4},
    "with biases": {"attention_bias": True},
}


@pytest.fixture(params=GEOMETRIES.values(), ids=GEOMETRIES)
def repo(request, tmp_path):
    return steered_repo(tmp_path, **request.param)


@pytest.fixture
def one_repo(tmp_path):
    return steered_repo(tmp_path)
