"""Push, pull and verify, of both forms, against the server on loopback."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iti_llama.toolkit import cli
from iti_llama.toolkit.cli.app import app
from iti_llama.toolkit.foundation.package import ROOT, __version__
from iti_llama.toolkit.repo.folder import CODE
from iti_llama.toolkit.repo.verify import released, verify


ADAPTER = pytest.mark.parametrize("folder", ["adapter"], indirect=True)


COMMAND = """
    del sys.modules["iti_llama"]
    sys.argv = ["iti-llama", *sys.argv[1:]]
    from iti_llama.toolkit.cli import main
    main()
"""


@pytest.fixture
def clean(folder):
    for name in ("tests", "__pycache__"):
        shutil.rmtree(folder / name)
    (folder / "optimizer.pt").unlink()
    return folder


def test_a_repo_of_ours_is_found_to_be_ours(clean, form):
    found = verify(str(clean))
    assert found.problems == ()
    assert {file.status for file in found.code} == {"ours"} and len(found.code) == len(CODE)
    weights = "the weights are in the repo" if form == "self-contained" else "the weights come from meta/base"
    assert any(note.startswith(weights) for note in found.notes)
    assert any("trust_remote_code=True runs" in note for note in found.notes)


def test_code_of_an_earlier_release_is_known_and_no_problem(clean):
    shutil.copy(Path(__file__).with_name("iti_directions-0.1.0.txt"), clean / "iti_directions.py")
    found = verify(str(clean))
    assert found.problems == ()
    assert {file.name: file.status for file in found.code}["iti_directions.py"] == "released 0.1.0"


def test_the_table_of_released_code_has_no_other_files_for_this_version():
    own = {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in CODE}
    assert released().get(__version__, own) == own


def _change(path, old, new, times=-1):
    path.write_text(path.read_text().replace(old, new, times))


def _dangle(path, to="/nowhere"):
    path.unlink(missing_ok=True)
    path.symlink_to(to)


def _disguise(folder):
    """Code in a folder below, in what looks like a checkout of the project."""
    (folder / "pyproject.toml").write_text("")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text("import os")


def _link(folder):
    (folder.parent / "elsewhere").mkdir()
    (folder / "custom_generate").symlink_to(folder.parent / "elsewhere")


TAMPERED = [
    (_disguise, "custom_generate/generate.py is not a file of this package"),
    (_link, "the repo has a custom_generate folder"),
    (lambda f: (f / "__init__.py").write_text("import os"), "__init__.py is not this package's own"),
    (
        lambda f: (f / "modeling_iti_llama.py").write_text("import os"),
        "modeling_iti_llama.py is not this package's own",
    ),
    (lambda f: (f / "extra.py").write_text("x = 1"), "extra.py is not a file of this package"),
    (lambda f: (f / "directions.pkl").write_bytes(b"\x80\x04N."), "directions.pkl can hold a pickle"),
    (lambda f: (f / "pytorch_model.bin").write_bytes(b""), "pytorch_model.bin can hold a pickle"),
    (
        lambda f: _change(f / "config.json", "modeling_iti_llama.ITI", "evil/repo--modeling.ITI"),
        "which is not this package's",
    ),
    (lambda f: (f / "iti_directions.safetensors").write_bytes(b"no"), "it will not load: "),
    (lambda f: (f / "iti_directions.safetensors").unlink(), "no iti_directions.safetensors"),
    (lambda f: _change(f / "config.json", '"iti_llama"', '"llama"'), "model_type 'llama'"),
    (lambda f: (f / "RUN.PY").write_text("x"), "RUN.PY is not a file of this package"),
    (lambda f: (f / "w.PT").write_bytes(b""), "w.PT can hold a pickle"),
    (lambda f: (f / "a.so").write_bytes(b""), "a.so is compiled code"),
    (lambda f: (f / "b.pyc").write_bytes(b""), "b.pyc is compiled code"),
    (lambda f: (f / "x.JSON").write_text('{"auto_map": {"A": "b.c"}}'), "x.JSON maps A to b.c"),
    (
        lambda f: (f / "sub").mkdir() or (f / "sub" / "tokenizer.json").write_text('{"auto_map": "b.c"}'),
        "sub/tokenizer.json maps",
    ),
    (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}'),
        "takes weights from '../../secret.safetensors', which is not a file of the repo",
    ),
    (
        lambda f: _change(f / "config.json", "{", '{"transformers_weights": "../base/model.safetensors",', 1),
        "config.json takes weights from '../base/model.safetensors'",
    ),
    (
        lambda f: _change(f / "config.json", "{", '{"iti_alfa": 3,', 1),
        "it will not load: ",
    ),
    (
        lambda f: _change(f / "config.json", '"iti_alpha": ', '"iti_alpha": "x", "was": '),
        "iti_alpha is 'x'; expected a finite number",
    ),
    (
        lambda f: _change(f / "config.json", '"iti_alpha": ', '"iti_alpha": 1%s, "was": ' % ("0" * 400)),
        "it will not load: ",
    ),
    (
        lambda f: _change(
            f / "config.json", '"iti_behaviours": ', '"iti_behaviours": {"b": {"file": "../x"}}, "was": '
        ),
        "iti_behaviours['b']: file is '../x'; expected a plain file name",
    ),
    (lambda f: _dangle(f / "config.json"), "config.json is a link to somewhere else"),
    (lambda f: _dangle(f / "README.md"), "README.md is a link to somewhere else"),
    (lambda f: _dangle(f / "SHA256SUMS"), "SHA256SUMS is a link to somewhere else"),
    (lambda f: _dangle(f / "SHA256SUMS", "gone"), "SHA256SUMS is a link to nothing"),
    (lambda f: _dangle(f / "stray", "stray"), "stray is a link to somewhere else"),
    (lambda f: _dangle(f / "iti_directions.safetensors"), "it will not load: "),
    (lambda f: (f / "SHA256SUMS").write_bytes(b"\xff\xfe"), "SHA256SUMS is not text that can be read"),
    (
        lambda f: (f / "tokenizer_config.json").write_text('{"a": 1%s}' % ("0" * 5000)),
        "tokenizer_config.json is not JSON",
    ),
    (
        lambda f: (f / "generation_config.json").write_text('{"iti_alpha": 2}'),
        "generation_config.json holds iti_alpha",
    ),
    (
        lambda f: _change(
            f / "config.json", '"base_model_name_or_path": ', '"base_model_name_or_path": null, "was": '
        ),
        "it names no base, and holds no model.safetensors",
    ),
    (lambda f: (f / "SHA256SUMS").write_text(""), "config.json is not in SHA256SUMS"),
    (lambda f: (f / "custom_generate").mkdir() or (f / "custom_generate" / "x.txt").write_text(""), "custom_generate"),
]


@ADAPTER
@pytest.mark.parametrize(
    "name",
    ["tokenizer.json", "README.md", "config.json", "modeling_iti_llama.py", "model.safetensors", "x.bin", "a" * 250,
     "model-00001-of-00002.safetensors", "adapter_model.safetensors", "iti_directions"],
)  # fmt: skip
@pytest.mark.parametrize("field", ["default", "further"])
def test_a_directions_file_that_has_the_name_of_another_is_a_problem(clean, name, field):
    """Though it holds directions: a save would write them over what else has that name."""
    directions = clean / "iti_directions.safetensors"
    if name != "config.json" and len(name) < 200:
        shutil.copy(directions, clean / name)
    fields = {"default": {"iti_directions_file": name}, "further": {"iti_behaviours": {"further": {"file": name}}}}
    config = json.loads((clean / "config.json").read_text()) | {"iti_directions_sha256": None} | fields[field]
    (clean / "config.json").write_text(json.dumps(config))
    label = {"default": "iti_directions_file is", "further": "iti_behaviours['further']: file is"}[field]
    assert any("it will not load" in problem and label in problem for problem in verify(str(clean)).problems)


@ADAPTER
@pytest.mark.parametrize("tamper,said", TAMPERED)
def test_what_speaks_against_a_repo_is_said(clean, tamper, said):
    tamper(clean)
    assert any(said in problem for problem in verify(str(clean)).problems)


@ADAPTER
def test_verify_asks_the_hub_and_runs_nothing(folder, hub, client, tmp_path):
    client(COMMAND, "push", folder, "me/steered")
    client(COMMAND, "verify", "me/steered")
    files = hub.repos["me/steered"].at("main")[1]
    ran = tmp_path / "ran"
    evil = f"open({str(ran)!r}, 'w')\n".encode()
    hub.repos["me/steered"].commit(files | {"modeling_iti_llama.py": evil})
    client(COMMAND, "verify", "me/steered", fails=True, cache="another")
    assert not ran.exists()


@ADAPTER
def test_what_a_repo_says_does_not_rewrite_the_screen(clean):
    _change(clean / "config.json", "modeling_iti_llama.ITI", "evil\\u001b[2K\\u001b[1Gno problems found\\u001b[8m.ITI")
    found = CliRunner().invoke(app, ["verify", str(clean)])
    assert found.exit_code == 2 and "\x1b" not in found.output and "evil\\x1b[2K" in found.output


@ADAPTER
def test_offline_what_the_cache_holds_is_looked_into(folder, hub, client):
    client(COMMAND, "push", folder, "me/steered")
    client(COMMAND, "info", "me/steered", offline=True, fails=True)
    client('import huggingface_hub; huggingface_hub.snapshot_download("me/steered")')
    client(COMMAND, "verify", "me/steered", offline=True)
    client(COMMAND, "info", "me/steered", offline=True)


@ADAPTER
def test_a_snapshot_in_the_cache_of_the_hub_is_made_of_links_to_its_own_blobs(clean, tmp_path):
    snapshot, blobs = tmp_path / "models--me--x" / "snapshots" / "c0ffee", tmp_path / "models--me--x" / "blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    for number, path in enumerate(path for path in clean.iterdir() if path.is_file()):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(blobs / str(number))
    assert verify(str(snapshot)).problems == ()
    (snapshot / "stray.txt").symlink_to(tmp_path / "elsewhere")
    assert verify(str(snapshot)).problems == ("stray.txt is a link to somewhere else",)


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


def test_a_card_of_another_strength_is_a_problem(fitted):
    """As after a change by hand, or a save where the package is not installed."""
    assert not [p for p in verify(str(fitted)).problems if "README.md" in p]
    config = json.loads((fitted / "config.json").read_text())
    (fitted / "config.json").write_text(json.dumps(config | {"iti_alpha": 0.125}))
    (said,) = [p for p in verify(str(fitted)).problems if "README.md" in p]
    assert "config.json 0.125: `iti-llama push` renews the card" in said
