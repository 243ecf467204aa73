"""Small real models, made once: a plain Llama on disk and the steered model made from it."""

import os
import shutil
import textwrap
from pathlib import Path

import pytest
import torch
from apart import run_apart
from hub import SETUP, TOKEN, Hub, Repo
from reference import some_directions, tiny_llama, tiny_tokenizer
from taught import taught_llama, two_ways
from transformers import AutoTokenizer
from transformers.utils import logging

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.sandbox import Sandbox, SandboxError
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.settings import RepoSettings


logging.disable_progress_bar()
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_llama().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base():
    """The plain Llama of `base_dir`."""
    return tiny_llama()


@pytest.fixture(scope="session")
def directions(base):
    return some_directions(base.config)


@pytest.fixture
def steered(base_dir, directions) -> ITILlamaForCausalLM:
    return ITILlamaForCausalLM.from_base(base_dir, directions, alpha=1.5).eval()


@pytest.fixture
def adapter_dir(steered, tmp_path) -> Path:
    """The steered model, saved in adapter form."""
    steered.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, 97, (3, 11), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    try:
        return Sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox on this machine: {error}")


@pytest.fixture(scope="session")
def taught_dir(tmp_path_factory) -> Path:
    """A plain Llama that `taught` made, with its tokenizer."""
    folder = tmp_path_factory.mktemp("llamas") / "taught"
    taught_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def fitted_dir(taught_dir, tmp_path_factory) -> Path:
    """A steered repo that was fitted on `two_ways`: to be copied, not to be changed."""
    folder = tmp_path_factory.mktemp("repos") / "fitted"
    fitting = FitSettings(top_k=6, folds=3, test_share=0.4, permutations=20)
    settings = RepoSettings(taught_dir, behaviour="returns x", fitting=fitting)
    fit_repo(settings, two_ways(), folder, dataset="two_ways.jsonl")
    return folder


@pytest.fixture
def fitted(fitted_dir, tmp_path) -> Path:
    """A copy of `fitted_dir`."""
    return Path(shutil.copytree(fitted_dir, tmp_path / "fitted"))


@pytest.fixture(scope="module")
def plain():
    return tiny_llama()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(params=["all", "generated"])
def tiny(request, plain, tmp_path):
    plain.save_pretrained(tmp_path / "base")
    directions = some_directions(plain.config)
    return ITILlamaForCausalLM.from_base(tmp_path / "base", directions, alpha=0.7, scope=request.param).eval()


@pytest.fixture(scope="module")
def bundled():
    return ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)


@pytest.fixture
def hub(base_dir, tmp_path):
    with Hub() as server:
        tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
        places = (*base_dir.iterdir(), *(tmp_path / "tokenizer").iterdir())
        files = {path.name: path.read_bytes() for path in places}
        server.repos["meta/base"] = Repo()
        server.repos["meta/base"].commit({"config.json": b"{}"}, "broken")
        server.repos["meta/base"].commit(files)
        yield server


@pytest.fixture
def client(hub, tmp_path):
    """Runs a script against the server; `cache` names the machine it runs on."""

    def run(
        script: str, *arguments, token: str | None = TOKEN, cache: str = "one", offline: bool = False, fails=False
    ):
        environment = hub.environment(tmp_path / cache)
        environment |= {"HF_TOKEN": token} if token else {}
        environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        result = run_apart(SETUP + textwrap.dedent(script), *arguments, environment=environment)
        assert (result.returncode != 0) == fails, result.stderr
        return result.stderr

    return run
