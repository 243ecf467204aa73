"""Push, pull and verify, of both forms, against the server on loopback."""

import hashlib
import json
import shutil
import textwrap
from pathlib import Path

import pytest
import torch
from apart import run_apart
from hub import LOAD, SETUP, TOKEN, Hub, Repo
from huggingface_hub import ModelCard
from reference import some_directions, tiny_tokenizer
from steered import replace_directions

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.keep_labelled_set import read_parts
from iti_llama.toolkit.measure.labelled_tasks import labelled_set
from iti_llama.toolkit.measure.measure_steering import measure_steering
from iti_llama.toolkit.repo.card import renew_card
from iti_llama.toolkit.repo.folder import CODE
from iti_llama.toolkit.repo.push import _saved, files_to_push
from iti_llama.toolkit.repo.verify import verify


ADAPTER = pytest.mark.parametrize("folder", ["adapter"], indirect=True)


COMMAND = """
    del sys.modules["iti_llama"]
    sys.argv = ["iti-llama", *sys.argv[1:]]
    from iti_llama.toolkit.cli import main
    main()
"""


def test_what_is_pushed_is_what_a_repo_holds(folder, form):
    names = set(files_to_push(folder))
    expected = {*CODE, "config.json", "README.md"}
    expected |= {
        "generation_config.json",
        "iti_directions.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "figures/null.png",
    }
    expected |= {"model.safetensors"} if form == "self-contained" else set()
    assert names - {"special_tokens_map.json"} == expected


LINKED = ["LICENSE", "NOTICE", "README.md", "chat_template.jinja", "tokenizer.json", "sweep.json", "figures",
          "figures/null.png", "modeling_iti_llama.py", "iti_directions.safetensors"]  # fmt: skip


@ADAPTER
@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
def test_what_a_link_leads_to_is_not_published(folder, name, inside, tmp_path):
    place = folder / name
    elsewhere = folder / "notes" / place.name if inside else tmp_path / "elsewhere" / place.name
    elsewhere.parent.mkdir(exist_ok=True)
    place.rename(elsewhere) if place.exists() else elsewhere.write_text("{}")
    place.symlink_to(elsewhere)
    with pytest.raises(ValueError, match=f"repo/{name}: is a link to {elsewhere}"):
        files_to_push(folder)


@ADAPTER
def test_a_folder_that_is_itself_reached_by_a_link_and_a_snapshot_of_the_hub_are_published(folder, tmp_path):
    (tmp_path / "by-link").symlink_to(folder)
    assert files_to_push(tmp_path / "by-link") == files_to_push(folder)
    snapshot, blobs = tmp_path / "models--me--x" / "snapshots" / "c0ffee", tmp_path / "models--me--x" / "blobs"
    blobs.mkdir(parents=True)
    for number, name in enumerate(names := files_to_push(folder)):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, blobs / str(number))
        (snapshot / name).symlink_to(blobs / str(number))
    assert files_to_push(snapshot) == names
    (snapshot / "LICENSE").symlink_to(tmp_path / "by-link" / "README.md")
    with pytest.raises(ValueError, match="LICENSE: is a link to"):
        files_to_push(snapshot)


@pytest.mark.parametrize("folder", ["self-contained"], indirect=True)
def test_of_weights_those_are_published_that_the_index_names(folder):
    strays = ("model_before_finetune.safetensors", "model-old.safetensors", "model.fp16.safetensors")
    for name in strays:
        shutil.copy(folder / "model.safetensors", folder / name)
    assert [name for name in files_to_push(folder) if name.startswith("model") and not name.endswith(".py")] == [
        "model.safetensors"
    ]
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}))
    weights = ["model-00001-of-00001.safetensors", "model.safetensors.index.json"]
    assert [name for name in files_to_push(folder) if name.startswith("model") and not name.endswith(".py")] == weights
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../private.safetensors"}}))
    with pytest.raises(ValueError, match=r"index\.json: names '\.\./private\.safetensors'"):
        files_to_push(folder)
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "gone.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"index\.json: names gone\.safetensors"):
        files_to_push(folder)


