"""Killed at a random moment, or with a disk that takes no more: nothing is half written, and the next run gives what
an undisturbed one gives. Two moments of each here; `make faults` tries ten."""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest
from apart import run_apart
from hub import TOKEN
from reference import tiny_llama, tiny_tokenizer
from safetensors.torch import load_file

from iti_llama import ITIDirections, ITILlamaConfig, ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example, write_examples
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.info import inspect
from iti_llama.toolkit.repo.verify import verify


MOMENTS = int(os.environ.get("FAULTS", "2"))
DISKS = (1500, 700, 3000)[: MOMENTS // 2]
"""Bytes of a file that a full disk takes."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [f"iti_llama.toolkit.{name}" for name in ("cli.task_sets", "measure.choose_strength", "measure.sweep_figure")]
    + [
        "iti_llama.toolkit.measure.measure_steering",
        "iti_llama.toolkit.repo.fit_repo",
        "iti_llama.toolkit.convert.convert",
    ]
    + ["iti_llama.modeling_iti_llama"]
)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [
        Example(f"def f{i}(x):\n", "return x" if label else "y = 1", label, f"g{i}")
        for i in range(30)
        for label in (0, 1)
    ]
    return write_examples(rows, tmp_path_factory.mktemp("data") / "data.jsonl")


@pytest.fixture
def forked(monkeypatch):
    """A command in a fork of a process that has done the imports, so that every moment lies in the work: its exit
    code, or None after kill -9. `disk`: bytes that a file may have at most, as on a disk that is full then."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def begin(arguments, kill_after=None, disk=None) -> int | None:
        script = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({disk}, {disk}))\n" if disk else ""
        script += "import sys\nfrom transformers.utils import logging\nfrom iti_llama.toolkit.cli import main\n"
        script += f"logging.disable_progress_bar()\nsys.argv[1:] = {[*map(str, arguments)]}\nmain()"
        process = FORKS.Process(target=exec, args=(script, {}))
        process.start()
        process.join(kill_after)
        process.kill()
        process.join()
        return None if process.exitcode == -signal.SIGKILL else process.exitcode

    return begin


def sums(folder) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def visible(folder) -> dict[str, str]:
    """`sums` without the temporary files, with a dot before their names, that a kill leaves behind."""
    return {name: found for name, found in sums(folder).items() if not name.rpartition("/")[2].startswith(".")}


def moments(seconds: float, seed: str, imports: float = 0.4, times: int = 1):
    """Random moments of a run that takes `seconds`, the imports at its start left out."""
    rng = random.Random(seed)
    return [seconds * (imports + (1 - imports) * rng.random()) for _ in range(times * MOMENTS)]


def undisturbed_fork(forked, arguments) -> float:
    assert forked(["--help"]) == 0  # the imports, once
    started = time.monotonic()
    assert forked(arguments) == 0
    return time.monotonic() - started


def test_fit(forked, base_folder, data, tmp_path):
    def arguments(out):
        return [
            "fit", "--base", base_folder, "--data", data, "--out", out, "--permutations", 3, "--folds", 3,
            "--cache", tmp_path / "cache", "--batch-size", 4, "--top-k", 3,
        ]  # fmt: skip

    seconds, cache = undisturbed_fork(forked, arguments(tmp_path / "whole")), tmp_path / "cache"
    expected, captured = sums(tmp_path / "whole"), visible(cache)
    for number, moment in enumerate(moments(seconds, "fit", imports=0)):
        out = tmp_path / f"out{number}"
        shutil.rmtree(cache)
        killed = forked(arguments(out), kill_after=moment) is None
        assert {file.name for file in cache.glob("[!.]*.safetensors")} <= captured.keys()
        assert all(load_file(file) for file in cache.rglob("[!.]*.safetensors"))  # parts too are whole or not there
        if killed and out.exists():
            assert sums(out) == expected  # it was there whole already
            continue
        if not out.exists():
            assert forked(arguments(out)) == 0
        assert sums(out) == expected and visible(cache) == captured


