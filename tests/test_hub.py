"""Push and pull over HTTP, against a server on loopback that speaks the Hub's protocol. Each client is a process of its
own, since huggingface_hub reads its settings when it is imported."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from hub import TOKEN, Hub, Repo
from reference import assert_close, hooks, some_directions, tiny_config
from test_loading import CODE, logits


SETUP = """
    import sys, torch
    sys.modules["iti_llama"] = None  # nothing of ours is installed
    from transformers import AutoModelForCausalLM
    ids = torch.randint(3, 97, (3, 11), generator=torch.Generator().manual_seed(1))

    def save(model, out):
        with torch.no_grad():
            torch.save(model(ids).logits, out)
"""


@pytest.fixture
def hub(base_dir):
    with Hub() as server:
        files = {path.name: path.read_bytes() for path in base_dir.iterdir()}
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
        environment = os.environ | hub.environment(tmp_path / cache)
        environment |= {"HF_TOKEN": token} if token else {}
        environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        command = [sys.executable, "-c", textwrap.dedent(SETUP) + textwrap.dedent(script), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert (result.returncode != 0) == fails, result.stderr
        return result.stderr

    return run


@pytest.fixture
def pushed(hub, client, steered, tmp_path):
    """The steered model, in adapter form on a base on the Hub, pushed by a machine that has only transformers."""
    steered.save_pretrained(tmp_path / "local")
    script = """
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
        model.config.base_model_name_or_path = "meta/base"
        model.push_to_hub("me/steered")
    """
    client(script, tmp_path / "local")
    return hub.repos["me/steered"]


LOAD = """
    save(AutoModelForCausalLM.from_pretrained("me/steered", trust_remote_code=True, **eval(sys.argv[2])), sys.argv[1])
"""


def test_an_adapter_is_pushed_without_weights_and_pulled_with_its_base(
    pushed, client, base, directions, ids, tmp_path, hub
):
    _, files = pushed.at("main")
    assert set(files) >= CODE | {"config.json", "iti_directions.safetensors", "generation_config.json", "README.md"}
    assert not any(name.endswith((".bin", ".pkl")) or name == "model.safetensors" for name in files)
    assert sum(map(len, files.values())) < 100_000
    client(LOAD, tmp_path / "out.pt", "{}", cache="two")
    with hooks(base, directions, 1.5):
        assert_close(torch.load(tmp_path / "out.pt"), logits(base, ids))
    asked = len(hub.requests)
    client(LOAD, tmp_path / "offline.pt", "{}", cache="two", offline=True)
    assert len(hub.requests) == asked
    assert torch.equal(torch.load(tmp_path / "offline.pt"), torch.load(tmp_path / "out.pt"))
    error = client(LOAD, tmp_path / "none.pt", "{}", cache="three", offline=True, fails=True)
    assert "offline" in error


def test_revisions_of_the_repo_and_of_its_base_are_kept_apart(pushed, client, base, directions, ids, tmp_path):
    old, files = pushed.at("main")
    other = some_directions(tiny_config(), seed=9)
    other.save(tmp_path / "other.safetensors")
    new = pushed.commit(files | {"iti_directions.safetensors": (tmp_path / "other.safetensors").read_bytes()})
    assert old != new
    for revision, chosen in ((old, directions), ("main", other)):
        client(LOAD, tmp_path / "out.pt", {"revision": revision})
        with hooks(base, chosen, 1.5):
            assert_close(torch.load(tmp_path / "out.pt"), logits(base, ids))
    error = client(LOAD, tmp_path / "out.pt", {"base_model_revision": "broken"}, fails=True)
    assert "base model 'meta/base'" in error and "expected 'llama'" in error


@pytest.mark.parametrize("locked", ["GatedRepo", "RepoNotFound"], ids=["gated", "private"])
def test_a_locked_base_needs_the_token_and_says_what_to_do(locked, pushed, client, hub, tmp_path):
    hub.repos["meta/base"].locked = locked
    error = client(LOAD, tmp_path / "out.pt", "{}", token=None, cache="stranger", fails=True)
    assert "base model 'meta/base'" in error and "hf auth login" in error
    client(LOAD, tmp_path / "out.pt", {"token": TOKEN}, token=None, cache="member")


def test_a_self_contained_model_is_pushed_by_save_pretrained(client, hub, steered, base, directions, ids, tmp_path):
    steered.save_pretrained(tmp_path / "local")
    script = """
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
        model.config.base_model_name_or_path = None
        model.save_pretrained(sys.argv[2], push_to_hub=True, repo_id="me/whole", commit_message="whole")
        save(AutoModelForCausalLM.from_pretrained("me/whole", trust_remote_code=True), sys.argv[3])
    """
    client(script, tmp_path / "local", tmp_path / "whole", tmp_path / "out.pt")
    assert {"model.safetensors", "iti_directions.safetensors"} <= set(hub.repos["me/whole"].at("main")[1])
    with hooks(base, directions, 1.5):
        assert_close(torch.load(tmp_path / "out.pt"), logits(base, ids))