@ADAPTER
def test_what_is_to_be_pushed_is_told_before_anything_is_sent(folder, hub, client):
    script = """
        del sys.modules["iti_llama"]
        from pathlib import Path
        import iti_llama

        def stop(names):
            print("told", *names, file=sys.stderr)
            raise SystemExit(1)

        iti_llama.push(Path(sys.argv[1]), "me/steered", announce=stop)
    """
    told = client(script, folder, fails=True).partition("told ")[2].split()
    assert "me/steered" not in hub.repos and not any(line.startswith(("POST", "PUT")) for line in hub.requests)
    client(COMMAND, "push", folder, "me/steered")
    assert set(told) == set(hub.repos["me/steered"].at("main")[1]) - {".gitattributes"}


@ADAPTER
def test_a_base_is_not_replaced_by_its_adapter(folder, hub, client):
    before = hub.repos["meta/base"].at("main")
    assert "meta/base is the base model" in client(COMMAND, "push", folder, "meta/base", fails=True)
    assert hub.repos["meta/base"].at("main") == before


def test_a_model_in_memory_takes_no_linked_files_along(measured_dir, tmp_path):
    source = Path(shutil.copytree(measured_dir, tmp_path / "source"))
    model = ITILlamaForCausalLM.from_pretrained(source)
    model.config.base_model_name_or_path = None
    for name in ("LICENSE", "tokenizer.json"):
        (source / name).rename(tmp_path / name)
        (source / name).symlink_to(tmp_path / name)
        with pytest.raises(ValueError, match=f"source/{name}: is a link to"):
            _saved(model, None, tmp_path / f"saved-{name}", None)
        (source / name).unlink()
        (tmp_path / name).rename(source / name)


def test_push_then_pull_gives_the_steered_model(folder, form, hub, client, tmp_path):
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
        "sweep.json",
    } <= set(names)
    assert not any(name.startswith(("tests", "toolkit", "build", ".")) for name in names)


def test_hf_upload_of_the_project_gives_a_repo_that_loads(hub, client, tmp_path):
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
def test_new_directions_are_seen_after_a_new_pull_and_old_revisions_keep_theirs(folder, hub, client, tmp_path):
    client(COMMAND, "push", folder, "me/steered")
    first = hub.repos["me/steered"].branches["main"]
    client(LOAD, tmp_path / "1.pt", "{}")
    other = some_directions(ITILlamaForCausalLM.config_class.from_pretrained(folder), seed=8)
    replace_directions(folder, other)
    client(COMMAND, "push", folder, "me/steered")
    client(LOAD, tmp_path / "2.pt", "{}")
    client(LOAD, tmp_path / "old.pt", f"{{'revision': '{first}', 'code_revision': '{first}'}}")
    one, two, old = (torch.load(tmp_path / f"{name}.pt") for name in ("1", "2", "old"))
    assert torch.equal(one, old) and not torch.allclose(one, two, atol=1e-3)


@ADAPTER
def test_pull_requests_branches_and_private_repos(folder, hub, client, tmp_path):
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
def test_a_cut_upload_leaves_no_commit_and_a_cut_download_no_file(folder, hub, client, tmp_path):
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
    with pytest.raises(FileNotFoundError, match=r"empty: no such folder"):
        files_to_push(tmp_path / "empty")


