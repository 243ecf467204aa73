"""examples/quickstart.ipynb, as a reader runs it: from a kernel, in its own folder."""

import re

import pytest

from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.foundation.sandbox import Sandbox


nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")


@pytest.fixture(scope="module")
def printed(sandbox: Sandbox):
    """What each code cell printed. On one thread, as the tests beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return executed()


def executed() -> list[str]:
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")  # no result is kept in it
    settings = {"timeout": 300, "kernel_name": "python3", "resources": {"metadata": {"path": str(ROOT / "examples")}}}
    nbclient.NotebookClient(notebook, **settings).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(part.get("text", "") for part in own if part.get("name") == "stdout") for own in outputs]


def test_it_steers_fits_chooses_and_saves(printed):
    load, fit, sweep, save = printed
    plain, steered = re.split(r"alpha \S+:\n", load)[1:]
    assert "for i in range" in plain and steered.strip().startswith("return")
    assert "200 rows" in fit
    chosen = float(re.search(r"chosen: ([\d.]+)", sweep)[1])
    assert chosen in (0.3, 0.5, 0.7) and len(re.findall(r"^alpha", sweep, re.MULTILINE)) == 4
    assert f"alpha {chosen:g}:" in save and "return" in save