def test_evaluate(forked, tmp_path):
    tasks = tmp_path / "tasks.jsonl"
    rows = [{"prompt": f"def f{n}(n):\n", "tests": [{"call": f"f{n}(2)", "value": 2}]} for n in range(3)]
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def arguments(out):
        options = ["--n", 3, "--samples", 1, "--max-new-tokens", 16]
        return ["evaluate", "--repo", ROOT, "--tasks", tasks, *options, "--out", out]

    seconds = undisturbed_fork(forked, arguments(tmp_path / "whole"))
    for number, moment in enumerate(moments(seconds, "evaluate", imports=0)):
        out = tmp_path / f"out{number}"
        forked(arguments(out), kill_after=moment)
        assert forked(arguments(out)) == 0
        assert (out / "evaluation.json").read_text() == (tmp_path / "whole" / "evaluation.json").read_text()
        assert sums(out) == sums(tmp_path / "whole")
    for disk in DISKS:
        out = tmp_path / f"disk{disk}"
        assert forked(arguments(out), disk=disk) != 0
        assert forked(arguments(out)) == 0 and visible(out) == visible(tmp_path / "whole")


def test_sweep(forked, tmp_path):
    repo, whole = tmp_path / "repo", tmp_path / "whole"
    repo.mkdir()
    for file in (*ROOT.glob("*.json"), *ROOT.glob("*.safetensors")):
        shutil.copy(file, repo)
    config = repo / "config.json"
    old = config.read_bytes()

    def arguments(out):
        return ["sweep", "--repo", repo, "--n", 4, "--alphas", "0.45", "--max-new-tokens", 40, "--apply", "--out", out]

    seconds = undisturbed_fork(forked, arguments(whole))
    new = config.read_bytes()
    assert json.loads(old)["iti_alpha"] != json.loads(new)["iti_alpha"] == 0.45
    for number, moment in enumerate(moments(seconds, "sweep", imports=0)):
        config.write_bytes(old)
        out = tmp_path / f"out{number}"
        forked(arguments(out), kill_after=moment)
        assert config.read_bytes() in (old, new)
        assert forked(arguments(out)) == 0
        assert visible(out) == visible(whole) and config.read_bytes() == new
    for disk in DISKS:
        config.write_bytes(old)
        out = tmp_path / f"disk{disk}"
        assert forked(arguments(out), disk=disk) != 0 and config.read_bytes() == old
        assert forked(arguments(out)) == 0
        assert visible(out) == visible(whole) and config.read_bytes() == new


def older_files(folder):
    """An intervention as older code stored it, for the base."""
    folder.mkdir()
    vector = {"direction": [0.2] * 24, "std": 1.0}
    content = {"metadata": {"alpha": 1.0}, "directions": {f"{i % 3}_{i}": vector for i in range(4)}}
    (folder / "iti_config.json").write_text(json.dumps(content))
    return folder


def test_convert(base_folder, forked, tmp_path):
    source = older_files(tmp_path / "old")

    def arguments(out):
        return ["convert", source, "--base", base_folder, "--out", out]

    seconds = undisturbed_fork(forked, arguments(tmp_path / "whole"))
    expected = sums(tmp_path / "whole")
    assert {"config.json", "iti_directions.safetensors", "README.md"} <= expected.keys()
    for number, moment in enumerate(moments(seconds, "convert", imports=0, times=6)):
        out = tmp_path / f"out{number}"
        forked(arguments(out), kill_after=moment)
        if not out.exists():
            assert forked(arguments(out)) == 0
        assert sums(out) == expected


def test_saving_leaves_an_old_directions_file_or_a_new_one(base_folder, directions, tmp_path):
    folder = tmp_path / "repo"
    ITILlamaForCausalLM.from_base(base_folder, directions).save_pretrained(folder)
    file = folder / "iti_directions.safetensors"
    script = f"from iti_llama import ITIDirections\nfound = ITIDirections.load({str(file)!r})\n"
    script += f"while True:\n    found.save({str(file)!r})\n"
    for _ in range(MOMENTS):
        assert run_apart(script, seconds=4 + random.random()).returncode == -signal.SIGKILL
        assert len(ITILlamaForCausalLM.from_pretrained(folder).iti_directions) == 4


