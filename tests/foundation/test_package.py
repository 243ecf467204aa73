"""The version and the place of the package, at no cost."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import iti_llama
from iti_llama.toolkit.foundation.package import ROOT, __version__


def test_the_version_is_the_one_that_the_changelog_begins_with():
    newest = re.search(r"^## (\S+)", (Path(__file__).parents[2] / "docs" / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == __version__ == iti_llama.__version__


def test_the_root_holds_the_bundled_model():
    assert json.loads((ROOT / "config.json").read_text())["model_type"] == "iti_llama"
    assert ROOT.is_absolute() and (ROOT / "model.safetensors").is_file()
    assert (ROOT / "iti_directions.py").samefile(sys.modules[iti_llama.ITIDirections.__module__].__file__)


def test_reading_them_imports_nothing_but_the_standard_library():
    program = "import sys; from iti_llama.toolkit.foundation.package import ROOT; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy", "typer", "rich"} & set(found.stdout.split())


def test_a_space_installs_what_the_package_and_its_page_need():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert sorted(lines) == sorted(project["dependencies"] + project["optional-dependencies"]["space"])
