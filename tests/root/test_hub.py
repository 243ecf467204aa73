"""Push and pull over HTTP, against a server on loopback that speaks the Hub's protocol. Each client is a process of
its own, since huggingface_hub reads its settings when it is imported."""

import hashlib
import json

import pytest
import torch
from hub import LOAD, TOKEN, Repo
from reference import assert_close, hooks, some_directions, tiny_config, tiny_llama, tiny_tokenizer
from steered import logits

from iti_llama.toolkit.repo.folder import CODE


@pytest.fixture
def pushed(hub, client, steered, tmp_path):
    """The steered model, in adapter form on a base on the Hub, pushed in Python."""
    steered.save_pretrained(tmp_path / "local")
    script = """
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
        model.config.base_model_name_or_path = "meta/base"
        del sys.modules["iti_llama"]  # what writes the card is installed here
        model.push_to_hub("me/steered")
    """
    client(script, tmp_path / "local")
    return hub.repos["me/steered"]


def test_an_adapter_is_pushed_without_weights_and_pulled_with_its_base(
    pushed, client, base, directions, ids, tmp_path, hub
):
    _, files = pushed.at("main")
    assert set(files) >= set(CODE) | {
        "config.json",
        "iti_directions.safetensors",
        "generation_config.json",
        "README.md",
    }
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
    data = other.save(tmp_path / "other.safetensors").read_bytes()
    config = json.loads(files["config.json"]) | {"iti_directions_sha256": hashlib.sha256(data).hexdigest()}
    new = pushed.commit(files | {"iti_directions.safetensors": data, "config.json": json.dumps(config).encode()})
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


def test_a_self_contained_model_is_pushed_with_its_weights(client, hub, steered, base, directions, ids, tmp_path):
    steered.save_pretrained(tmp_path / "local")
    tiny_tokenizer().save_pretrained(tmp_path / "local")
    script = """
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
        model.config.base_model_name_or_path = None
        del sys.modules["iti_llama"]
        model.push_to_hub("me/whole", commit_message="whole")
        save(AutoModelForCausalLM.from_pretrained("me/whole", trust_remote_code=True), sys.argv[2])
    """
    client(script, tmp_path / "local", tmp_path / "out.pt")
    assert {"model.safetensors", "iti_directions.safetensors"} <= set(hub.repos["me/whole"].at("main")[1])
    with hooks(base, directions, 1.5):
        assert_close(torch.load(tmp_path / "out.pt"), logits(base, ids))


def test_what_belongs_together_comes_from_one_commit(pushed, client, hub, tmp_path):
    """A push between the config and the rest must not mix two versions."""
    before = len(hub.requests)
    client(LOAD, tmp_path / "out.pt", "{}", cache="fresh")
    names = ("me/steered", "iti_directions.safetensors"), ("meta/base", "model.safetensors")
    for repo, name in names:
        asked = [line for line in hub.requests[before:] if f"/{repo}/" in line and line.endswith(f"/{name}")]
        sha, _ = hub.repos[repo].at("main")
        assert asked and all(f"/resolve/{sha}/" in line for line in asked), asked


@pytest.mark.parametrize("loader", ["AutoModelForCausalLM", "ITILlamaForCausalLM", "config first"])
def test_a_branch_that_moves_after_the_config_was_read_changes_nothing(
    loader, pushed, client, hub, base, directions, ids, tmp_path
):
    """Strength and directions are of one commit of the repo, check and weights of one commit of the base."""
    config = json.loads(hub.repos["me/steered"].at("main")[1]["config.json"])
    other = some_directions(base.config, seed=9).save(tmp_path / "other.safetensors").read_bytes()
    moved = config | {"iti_alpha": -9.0, "iti_directions_sha256": hashlib.sha256(other).hexdigest()}
    tiny_llama(seed=5).save_pretrained(tmp_path / "moved")
    hub.moves["me/steered"] = {"config.json": json.dumps(moved).encode(), "iti_directions.safetensors": other}
    hub.moves["meta/base"] = {"model.safetensors": (tmp_path / "moved" / "model.safetensors").read_bytes()}
    script = """
        del sys.modules["iti_llama"]
        import iti_llama
        from transformers import AutoConfig
        iti_llama.register()
        if sys.argv[2] == "config first":
            config = iti_llama.ITILlamaConfig.from_pretrained("me/steered")
            model = iti_llama.ITILlamaForCausalLM.from_pretrained("me/steered", config=config)
        else:
            cls = getattr(iti_llama, sys.argv[2], AutoModelForCausalLM)
            model = cls.from_pretrained("me/steered")
        save(model, sys.argv[1])
    """
    client(script, tmp_path / "out.pt", loader, cache=loader.replace(" ", ""))
    assert not hub.moves
    with hooks(base, directions, 1.5):
        assert_close(torch.load(tmp_path / "out.pt"), logits(base, ids))


def test_a_config_of_another_repo_brings_no_commit(pushed, client, hub, base, directions, ids, tmp_path):
    other = hub.repos["me/other"] = Repo()
    other.commit(pushed.at("main")[1])
    script = """
        del sys.modules["iti_llama"]
        import iti_llama
        config = iti_llama.ITILlamaConfig.from_pretrained("me/steered")
        save(iti_llama.ITILlamaForCausalLM.from_pretrained("me/other", config=config), sys.argv[1])
    """
    client(script, tmp_path / "out.pt", cache="other")
    with hooks(base, directions, 1.5):
        assert_close(torch.load(tmp_path / "out.pt"), logits(base, ids))


def test_a_base_on_the_hub_is_steered_and_named(hub, client, base, directions, ids, tmp_path):
    directions.save(tmp_path / "directions.safetensors")
    script = """
        del sys.modules["iti_llama"]
        from iti_llama import ITILlamaForCausalLM
        model = ITILlamaForCausalLM.from_base("meta/base", sys.argv[1], alpha=1.5)
        assert model.config.base_model_name_or_path == "meta/base"
        save(model, sys.argv[2])
    """
    client(script, tmp_path / "directions.safetensors", tmp_path / "out.pt")
    with hooks(base, directions, 1.5):
        assert_close(torch.load(tmp_path / "out.pt"), logits(base, ids))