FORMS = ("adapter", "self-contained")
SAVE = """
import itertools, os, shutil, signal, sys
from transformers.utils import logging
from iti_llama import ITIDirections, ITILlamaForCausalLM

logging.disable_progress_bar()  # bars share a lock with their forks
CALLS = {{"open", "write", "sendfile", "chmod", "replace", "serialize_file"}}
base, file, top = {arguments}


def every_moment(model, work):
    for number in itertools.count(1):
        folder, calls = f"{{work}}/killed/{{number}}", itertools.count(1)

        def count(frame, event, called):
            if event == "c_return" and called.__name__ in CALLS and not isinstance(called.__self__, str):
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        shutil.copytree(work + "/old", folder)
        if (child := os.fork()) == 0:
            sys.setprofile(count)
            model.save_pretrained(folder)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return
        shutil.copytree(folder, f"{{work}}/again/{{number}}")
        model.save_pretrained(f"{{work}}/again/{{number}}")


for form in {forms}:
    model, work = ITILlamaForCausalLM.from_base(base, ITIDirections.load(file)), f"{{top}}/{{form}}"
    model.config.base_model_name_or_path = base if form == "adapter" else None
    model.save_pretrained(work + "/old")
    shutil.copytree(work + "/old", work + "/new")
    model.set_iti_directions(ITIDirections.load(file).top(2))
    model.iti_alpha = 2.5
    model.save_pretrained(work + "/new")
    every_moment(model, work)
"""


@pytest.fixture(scope="module")
def killed_saves(base_folder, directions, tmp_path_factory):
    """A folder for each form with `old`, `new`, and what saving `new` over `old` leaves if it is killed after each of
    its calls that open, write or move a file, in turn: `killed/1` and so on; `again` is that after one more save."""
    folder = tmp_path_factory.mktemp("saves")
    file = directions.save(folder / "directions.safetensors")
    found = run_apart(SAVE.format(arguments=[str(base_folder), str(file), str(folder)], forms=FORMS))
    assert found.returncode == 0, found.stderr
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_a_save_killed_after_any_of_its_calls_leaves_the_old_directions_the_new_ones_or_a_refusal(killed_saves, form):
    whole = [killed_saves / form / age for age in ("old", "new")]
    directions = [(folder / "iti_directions.safetensors").read_bytes() for folder in whole]
    configs = [(folder / "config.json").read_bytes() for folder in whole]
    refused, loaded = 0, []
    for folder in (killed_saves / form / "killed").iterdir():
        assert (folder / "iti_directions.safetensors").read_bytes() in directions
        assert (folder / "config.json").read_bytes() in configs
        try:
            info = inspect(folder)
            loaded.append((info.alpha, info.heads_in_file))
        except ValueError as error:
            assert "iti_directions.safetensors: SHA-256 is" in str(error)
            refused += 1
    assert set(loaded) == {(1.0, 4), (2.5, 2)} and refused > 0 and len(loaded) + refused > 20


@pytest.mark.parametrize("form", FORMS)
def test_the_save_after_a_killed_one_gives_the_bytes_of_an_undisturbed_one(killed_saves, form):
    expected = visible(killed_saves / form / "new")
    assert ("model.safetensors" in expected) == (form == "self-contained")
    for folder in (killed_saves / form / "again").iterdir():
        assert visible(folder) == expected