FROM_MEMORY = """
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
    for call in (lambda: model.push_to_hub("me/x"), lambda: model.save_pretrained(sys.argv[2], push_to_hub=True)):
        try:
            call()
        except (ImportError, ValueError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    del sys.modules["iti_llama"]
    for name, base in (("me/adapter", "meta/base"), ("me/whole", None)):
        model.config.base_model_name_or_path = base
        model.push_to_hub(name)

    measured = AutoModelForCausalLM.from_pretrained(sys.argv[3], trust_remote_code=True)
    measured.config.base_model_name_or_path = "meta/base"
    measured.push_to_hub("me/measured")
    model = AutoModelForCausalLM.from_pretrained("me/measured", trust_remote_code=True)
    model.push_to_hub("me/again")
    model.iti_alpha = 2.5
    model.push_to_hub("me/stronger")
    model.iti_alpha = 1.0
    model.config.base_model_name_or_path = None
    model.push_to_hub("me/measured-whole")
    with torch.no_grad():
        model.lm_head.weight[0] += 1
    model.push_to_hub("me/trained")
    model = AutoModelForCausalLM.from_pretrained("me/measured", trust_remote_code=True)
    model.set_iti_directions(model.iti_directions.top(2))
    model.push_to_hub("me/other-directions")
    model.config.name_or_path = model.name_or_path = "me/gone"
    model.push_to_hub("me/alone")
"""

TWICE = """
    import os, sys
    from iti_llama.toolkit.cli import main
    token = os.environ.pop("HF_TOKEN")
    try:
        main()
    except SystemExit as stopped:
        assert stopped.code == 2
    os.environ["HF_TOKEN"] = token
    main()
"""
"""The command without a token, then with it."""


@pytest.fixture(scope="module")
def run_against(tmp_path_factory):
    """As `client`, for a server that several tests look at."""

    def run(server: Hub, script: str, *arguments) -> str:
        environment = server.environment(tmp_path_factory.mktemp("home")) | {"HF_TOKEN": TOKEN}
        result = run_apart(script, *arguments, environment=environment)
        assert result.returncode == 0, result.stderr
        return result.stderr

    return run


@pytest.fixture(scope="module")
def measured_dir(fitted_dir, tmp_path_factory):
    """A fitted repo that was measured as it is, with its card and a licence that its owner wrote."""
    folder = tmp_path_factory.mktemp("measured") / "repo"
    shutil.copytree(fitted_dir, folder)
    model = ITILlamaForCausalLM.from_pretrained(folder).eval()
    pairs = labelled_set("held-out:test", read_parts(folder, "test"), pairs=True)
    (folder / "evaluation.json").write_text(json.dumps(measure_steering(model, tiny_tokenizer(), pairs, None).record))
    (folder / "LICENSE").write_text("Be kind.")
    card = folder / "README.md"
    licence = "license: other\nlicense_name: license-of-the-base-model"
    card.write_text(card.read_text().replace(licence, "license: apache-2.0") + "\nThanks to my cat.\n")
    assert renew_card(folder)
    return folder


@pytest.fixture(scope="module")
def from_memory(run_against, fitted_dir, taught_dir, measured_dir, tmp_path_factory):
    """A model pushed from memory: ({repo: files}, what was said, the folder that it was saved to in between)."""
    with Hub() as server:
        server.repos["meta/base"] = Repo()
        server.repos["meta/base"].commit({path.name: path.read_bytes() for path in taught_dir.iterdir()})
        saved = tmp_path_factory.mktemp("saved") / "repo"
        script = SETUP + textwrap.dedent(FROM_MEMORY)
        said = run_against(server, script, fitted_dir, saved, measured_dir)
        return {name: repo.at("main")[1] for name, repo in server.repos.items()}, said, saved


def sums_of(files: dict[str, bytes]) -> dict[str, str]:
    lines = files["SHA256SUMS"].decode().splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


@pytest.mark.parametrize("name,base", [("me/adapter", "meta/base"), ("me/whole", None)])
def test_a_model_in_memory_is_pushed_as_a_whole_repo(name, base, from_memory, taught_dir):
    files = from_memory[0][name]
    assert {*CODE, "config.json", "iti_directions.safetensors", "tokenizer.json", "README.md"} <= set(files)
    assert ("model.safetensors" in files) == (base is None)
    assert files["tokenizer.json"] == (taught_dir / "tokenizer.json").read_bytes()
    listed = sums_of(files)
    assert set(listed) == set(files) - {"SHA256SUMS", ".gitattributes"}
    assert all(hashlib.sha256(files[file]).hexdigest() == digest for file, digest in listed.items())
    assert not any(str(taught_dir.parents[1]).encode() in body for body in files.values())


