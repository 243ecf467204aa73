"""Python as people write it: source files of the standard library and of this project's pinned dependencies, under
permissive licences, split by package.

`python -m iti_llama.examples.natural.corpus` writes `files.tsv`, the list of files with their hashes and licences. A
run on another machine takes the files that are on it and says how many differ from the list.
"""

import ast
import hashlib
import importlib.metadata
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer


LIST = Path(__file__).with_name("files.tsv")

TEST = ("networkx", "rich")
"""Packages that nothing is trained, fitted or chosen on."""

VALIDATION = ("huggingface_hub", "joblib")
"""Packages that strengths are chosen on; the model is not trained on them either."""

LICENCES = {
    "standard library": "PSF-2.0",
    "accelerate": "Apache-2.0",
    "aiohttp": "Apache-2.0 AND MIT",
    "anyio": "MIT",
    "click": "BSD-3-Clause",
    "datasets": "Apache-2.0",
    "fastapi": "MIT",
    "fonttools": "MIT",
    "fsspec": "BSD-3-Clause",
    "huggingface_hub": "Apache-2.0",
    "jinja2": "BSD-3-Clause",
    "joblib": "BSD-3-Clause",
    "matplotlib": "PSF-based",
    "mpmath": "BSD-3-Clause",
    "narwhals": "MIT",
    "networkx": "BSD-3-Clause",
    "numpy": "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    "openai": "Apache-2.0",
    "packaging": "Apache-2.0 OR BSD-2-Clause",
    "pandas": "BSD-3-Clause",
    "peft": "Apache-2.0",
    "pydantic": "MIT",
    "pygments": "BSD-2-Clause",
    "pyparsing": "MIT",
    "pytest": "MIT",
    "rich": "MIT",
    "scikit-learn": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "setuptools": "MIT",
    "starlette": "BSD-3-Clause",
    "sympy": "BSD-3-Clause",
    "torch": "BSD-3-Clause AND others, all permissive (its metadata names them)",
    "transformers": "Apache-2.0",
    "uvicorn": "BSD-3-Clause",
}
"""The packages taken, all under permissive licences, as their metadata says."""

LEFT_OUT = {"test", "tests", "testing", "_vendor", "vendored", "externals", "extern", "site-packages", "lib2to3"}
"""Folders of tests, and of copies of other packages: a held-out package's text must not be trained on through one."""

LARGEST, SMALLEST = 60_000, 400
"""Bytes of a file. Larger ones are tables more often than code."""

PACKAGE_BYTES = 5_000_000
"""Most that one package gives, in the order of its files' hashes: no package's style is the whole corpus."""

SEEN_SHARE = 0.3
"""A file is dropped when more than this share of its longer lines stood in files before it."""


@dataclass(frozen=True)
class Source:
    """One file. name: its path below the package's root. part: "train", "validation" or "test"."""

    package: str
    name: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def part(self) -> str:
        return "test" if self.package in TEST else "validation" if self.package in VALIDATION else "train"


def _files(package: str) -> Iterator[tuple[str, Path]]:
    """(name, path) of each Python file of a package that is on this machine; none if it is not."""
    if package == "standard library":
        root = Path(sysconfig.get_path("stdlib"))
        for path in root.rglob("*.py"):
            yield path.relative_to(root).as_posix(), path
        return
    try:
        found = importlib.metadata.files(package) or ()
    except importlib.metadata.PackageNotFoundError:
        return
    for file in found:
        if file.suffix == ".py" and ".." not in file.parts:
            yield file.as_posix(), Path(file.locate())


def fit_to_read(name: str, path: Path) -> str | None:
    """The text of a file that is code as people write it: not generated, no tests, no table."""
    if LEFT_OUT & set(Path(name).parts) or Path(name).name.startswith(("test_", "conftest")):
        return None
    try:
        text = path.read_bytes().decode("utf-8")
        ast.parse(text)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return None
    lines = text.splitlines()
    if not SMALLEST <= len(text) <= LARGEST or max(map(len, lines)) > 200 or "def " not in text:
        return None
    plain = sum(character.isascii() for character in text) >= 0.99 * len(text)
    digits = sum(character.isdigit() for character in text) <= 0.12 * len(text)
    generated = "generated" in text[:1500].lower()
    return text if plain and digits and not generated else None


def sources() -> list[Source]:
    """Every file taken, sorted by hash within its package: test packages first, then validation, then training, so
    that whatever a training file shares with a held-out one is dropped from training."""
    order = [*TEST, *VALIDATION, *sorted(set(LICENCES) - {*TEST, *VALIDATION}, key=str.lower)]
    seen: set[int] = set()
    found = []
    for package in order:
        texts = ((name, fit_to_read(name, path)) for name, path in _files(package))
        own = sorted((Source(package, name, text) for name, text in texts if text), key=lambda source: source.digest)
        size = 0
        for source in own:
            lines = {hash_of(line) for line in source.text.splitlines() if len(line.strip()) >= 20}
            if size > PACKAGE_BYTES or len(lines & seen) > SEEN_SHARE * max(1, len(lines)):
                continue
            seen |= lines
            size += len(source.text)
            found.append(source)
    return found


def hash_of(line: str) -> int:
    return int.from_bytes(hashlib.blake2b(line.strip().encode(), digest_size=8).digest(), "big")


def differences(found: list[Source]) -> str:
    """How the files of this machine differ from the committed list, in words."""
    lines = LIST.read_text(encoding="utf-8").splitlines()[1:]
    rows = {(package, name, digest) for package, name, _, _, digest, _ in (line.split("\t") for line in lines)}
    here = {(source.package, source.name, source.digest) for source in found}
    return f"{len(here & rows)} of {len(rows)} listed files are here as listed; {len(here - rows)} others are"


def write_list(found: list[Source]) -> None:
    rows = ["package\tfile\tlicence\tpart\tsha256\tbytes"]
    for source in found:
        size = str(len(source.text.encode()))
        rows.append(
            "\t".join((source.package, source.name, LICENCES[source.package], source.part, source.digest, size))
        )
    LIST.write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    """Write the list of files, and print what each package gives."""
    found = sources()
    write_list(found)
    for package in dict.fromkeys(source.package for source in found):
        own = [source for source in found if source.package == package]
        size = sum(len(source.text) for source in own)
        typer.echo(f"{own[0].part:<11}{package:<20}{len(own):>6} files {size:>12,} characters  {LICENCES[package]}")


if __name__ == "__main__":
    typer.run(main)
