"""NeoCoder: reading its files, running its solutions, labelling them."""

import neocoder_files
import pytest

from iti_llama.toolkit.foundation.sandbox import Limits, Sandbox, SandboxError
from iti_llama.toolkit.neocoder.problems import load


@pytest.fixture(scope="module")
def sandbox():
    try:
        return Sandbox(Limits(seconds=6, memory=768 << 20))
    except SandboxError as error:
        pytest.skip(f"no sandbox on this machine: {error}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return neocoder_files.write(tmp_path_factory.mktemp("neocoder"))


@pytest.fixture(scope="module")
def problems(folder):
    return load(folder)