@pytest.mark.parametrize("name,base", [("me/adapter", "meta/base"), ("me/whole", None)])
def test_a_model_in_memory_gets_a_card_that_names_its_repo(name, base, from_memory):
    card = ModelCard(from_memory[0][name]["README.md"].decode())
    assert f'repo = "{name}"' in card.text and f"`iti-llama verify {name}`" in card.text
    assert f"# {'base' if base else 'taught'}, steered: returns x\n" in card.text
    assert card.data.base_model == base


@pytest.mark.parametrize("name", ["me/measured", "me/again", "me/measured-whole"])
def test_a_measured_model_is_pushed_with_its_records(name, from_memory, measured_dir):
    files = from_memory[0][name]
    for kept in ("iti_report.json", "evaluation.json", "LICENSE", "figures/head_auc.png"):
        assert files[kept] == (measured_dir / kept).read_bytes()
    card = ModelCard(files["README.md"].decode())
    assert "| steered (alpha 1) |" in card.text and "Not measured" not in card.text and "| fit | |" in card.text
    assert f'repo = "{name}"' in card.text and "Thanks to my cat." in card.text
    assert card.data.license == "apache-2.0" and len(card.data.eval_results) == 2
    assert not any(file.endswith(".jsonl") for file in files)


@pytest.mark.parametrize("name", ["me/stronger", "me/trained", "me/other-directions"])
def test_a_model_that_was_changed_is_pushed_as_not_measured(name, from_memory):
    files = from_memory[0][name]
    card = ModelCard(files["README.md"].decode())
    assert "Not measured" in card.text and "| steered (alpha 1) |" not in card.text and card.data.eval_results is None
    assert card.data.license == "apache-2.0" and "Thanks to my cat." in card.text and "LICENSE" in files
    kept = {"iti_report.json", "evaluation.json", "figures/head_auc.png"} & set(files)
    assert bool(kept) == ("| fit | |" in card.text) == (name == "me/stronger")


def test_a_model_whose_repo_is_gone_is_pushed_without_its_records(from_memory):
    repos, said, _ = from_memory
    assert "me/gone cannot be read, so its card and records are left out" in said
    assert "Not measured" in repos["me/alone"]["README.md"].decode() and "tokenizer.json" in repos["me/alone"]


def test_a_card_of_its_owners_is_kept_for_the_strength_that_it_speaks_of(measured_dir, tmp_path):
    source = Path(shutil.copytree(measured_dir, tmp_path / "source"))
    (source / "README.md").write_text("---\nlicense: mit\ntags:\n- cats\n---\n\n# Mine\n\nalpha 1 was measured.\n")
    model = ITILlamaForCausalLM.from_pretrained(source)
    model.config.base_model_name_or_path = None
    for alpha, kept in ((1.0, True), (2.0, False)):
        model.iti_alpha = alpha
        card = ModelCard.load(_saved(model, None, tmp_path / f"{alpha}", None) / "README.md")
        assert ("alpha 1 was measured." in card.text) == kept
        assert (card.data.license, card.data.tags) == ("mit", ["cats"])


def test_pushing_from_a_model_needs_the_package_and_saving_does_not_push(from_memory):
    repos, said, saved = from_memory
    assert "ImportError: it needs the package, for tokenizer and card: `pip install iti-llama`" in said
    assert "ValueError: push_to_hub=True would leave out tokenizer and card: call model.push_to_hub(repo_id)" in said
    assert {"me/adapter", "me/whole"} < set(repos) and "me/x" not in repos and not saved.exists()


