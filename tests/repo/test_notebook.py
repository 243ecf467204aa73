"""examples/quickstart.ipynb, as a reader sees it and as a reader runs it: from a kernel, in its own folder."""

import re

import pytest
from real_model import need_smollm2


pytest.importorskip("nbclient", reason="nbclient is not installed")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

from iti_llama.examples.run_quickstart import NOTEBOOK, run_quickstart  # noqa: E402


def shown(notebook) -> list[str]:
    """What each code cell shows."""
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(one.get("text") or one["data"]["text/markdown"] for one in of_cell) for of_cell in outputs]


def lengths_of(answers: str) -> dict[str, int]:
    """{strength: characters of the answer}."""
    found = re.findall(r"^alpha (\S+): (.*?)(?=^alpha|\Z)", answers, re.M | re.S)
    return {alpha: len(text) for alpha, text in found}


def test_the_outputs_that_it_holds_are_those_of_a_steered_model():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not re.search(r"/(?:root|home|tmp|work|Users)/", NOTEBOOK.read_text(encoding="utf-8"))
    steer, make, measured, load = shown(notebook)
    lengths = lengths_of(steer)
    assert list(lengths) == ["-1", "0", "1"] and lengths["1"] < min(lengths["-1"], lengths["0"])
    assert re.search(r"^3 of 4, chosen on 10 requests: alpha 1,", make, re.M)
    assert float(re.search(r"^4 of 4, .*: (\S+) \[.* is kept$", make, re.M)[1]) > 0.5
    shares = dict(re.findall(r"^\| ([^|(]+) \(.*?\) \| .*? \| ([\d.]+)%", measured, re.M))
    assert float(shares["steered"]) > max(
        float(shares[name]) for name in ("plain", "random directions", "minus alpha")
    )
    plain, steered = lengths_of(load).values()
    assert steered < plain


def test_it_runs(monkeypatch):
    need_smollm2()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the tests beside it
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:  # fewer requests and steps, to be done in a minute
        cell.source = cell.source.replace("[::8]", "[::12]")
        few = "from iti_llama.toolkit.fit import distil\n\ndistil.STEPS = 10\nresult = run_instruction("
        cell.source = cell.source.replace("result = run_instruction(", few)
    steer, make, measured, load = shown(run_quickstart(notebook))
    lengths = lengths_of(steer)
    assert lengths["1"] < min(lengths["-1"], lengths["0"])
    assert "4 of 4" in make and "steered" in measured and list(lengths_of(load)) == ["0", "1"]
