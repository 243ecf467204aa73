"""Push, pull and verify, of both forms, against the server on loopback."""

import json
import shutil
import sys

import pytest
import torch
from hub import Repo
from huggingface_hub import ModelCard
from reference import some_directions, tiny_tokenizer
from test_hub import LOAD, client, hub  # noqa: F401 (fixtures)

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit import cli
from iti_llama.toolkit.bundled import ROOT
from iti_llama.toolkit.card import name_repo
from iti_llama.toolkit.publish import files_to_push
from iti_llama.toolkit.verify import verify


ADAPTER = pytest.mark.parametrize("folder", ["adapter"], indirect=True)
COMMAND = """
    del sys.modules["iti_llama"]
    sys.argv = ["iti-llama", *sys.argv[1:]]
    from iti_llama.toolkit.cli import main
    main()
"""


@pytest.fixture(params=["adapter", "self-contained"])
def folder(request, base_dir, directions, tmp_path):
    """A steered repo on disk, with what a user's folder also holds."""
    model = ITILlamaForCausalLM.from_base(base_dir, directions, alpha=1.5)
    model.config.base_model_name_or_path = "meta/base" if request.param == "adapter" else None
    path = tmp_path / "repo"
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    (path / "README.md").write_text(
        '---\nlicense: llama3.1\n---\n\n# x\n\n```python\nrepo = "REPO"\nload(repo)\n```\n'
    )
    (path / "figures").mkdir()
    (path / "figures" / "null.png").write_bytes(b"png")
    for name in (
        "tests/test_x.py",
        ".env",
        "secrets.json",
        "__pycache__/x.pyc",
        "optimizer.pt",
        "notes.txt",
        ".git/config",
    ):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("hf_secret")
    return path


@pytest.fixture
def form(folder):
    return (
        json.loads((folder / "config.json").read_text())["base_model_name_or_path"] and "adapter"
    ) or "self-contained"


def test_what_is_pushed_is_what_a_repo_holds(folder, form):
    names = set(files_to_push(folder))
    expected = {"configuration_iti_llama.py", "modeling_iti_llama.py", "iti_directions.py", "config.json", "README.md"}
    expected |= {
        "generation_config.json",
        "iti_directions.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "figures/null.png",
    }
    expected |= {"model.safetensors"} if form == "self-contained" else set()
    assert names - {"special_tokens_map.json"} == expected