@pytest.fixture(scope="module")
def from_folder(run_against, fitted_dir, tmp_path_factory):
    """A folder with what stays at home, pushed by a short name: ({repo: files}, the folder, what
    was said without a token)."""
    folder = tmp_path_factory.mktemp("pushed") / "repo"
    shutil.copytree(fitted_dir, folder)
    config = json.loads((folder / "config.json").read_text()) | {"base_model_name_or_path": "meta/base"}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("completions.jsonl", "completions_1_6_all.jsonl", "sweep_completions.jsonl", "notes.md"):
        (folder / name).write_text("hf_secret")
    (folder / "evaluation.json").write_text("{}")
    with Hub() as server:
        said = run_against(server, TWICE, "push", "--model", folder, "short-name")
        return {name: repo.at("main")[1] for name, repo in server.repos.items()}, folder, said


def test_a_short_name_is_completed_by_the_hub(from_folder):
    repos, folder, _ = from_folder
    assert set(repos) == {"me/short-name"}
    assert b'repo = "me/short-name"' in repos["me/short-name"]["README.md"]
    assert 'repo = "."' in (folder / "README.md").read_text()  # here it still loads from here


def test_the_data_and_the_completions_are_never_pushed(from_folder):
    files = from_folder[0]["me/short-name"]
    assert {"iti_report.json", "evaluation.json", "figures/head_auc.png", "tokenizer.json"} <= set(files)
    assert not any(name.endswith((".jsonl", "notes.md")) for name in files)
    assert all(hashlib.sha256(files[name]).hexdigest() == digest for name, digest in sums_of(files).items())


def test_a_repo_that_was_pushed_is_what_its_manifest_says(from_folder, tmp_path):
    for name, body in from_folder[0]["me/short-name"].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(body)
    assert verify(str(tmp_path)).problems == ()
    (tmp_path / "README.md").write_text("x")
    assert any("README.md is not the file that was pushed" in problem for problem in verify(str(tmp_path)).problems)


def test_without_a_token_the_way_to_one_is_said(from_folder):
    said = from_folder[2]
    assert "error: the Hub refuses to write to short-name (401)" in said
    assert "hf auth login" in said and "Traceback" not in said


def test_a_model_on_a_base_in_a_folder_is_not_pushed_from_memory(steered):
    with pytest.raises(ValueError, match="which nobody else can load: set it to the base's Hub repo, or to None"):
        steered.push_to_hub("me/x")


def test_a_folder_without_card_and_tokenizer_is_pushed_with_both(hub, client, steered, tmp_path):
    """As `save_pretrained` leaves it: the card is written from the files, the tokenizer is the base's."""
    steered.config.base_model_name_or_path = "meta/base"
    steered.save_pretrained(tmp_path / "bare")
    before = sorted(path.name for path in (tmp_path / "bare").iterdir())
    client(COMMAND, "push", tmp_path / "bare", "me/bare")
    held = hub.repos["me/bare"].at("main")[1]
    assert held["tokenizer.json"] == hub.repos["meta/base"].at("main")[1]["tokenizer.json"]
    card = ModelCard(held["README.md"].decode())
    assert 'repo = "me/bare"' in card.text and card.data.base_model == "meta/base"
    assert sorted(path.name for path in (tmp_path / "bare").iterdir()) == before


def test_a_repo_that_nobody_could_use_is_not_pushed(hub, client, steered, tmp_path):
    steered.config.base_model_name_or_path = None
    steered.save_pretrained(tmp_path / "bare")
    error = client(COMMAND, "push", tmp_path / "bare", "me/bare", fails=True)
    assert "bare: no tokenizer, without which nobody can use the repo" in error
    assert "me/bare" not in hub.repos


def test_pictures_are_pushed_that_fit_and_sweep_draw_and_no_other(folder):
    (folder / "figures").mkdir(exist_ok=True)
    for name in ("head_auc", "sweep", "my-private-screenshot"):
        (folder / "figures" / f"{name}.png").write_bytes(b"\x89PNG")
    pushed = set(files_to_push(folder))
    assert {"figures/head_auc.png", "figures/sweep.png"} <= pushed
    assert "figures/my-private-screenshot.png" not in pushed
