"""An export is whole or not there, says what it is, and is compared with what it was made from."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from reference import some_directions, tiny_config
from safetensors.torch import save_file
from steered import steered_repo
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

from iti_llama import ITILlamaConfig
from iti_llama.toolkit.cli.app import app
from iti_llama.toolkit.export.canary import FILE
from iti_llama.toolkit.export.compare import compare
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.select_behaviours import ExportError
from iti_llama.toolkit.foundation.package import ROOT


def test_forms_are_compared_beside_the_steering_and_rounding(tmp_path):
    export(ROOT, "llama", tmp_path / "plain")
    found = compare(str(ROOT), str(tmp_path / "plain"))
    assert found.between < 1e-4 < 1 < found.steering and found.rounding < 1e-3
    export(ROOT, "llama", tmp_path / "base", alpha=0.0)
    found = compare(str(tmp_path / "base"), str(ROOT))  # whichever side the repo is on
    assert found.between > 1 and found.steering == pytest.approx(found.between, abs=1e-3)


def test_an_export_has_a_card_a_canary_and_its_range(one_repo, tmp_path):
    canary, _ = export(one_repo, "llama", tmp_path / "out", alpha=-2.0)
    said = json.loads((tmp_path / "out" / "iti_export.json").read_text())
    assert (said["form"], said["alpha"], said["range"], canary.alpha) == ("llama", -2.0, [-2.0, 2.0], -2.0)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "alpha = -2" in card and "at every position" in card and str(tmp_path) not in card


def test_the_scope_is_said_on_purpose(tmp_path):
    repo = steered_repo(tmp_path, scope="generated")
    with pytest.raises(ExportError, match="pass --scope all"):
        export(repo, "llama", tmp_path / "out")
    export(repo, "llama", tmp_path / "out", scope="all")


def test_what_fails_leaves_nothing(one_repo, tmp_path):
    for wrong in ({"to": "onnx"}, {"to": "peft", "into": tmp_path / "x.gguf"}, {"to": "llama", "alpha": float("nan")}):
        with pytest.raises(ValueError):
            export(one_repo, out=tmp_path / "out", **wrong)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        export(one_repo, "llama", tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine" and not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_the_range_of_strengths_is_what_the_sweep_found_inside_its_guards(one_repo, tmp_path):
    """Of the heads and scope that are exported, and up to the first strength outside them."""

    def point(alpha: float, correct: float = 1, kl: float = 0, scope: str = "all", top_k: int = 4) -> dict:
        return {"top_k": top_k, "alpha": alpha, "scope": scope, "kl": kl, "at": {"correct": {"mean": correct}}}

    def measured(*points: dict, **changed) -> list[float]:
        points = [point(0, top_k=2), *points]
        (one_repo / "sweep.json").write_text(json.dumps({"points": points, "guard": 0.05, "kl_guard": 0.25}))
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        export(one_repo, "llama", out, with_canary=False, **changed)
        return json.loads((out / "iti_export.json").read_text())["range"]

    assert measured(point(2, 0.97, 0.1), point(3, 0.9, 0.1), point(2.5, kl=0.5)) == [-2, 2]
    assert measured(point(2), point(9, scope="generated"), point(9, top_k=2)) == [-2, 2]
    assert measured(point(2), point(9, top_k=2), top_k=2) == [-9, 9]
    assert measured(point(2), point(5), point(3, 0.9)) == [-2, 2]  # not over a gap
    assert measured(point(2), point(5), point(-3, 0.9)) == [-2, 2]
    assert measured(point(1, 0.9), point(5)) == [-1.5, 1.5]  # the exported strength


def test_without_a_canary_the_model_is_not_loaded(one_repo, tmp_path, monkeypatch):
    monkeypatch.setattr("iti_llama.toolkit.export.export.canary_of", None)
    found = CliRunner().invoke(app, ["export", str(one_repo), "--out", str(tmp_path / "out"), "--no-canary"])
    assert found.exit_code == 0 and "no canary was made" in found.output, found.output
    assert not (tmp_path / "out" / FILE).exists() and FILE not in (tmp_path / "out" / "README.md").read_text()


PEAKS = """
import os, sys
from pathlib import Path
from iti_llama.toolkit.export.export import export
for folder in map(Path, sys.argv[1:]):
    if (child := os.fork()) == 0:
        export(folder / "repo", "llama", folder / "out", with_canary=False)
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    print(usage.ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss counts otherwise")
def test_the_memory_is_that_of_one_shard():
    with tempfile.TemporaryDirectory() as holder:
        folders = [Path(holder, str(layers)) for layers in (1, 8)]
        shard, _ = (sharded_repo(folder, int(folder.name)) for folder in folders)
        command = [sys.executable, "-c", PEAKS, *map(str, folders)]
        run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert run.returncode == 0, run.stderr
        one, eight = map(int, run.stdout.split())
    assert eight - one < shard < 21e6, f"{one / 1e6:.0f} MB for one shard, {eight / 1e6:.0f} MB for eight"


def sharded_repo(folder: Path, layers: int) -> int:
    """`folder`/repo, an adapter on `folder`/base, of zeros, whose every layer is a shard; returns the bytes of one."""
    config = tiny_config(num_hidden_layers=layers, intermediate_size=26000, tie_word_embeddings=True)
    with torch.device("meta"):
        state = LlamaForCausalLM(config).state_dict()
    config.save_pretrained(folder / "base")
    weight_map = {}
    for layer in range(layers):
        names = [name for name in state if f"layers.{layer}." in name or (layer == 0 and "layers." not in name)]
        names.remove("lm_head.weight") if "lm_head.weight" in names else None
        save_file({name: torch.zeros(state[name].shape) for name in names}, folder / "base" / f"{layer}.safetensors")
        weight_map |= dict.fromkeys(names, f"{layer}.safetensors")
    (folder / "base" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    fields = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "architectures")}
    ITILlamaConfig(**fields, base_model_name_or_path=str(folder / "base")).save_pretrained(folder / "repo")
    some_directions(config, k=1, layers=[0]).save(folder / "repo" / "iti_directions.safetensors")
    return (folder / "base" / "0.safetensors").stat().st_size


def test_an_adapter_for_vllm_is_not_taken_for_one_of_peft(one_repo, tmp_path):
    pytest.importorskip("peft")
    export(one_repo, "vllm", tmp_path / "out")
    with pytest.raises(ExportError, match="which only vLLM loads"):
        compare(str(one_repo), str(tmp_path / "out"))


NASTY = ["[draft]", "llama: 8B", "2024", "a\nlicense: mit", "true", 'it\'s "quoted" $(id) `x`']


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("to", ["llama", "peft", "vllm"])
def test_whatever_the_base_is_called_the_card_of_an_export_says_it(one_repo, name, to, tmp_path):
    (tmp_path / "base").rename(tmp_path / name)
    config = json.loads((one_repo / "config.json").read_text()) | {"base_model_name_or_path": str(tmp_path / name)}
    (one_repo / "config.json").write_text(json.dumps(config))
    export(one_repo, to, tmp_path / "out", with_canary=False, base_name=name)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == name and card.data.license is None
    assert len(re.findall("^# .*$", card.text, re.MULTILINE)) == 1
    if to == "peft":
        (line,) = re.findall(r"AutoModelForCausalLM\.from_pretrained\((.*)\)", card.text)
        assert ast.literal_eval(line) == name
    if to == "vllm":
        (command,) = re.findall(r"^vllm serve .*?\\\n", card.text, re.MULTILINE | re.DOTALL)
        assert shlex.split(command.rstrip("\\\n"))[2] == name
