"""Each repo is read at one commit, whatever its main branch has become since its config.json was read."""

import hashlib
import json
from textwrap import dedent

import pytest
from hub import Repo
from reference import some_directions, tiny_llama, tiny_tokenizer

from iti_llama import ITILlamaForCausalLM


@pytest.fixture
def moving(hub, steered, tmp_path):
    """me/steered on meta/base. Both move once their config.json was read: to another strength, other directions,
    weights, tokenizer and licence."""
    steered.config.base_model_name_or_path = "meta/base"
    steered.save_pretrained(tmp_path / "repo")
    tiny_tokenizer().save_pretrained(tmp_path / "repo")
    (tmp_path / "repo" / "LICENSE").write_text("first")
    files = {path.name: path.read_bytes() for path in (tmp_path / "repo").iterdir()}
    hub.repos["me/steered"] = Repo()
    hub.repos["me/steered"].commit(files)
    other = some_directions(steered.config, seed=9).save(tmp_path / "other.safetensors").read_bytes()
    config = {"iti_alpha": -9.0, "iti_directions_sha256": hashlib.sha256(other).hexdigest()}
    tiny_llama(seed=5).save_pretrained(tmp_path / "moved")
    tokenizer = json.loads(files["tokenizer_config.json"]) | {"model_max_length": 7}
    tokenizer = {"tokenizer_config.json": json.dumps(tokenizer).encode()}
    hub.moves["me/steered"] = tokenizer | {
        "config.json": json.dumps(json.loads(files["config.json"]) | config).encode(),
        "iti_directions.safetensors": other,
        "LICENSE": b"second",
    }
    weights = (tmp_path / "moved" / "model.safetensors").read_bytes()
    hub.moves["meta/base"] = tokenizer | {"model.safetensors": weights}
    return hub


WITH_PACKAGE = 'del sys.modules["iti_llama"]\nimport iti_llama\n'


def test_an_export_and_its_canary_are_of_one_commit(moving, client, tmp_path):
    script = """
        from pathlib import Path
        from iti_llama.toolkit.export.export import export
        from iti_llama.toolkit.export.forms import load_form
        canary, _ = export("me/steered", "llama", Path(sys.argv[1]))
        assert canary.alpha == 1.5
        assert load_form(sys.argv[1]).continues(canary.prompt_ids, len(canary.steered.ids)) == canary.steered.text
    """
    client(WITH_PACKAGE + dedent(script), tmp_path / "out")
    assert not moving.moves.get("meta/base")


def test_a_model_and_its_tokenizer_are_of_one_commit(moving, client):
    script = """
        from iti_llama.toolkit.cli.options import load
        from iti_llama.toolkit.export.forms import load_form
        model, tokenizer = load("me/steered", device_map="cpu")
        assert (model.iti_alpha, tokenizer.model_max_length > 7) == (1.5, True)
        assert load_form("meta/base").tokenizer.model_max_length == 7  # which has moved by now
    """
    client(WITH_PACKAGE + dedent(script))
    assert not moving.moves


def test_a_base_that_is_fitted_on_and_its_tokenizer_are_of_one_commit(moving, client):
    script = """
        from iti_llama.toolkit.repo.fit_repo import load_base
        model, tokenizer = load_base("meta/base")
        assert tokenizer.model_max_length > 7
    """
    client(WITH_PACKAGE + dedent(script))
    assert not moving.moves.get("meta/base")


@pytest.mark.parametrize("made", ["from_pretrained", "from_base"])
def test_a_model_is_pushed_with_what_its_own_commit_holds(moving, client, made, directions, tmp_path):
    directions.save(tmp_path / "directions.safetensors")
    script = """
        if sys.argv[1] == "from_base":
            model = iti_llama.ITILlamaForCausalLM.from_base("meta/base", sys.argv[2])
        else:
            model = iti_llama.ITILlamaForCausalLM.from_pretrained("me/steered")
        model.push_to_hub("me/again")
    """
    client(WITH_PACKAGE + dedent(script), made, tmp_path / "directions.safetensors")
    files = moving.repos["me/again"].at("main")[1]
    assert json.loads(files["tokenizer_config.json"])["model_max_length"] > 7
    assert files.get("LICENSE") == (b"first" if made == "from_pretrained" else None)


def test_a_page_of_a_repo_on_the_hub_is_of_the_models_commit(moving, client):
    pytest.importorskip("gradio", reason="gradio is not installed: make test-space")
    script = """
        from iti_llama.toolkit.cli.options import load
        from iti_llama.toolkit.space.build_page import page_of
        page = page_of("me/steered", *load("me/steered", device_map="cpu"))
        assert page.repo.alpha == page.steered.alpha == 1.5
        assert page.repo.opened.repo.endswith(page.steered.model._iti_revision)
        about = page.answer("f", 1.5)[2]["iti"]["default"]
        assert (about["repo"], about["commit"]) == ("me/steered", page.steered.model._iti_revision)
    """
    client(WITH_PACKAGE + dedent(script))


def test_an_adapter_names_the_commit_of_its_base(moving, client, tmp_path):
    """And not what the repo says of it, which has moved on when the adapter is loaded."""
    commit = moving.repos["meta/base"].at("main")[0]
    script = """
        from pathlib import Path
        from iti_llama.toolkit.export.export import export
        export("me/steered", "peft", Path(sys.argv[1]), with_canary=False)
        export("me/steered", "peft", Path(sys.argv[2]), with_canary=False, base_name="meta/other")
    """
    client(WITH_PACKAGE + dedent(script), tmp_path / "out", tmp_path / "other")
    saved, other = (json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("out", "other"))
    assert (saved["base_model_name_or_path"], saved["revision"]) == ("meta/base", commit)
    assert (other["base_model_name_or_path"], other["revision"]) == ("meta/other", None)


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_conversion_reads_its_base_at_one_commit(hub, client, revision, tmp_path):
    """Its config, the weights that are compared with the baked checkpoint's, and its tokenizer."""
    base, moved = tiny_llama(head_dim=16), tiny_llama(seed=5, head_dim=16)
    base.save_pretrained(tmp_path / "base")
    moved.save_pretrained(tmp_path / "moved")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    files = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    hub.repos["meta/base"] = Repo()
    hub.repos["meta/base"].commit(files)
    tokenizer = json.loads(files["tokenizer_config.json"]) | {"model_max_length": 7}
    weights = (tmp_path / "moved" / "model.safetensors").read_bytes()
    hub.moves["meta/base"] = {
        "model.safetensors": weights, "tokenizer_config.json": json.dumps(tokenizer).encode()
    }  # fmt: skip
    steered = ITILlamaForCausalLM.from_base(tmp_path / "base", some_directions(base.config))
    steered.merge_and_unload().save_pretrained(tmp_path / "baked")
    script = """
        from iti_llama.toolkit.convert.convert import convert
        convert(sys.argv[1], "meta/base", sys.argv[2], base_revision=sys.argv[3] or None)
    """
    client(WITH_PACKAGE + dedent(script), tmp_path / "baked", tmp_path / "out", revision or "")
    assert not hub.moves.get("meta/base")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] > 7
    assert json.loads((tmp_path / "out" / "config.json").read_text()).get("base_model_revision") == revision
