"""An export is whole or not there, says what it is, and is compared with what it was made from."""

import json

import pytest
from steered import steered_repo

from iti_llama.toolkit.export.compare import compare
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.gguf_patch import ExportError
from iti_llama.toolkit.foundation.package import ROOT


def test_forms_are_compared_beside_the_steering_and_rounding(tmp_path):
    export(ROOT, "llama", tmp_path / "plain")
    found = compare(str(ROOT), str(tmp_path / "plain"))
    assert found.between < 1e-4 < 1 < found.steering and found.rounding < 1e-3
    export(ROOT, "llama", tmp_path / "base", alpha=0.0)
    assert compare(str(ROOT), str(tmp_path / "base")).between > 1


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
    def point(alpha: float, correct: float, kl: float, scope: str = "all") -> dict:
        return {"alpha": alpha, "scope": scope, "kl": kl, "at": {"correct": {"mean": correct}}}

    points = [point(0, 1, 0), point(2, 0.97, 0.1), point(3, 0.9, 0.1), point(4, 1, 0.5), point(5, 1, 0, "generated")]
    (one_repo / "sweep.json").write_text(json.dumps({"points": points, "guard": 0.05, "kl_guard": 0.25}))
    export(one_repo, "llama", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "iti_export.json").read_text())["range"] == [-2, 2]


def test_an_adapter_for_vllm_is_not_taken_for_one_of_peft(one_repo, tmp_path):
    pytest.importorskip("peft")
    export(one_repo, "vllm", tmp_path / "out")
    with pytest.raises(ExportError, match="which only vLLM loads"):
        compare(str(one_repo), str(tmp_path / "out"))