def test_push_then_pull_gives_the_steered_model(folder, form, hub, client, tmp_path):  # noqa: F811
    client(COMMAND, "push", folder, "me/steered", "--commit-message", "first")
    held = hub.repos["me/steered"].at("main")[1]
    assert not any(b"hf_secret" in body for body in held.values())
    assert ("model.safetensors" in held) == (form == "self-contained")
    card = ModelCard(held["README.md"].decode())
    assert 'repo = "me/steered"' in card.text
    if form == "adapter":
        assert (card.data.base_model, card.data.to_dict()["base_model_relation"]) == ("meta/base", "adapter")
    client(LOAD, tmp_path / "pulled.pt", "{}", cache="another machine")
    model = ITILlamaForCausalLM.from_pretrained(folder) if form == "self-contained" else None
    if model is not None:
        ids = torch.randint(3, 97, (3, 11), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.testing.assert_close(torch.load(tmp_path / "pulled.pt"), model(ids).logits)
    client(LOAD, tmp_path / "cached.pt", "{}", cache="another machine", offline=True)
    assert torch.equal(torch.load(tmp_path / "cached.pt"), torch.load(tmp_path / "pulled.pt"))


def test_the_bundled_model_can_be_pushed_as_it_is():
    names = files_to_push(ROOT)
    assert {
        "model.safetensors",
        "iti_directions.safetensors",
        "tokenizer.json",
        "README.md",
        "figures/sweep.png",
    } <= set(names)
    assert not any(name.startswith(("tests", "toolkit", "build", ".")) for name in names)


def test_hf_upload_of_the_project_gives_a_repo_that_loads(hub, client, tmp_path):  # noqa: F811
    ours = shutil.ignore_patterns(".git", ".venv*", "build", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, tmp_path / "root", ignore=ours)
    for name in (".env", ".venv/token", "build/base/optimizer.pt", "toolkit/__pycache__/x.pyc"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text("hf_secret")
    upload = """
        from huggingface_hub.cli.hf import main
        sys.argv = ["hf", "upload", "me/steered", sys.argv[1]]
        main()
    """
    client(upload, tmp_path / "root")
    held = hub.repos["me/steered"].at("main")[1]
    assert {"modeling_iti_llama.py", "model.safetensors", "README.md", "tests/hub.py"} <= set(held)
    assert b"hf_secret" not in held.values()
    script = """
        model = AutoModelForCausalLM.from_pretrained("me/steered", trust_remote_code=True)
        assert model.iti_alpha > 0
        save(model, sys.argv[1])
    """
    client(script, tmp_path / "pulled.pt", cache="another machine")
    ids = torch.randint(3, 97, (3, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            torch.load(tmp_path / "pulled.pt"), ITILlamaForCausalLM.from_pretrained(ROOT)(ids).logits
        )


@ADAPTER
def test_new_directions_are_seen_after_a_new_pull_and_old_revisions_keep_theirs(folder, hub, client, tmp_path):  # noqa: F811
    client(COMMAND, "push", folder, "me/steered")
    first = hub.repos["me/steered"].branches["main"]
    client(LOAD, tmp_path / "1.pt", "{}")
    other = some_directions(ITILlamaForCausalLM.config_class.from_pretrained(folder), seed=8)
    other.save(folder / "iti_directions.safetensors")
    client(COMMAND, "push", folder, "me/steered")
    client(LOAD, tmp_path / "2.pt", "{}")
    client(LOAD, tmp_path / "old.pt", f"{{'revision': '{first}', 'code_revision': '{first}'}}")
    one, two, old = (torch.load(tmp_path / f"{name}.pt") for name in ("1", "2", "old"))
    assert torch.equal(one, old) and not torch.allclose(one, two, atol=1e-3)


@ADAPTER
def test_pull_requests_branches_and_private_repos(folder, hub, client, tmp_path):  # noqa: F811
    client(COMMAND, "push", folder, "me/steered", "--private")
    repo = hub.repos["me/steered"]
    assert repo.locked == "RepoNotFound"
    before = repo.branches["main"]
    client(COMMAND, "push", folder, "me/steered", "--create-pr")
    client(COMMAND, "push", folder, "me/steered", "--revision", "v2")
    assert repo.branches["main"] == before
    assert set(repo.branches) == {"main", "refs/pr/1", "v2"}
    client(LOAD, tmp_path / "v2.pt", "{'revision': 'v2'}")
    said = client(LOAD, tmp_path / "no.pt", "{}", token=None, cache="a stranger's", fails=True)
    assert "me/steered" in said


@ADAPTER
def test_a_cut_upload_leaves_no_commit_and_a_cut_download_no_file(folder, hub, client, tmp_path):  # noqa: F811
    hub.cut["PUT"] = 1  # the client tries again by itself
    client(COMMAND, "push", folder, "me/steered")
    held = hub.repos["me/steered"].at("main")[1]
    name = "iti_directions.safetensors"
    assert held[name] == (folder / name).read_bytes()
    assert len(hub.repos["me/steered"].commits) == 2  # creation, and one push

    hub.cut["GET"] = 1000
    client(LOAD, tmp_path / "no.pt", "{}", cache="new", fails=True)
    kept = [path for path in (tmp_path / "new").rglob("*.safetensors") if "snapshots" in path.parts]
    assert not kept and not (tmp_path / "no.pt").exists()
    hub.cut["GET"] = 0
    client(LOAD, tmp_path / "yes.pt", "{}", cache="new")
    assert (tmp_path / "yes.pt").exists()


def test_what_is_not_a_repo_is_not_pushed(folder, form, base_dir, tmp_path):
    def edited(**fields):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    shutil.copy(folder / "config.json", tmp_path / "config.json")
    edited(base_model_name_or_path=str(base_dir))
    with pytest.raises(ValueError, match="nobody else can load"):
        files_to_push(folder)
    shutil.copy(tmp_path / "config.json", folder / "config.json")
    edited(iti_top_k=99)
    with pytest.raises(ValueError, match="iti_top_k is 99"):
        files_to_push(folder)
    shutil.copy(tmp_path / "config.json", folder / "config.json")
    edited(base_model_name_or_path=None)
    (folder / "model.safetensors").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        files_to_push(folder)
    (folder / "modeling_iti_llama.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"no modeling_iti_llama\.py"):
        files_to_push(folder)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        files_to_push(tmp_path / "empty")


# Verify ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clean(folder):
    for name in ("tests", "__pycache__"):
        shutil.rmtree(folder / name)
    (folder / "optimizer.pt").unlink()
    return folder


def test_a_repo_of_ours_is_found_to_be_ours(clean, form):
    found = verify(str(clean))
    assert found.problems == ()
    assert {file.status for file in found.code} == {"ours"} and len(found.code) == 3
    weights = "the weights are in the repo" if form == "self-contained" else "the weights come from meta/base"
    assert any(note.startswith(weights) for note in found.notes)
    assert any("trust_remote_code=True runs" in note for note in found.notes)


def _change(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def _disguise(folder):
    """Code in a folder below, in what looks like a checkout of the project."""
    (folder / "pyproject.toml").write_text("")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text("import os")


def _link(folder):
    (folder.parent / "elsewhere").mkdir()
    (folder / "custom_generate").symlink_to(folder.parent / "elsewhere")


TAMPERED = [
    (_disguise, "custom_generate/generate.py is no file of this package"),
    (_link, "the repo has a custom_generate folder"),
    (lambda f: (f / "__init__.py").write_text("import os"), "__init__.py is not this package's own"),
    (
        lambda f: (f / "modeling_iti_llama.py").write_text("import os"),
        "modeling_iti_llama.py is not this package's own",
    ),
    (lambda f: (f / "extra.py").write_text("x = 1"), "extra.py is no file of this package"),
    (lambda f: (f / "directions.pkl").write_bytes(b"\x80\x04N."), "directions.pkl can hold a pickle"),
    (lambda f: (f / "pytorch_model.bin").write_bytes(b""), "pytorch_model.bin can hold a pickle"),
    (
        lambda f: _change(f / "config.json", "modeling_iti_llama.ITI", "evil/repo--modeling.ITI"),
        "which is not this package's",
    ),
    (lambda f: (f / "iti_directions.safetensors").write_bytes(b"no"), "the directions cannot be used"),
    (lambda f: (f / "iti_directions.safetensors").unlink(), "there is no such file"),
    (lambda f: _change(f / "config.json", '"iti_llama"', '"llama"'), "model_type 'llama'"),
    (lambda f: (f / "custom_generate").mkdir() or (f / "custom_generate" / "x.txt").write_text(""), "custom_generate"),
]


@ADAPTER
@pytest.mark.parametrize("tamper,said", TAMPERED)
def test_what_speaks_against_a_repo_is_said(clean, tamper, said):
    tamper(clean)
    assert any(said in problem for problem in verify(str(clean)).problems)


@ADAPTER
def test_verify_asks_the_hub_and_runs_nothing(folder, hub, client, tmp_path):  # noqa: F811
    client(COMMAND, "push", folder, "me/steered")
    client(COMMAND, "verify", "me/steered")
    files = hub.repos["me/steered"].at("main")[1]
    ran = tmp_path / "ran"
    evil = f"open({str(ran)!r}, 'w')\n".encode()
    hub.repos["me/steered"].commit(files | {"modeling_iti_llama.py": evil})
    client(COMMAND, "verify", "me/steered", fails=True, cache="another")
    assert not ran.exists()


@ADAPTER
def test_the_command_exits_with_2_where_there_are_problems(clean, monkeypatch, capsys):
    for problems in (False, True):
        if problems:
            (clean / "x.pkl").write_bytes(b"")
        monkeypatch.setattr(sys, "argv", ["iti-llama", "verify", str(clean)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert (stopped.value.code or 0) == (2 if problems else 0)
    assert "x.pkl can hold a pickle" in capsys.readouterr().out


# Cards -------------------------------------------------------------------------------------------------------------------


def test_the_licence_is_that_of_the_base(hub, client):  # noqa: F811
    """As its own card says; where it says nothing, as its name suggests."""
    hub.repos["meta/carded"] = Repo()
    hub.repos["meta/carded"].commit({"README.md": b"---\nlicense: llama2\n---\n# x\n"})
    script = """
        del sys.modules["iti_llama"]
        from iti_llama.toolkit.card import base_license
        assert base_license("meta/carded") == "llama2"
        assert base_license("meta-llama/Llama-3.1-8B-Instruct") == "llama3.1"
        assert base_license("meta-llama/Meta-Llama-3-8B") == "llama3"
        assert base_license("someone/else") is None and base_license(None) is None
    """
    client(script)


def test_the_quick_start_names_the_repo():
    text = name_repo('x\nrepo = "."  # here\n`iti-llama verify REPO`\n', "me/y")
    assert text == 'x\nrepo = "me/y"\n`iti-llama verify me/y`\n'
