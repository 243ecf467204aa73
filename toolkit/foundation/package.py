"""The package's version and folder. Its imports are light, so the build and `iti-llama --help` read it at no cost."""

from pathlib import Path


__version__ = "0.3.0"


ROOT = Path(__file__).resolve().parents[2]
"""The folder of the bundled model: the root of the repo, or of the installed package."""

BUNDLED = "iti-llama-demo"
"""The name of the bundled model's base, in its files."""