@pytest.mark.parametrize("fails", ["directions", "config", "rename"])
def test_a_save_that_fails_leaves_the_old_repo_or_a_refusal(base_folder, directions, tmp_path, monkeypatch, fails):
    model = ITILlamaForCausalLM.from_base(base_folder, directions)
    model.save_pretrained(tmp_path)
    model.set_iti_directions(directions.top(2))

    def full(*_, **__):
        raise OSError("no space left on device")

    replace = os.replace

    def last(source, target):
        return full() if str(target).endswith("iti_directions.safetensors") else replace(source, target)

    places = {"directions": (ITIDirections, "save", full), "config": (ITILlamaConfig, "save_pretrained", full)}
    with monkeypatch.context() as disk, pytest.raises(OSError, match="no space left"):
        disk.setattr(*places.get(fails, (os, "replace", last)))
        model.save_pretrained(tmp_path)
    if fails == "rename":
        for load in (ITILlamaForCausalLM.from_pretrained, inspect):
            with pytest.raises(ValueError, match=r"iti_directions\.safetensors: SHA-256 is"):
                load(tmp_path)
        assert any("SHA-256 is" in problem for problem in verify(str(tmp_path)).problems)
        model.save_pretrained(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".iti")]
    assert len(ITILlamaForCausalLM.from_pretrained(tmp_path).iti_directions) == (2 if fails == "rename" else 4)


@pytest.mark.parametrize("command", ["fit", "convert"])
def test_a_disk_that_takes_no_more_leaves_nothing_half_written(base_folder, data, forked, tmp_path, command):
    arguments = ["fit", "--data", data, "--permutations", 0, "--folds", 3, "--self-contained"]
    if command == "convert":
        arguments = ["convert", older_files(tmp_path / "old")]
    arguments += ["--base", base_folder, "--out"]
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert forked([*arguments, out], disk=2048) != 0
    assert not out.exists() and not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]
    assert forked([*arguments, out]) == 0 and forked([*arguments, whole]) == 0
    assert sums(out) == sums(whole) and (out / "config.json").is_file()


def pushed(hub, folder, name: str, kill_after: float = 300.0, disk: int | None = None) -> int:
    """`iti-llama push`: its exit code. `disk` as for `forked`."""
    script = f"""
        import resource, sys
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_FSIZE, ({disk or -1}, {disk or -1}))
        sys.argv = ["iti-llama", "push", {str(folder / "repo")!r}, {name!r}]
        from iti_llama.toolkit.cli import main
        main()
    """
    environment = hub.environment(folder / "home") | {"HF_TOKEN": TOKEN}
    return run_apart(script, environment=environment, seconds=kill_after).returncode


def test_a_push_from_a_full_disk_leaves_no_commit(hub, base_dir, directions, tmp_path):
    """The tokenizer, which comes from the base, finds no room."""
    model = ITILlamaForCausalLM.from_base(base_dir, directions)
    model.config.base_model_name_or_path = "meta/base"
    model.save_pretrained(tmp_path / "repo")
    assert pushed(hub, tmp_path, "me/steered", disk=1024) != 0
    assert "me/steered" not in hub.repos
    assert pushed(hub, tmp_path, "me/steered") == 0
    after = hub.repos.pop("me/steered").at("main")[1]
    if MOMENTS > 2:
        assert pushed(hub, tmp_path, "me/steered") == 0
        assert hub.repos["me/steered"].at("main")[1] == after
    assert {"tokenizer.json", "config.json", "SHA256SUMS"} <= after.keys()


def test_a_killed_push_leaves_no_commit(hub, base_folder, directions, tmp_path):
    model = ITILlamaForCausalLM.from_base(base_folder, directions)
    model.config.base_model_name_or_path = None
    model.save_pretrained(tmp_path / "repo")
    tiny_tokenizer().save_pretrained(tmp_path / "repo")
    started = time.monotonic()
    assert pushed(hub, tmp_path, "me/first") == 0
    seconds = time.monotonic() - started
    expected = set(hub.repos["me/first"].at("main")[1])
    for moment in moments(seconds, "push"):
        pushed(hub, tmp_path, "me/steered", kill_after=moment)
        held = hub.repos.get("me/steered")
        if held is not None and held.commits and (commit := held.at("main")) is not None:
            assert set(commit[1]) in ({".gitattributes"}, set(), expected)
    assert pushed(hub, tmp_path, "me/steered") == 0
    assert set(hub.repos["me/steered"].at("main")[1]) == expected
