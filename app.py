"""The Space of this repo: Hugging Face starts it from here. On this machine: `iti-llama space`."""

import importlib.util
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parent

if importlib.util.find_spec("iti_llama") is None:  # not installed: this folder is the package
    spec = importlib.util.spec_from_file_location(
        "iti_llama", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules["iti_llama"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

from iti_llama.toolkit.cli.options import load  # noqa: E402
from iti_llama.toolkit.space.build_page import page_of  # noqa: E402
from iti_llama.toolkit.space.page import Limits  # noqa: E402


if __name__ == "__main__":  # behind the Space's proxy all visitors have one address
    page_of(str(ROOT), *load(str(ROOT)), limits=Limits(a_minute=600)).launch()
