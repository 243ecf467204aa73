"""Killed at a random moment, or with a disk that takes no more: nothing is half written, and the next run gives what
an undisturbed one gives. Two moments of each here; `make faults` tries ten."""

import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import time

import pytest
from hub import TOKEN
from reference import tiny_llama, tiny_tokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example, write_examples
from iti_llama.toolkit.foundation.package import ROOT


MOMENTS = int(os.environ.get("FAULTS", "2"))
COMMAND = [sys.executable, "-m", "iti_llama.toolkit.cli"]


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


def run(arguments, environment=None, kill_after=None, **kwargs) -> subprocess.CompletedProcess | None:
    """Run to the end, or kill -9 after some seconds."""
    arguments = [*COMMAND, *map(str, arguments)] if isinstance(arguments, list) else [sys.executable, "-c", arguments]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
        **kwargs,
    )
    try:
        out, err = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def sums(folder) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def moments(seconds: float, seed: str):
    """Random moments of a run that takes `seconds`, the imports at its start left out."""
    rng = random.Random(seed)
    return [seconds * (0.4 + 0.6 * rng.random()) for _ in range(MOMENTS)]


def undisturbed(arguments) -> float:
    started = time.monotonic()
    found = run(arguments)
    assert found.returncode == 0, found.stderr
    return time.monotonic() - started


def test_fit(base_folder, data, tmp_path):
    def arguments(out):
        return [
            "fit", "--base", base_folder, "--data", data, "--out", out, "--permutations", 3, "--folds", 3,
            "--cache", tmp_path / "cache", "--batch-size", 4, "--top-k", 3,
        ]  # fmt: skip

    seconds = undisturbed(arguments(tmp_path / "whole"))
    expected = sums(tmp_path / "whole")
    for number, moment in enumerate(moments(seconds, "fit")):
        out = tmp_path / f"out{number}"
        for file in (tmp_path / "cache").glob("*.safetensors"):
            file.unlink()
        if run(arguments(out), kill_after=moment) is None and out.exists():
            assert sums(out) == expected  # it was there whole already
            continue
        if not out.exists():
            assert run(arguments(out)).returncode == 0
        assert sums(out) == expected


def test_evaluate(tmp_path):
    tasks = tmp_path / "tasks.jsonl"
    rows = [{"prompt": f"def f{n}(n):\n", "tests": [{"call": f"f{n}(2)", "value": 2}]} for n in range(6)]
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def arguments(out):
        return ["evaluate", "--repo", ROOT, "--tasks", tasks, "--n", 6, "--samples", 2, "--out", out]

    seconds = undisturbed(arguments(tmp_path / "whole"))
    for number, moment in enumerate(moments(seconds, "evaluate")):
        out = tmp_path / f"out{number}"
        run(arguments(out), kill_after=moment)
        again = run(arguments(out))
        assert again.returncode == 0, again.stderr
        assert (out / "evaluation.json").read_text() == (tmp_path / "whole" / "evaluation.json").read_text()
        assert sums(out) == sums(tmp_path / "whole")


def test_saving_leaves_an_old_directions_file_or_a_new_one(base_folder, directions, tmp_path):
    folder = tmp_path / "repo"
    ITILlamaForCausalLM.from_base(base_folder, directions).save_pretrained(folder)
    file = folder / "iti_directions.safetensors"
    script = f"from iti_llama import ITIDirections\nfound = ITIDirections.load({str(file)!r})\n"
    script += f"while True:\n    found.save({str(file)!r})\n"
    for _ in range(MOMENTS):
        assert run(script, kill_after=4 + random.random()) is None
        assert len(ITILlamaForCausalLM.from_pretrained(folder).iti_directions) == 4


@pytest.mark.parametrize("command", ["fit", "convert"])
def test_a_disk_that_takes_no_more_leaves_nothing_half_written(base_folder, data, tmp_path, command):
    out = tmp_path / "out"
    arguments = [
        "fit",
        "--base",
        base_folder,
        "--data",
        data,
        "--out",
        out,
        "--permutations",
        0,
        "--folds",
        3,
        "--self-contained",
    ]
    if command == "convert":
        (tmp_path / "old").mkdir()
        vector = {"direction": [0.2] * 24, "std": 1.0}
        content = {"metadata": {"alpha": 1.0}, "directions": {f"{i % 3}_{i}": vector for i in range(4)}}
        (tmp_path / "old" / "iti_config.json").write_text(json.dumps(content))
        arguments = ["convert", tmp_path / "old", "--base", base_folder, "--out", out]
    limit = 2048

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    found = run(arguments, environment={"PYTHONDONTWRITEBYTECODE": "1"}, preexec_fn=small_files)
    assert found.returncode != 0
    assert not out.exists() and not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]
    assert run(arguments).returncode == 0 and (out / "config.json").is_file()


def test_a_killed_push_leaves_no_commit(hub, base_folder, directions, tmp_path):
    model = ITILlamaForCausalLM.from_base(base_folder, directions)
    model.config.base_model_name_or_path = None
    model.save_pretrained(tmp_path / "repo")
    arguments = ["push", tmp_path / "repo", "me/steered"]
    environment = hub.environment(tmp_path / "home") | {"HF_TOKEN": TOKEN}
    started = time.monotonic()
    assert run(["push", tmp_path / "repo", "me/first"], environment).returncode == 0
    seconds = time.monotonic() - started
    expected = set(hub.repos["me/first"].at("main")[1])
    for moment in moments(seconds, "push"):
        run(arguments, environment, kill_after=moment)
        held = hub.repos.get("me/steered")
        if held is not None and held.commits and (commit := held.at("main")) is not None:
            assert set(commit[1]) in ({".gitattributes"}, set(), expected)
    assert run(arguments, environment).returncode == 0
    assert set(hub.repos["me/steered"].at("main")[1]) == expected
