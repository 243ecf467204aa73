"""A steered repo as a folder: which files it holds, and how it is put on disk whole or not at all."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path


CODE = (
    *("configuration_iti_llama.py", "generation_iti_llama.py", "iti_directions.py", "loading_iti_llama.py"),
    *("modeling_iti_llama.py", "steering_iti_llama.py"),
)
"""What `trust_remote_code` runs."""

MANIFEST = "SHA256SUMS"
"""What `push` writes and `verify` checks; `sha256sum -c` reads it too."""


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
)


def check_out(out: str | os.PathLike, overwrite: bool = False) -> None:
    """Refuse to write a repo where it would destroy something. To be called before the work as well as after it.

    Raises:
        FileExistsError: if `out` is a file, or a folder that is not empty; with `overwrite`, unless it is a steered
        repo and no
            git checkout.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file; expected a folder, or nothing")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{out}: is not empty; choose another --out, or pass --overwrite")
    config = out / "config.json"
    ours = config.is_file() and '"iti_llama"' in config.read_text(encoding="utf-8", errors="replace")
    if not ours or (out / ".git").exists():
        raise FileExistsError(
            f"{out}: is no folder that holds a steered repo alone, so it is not overwritten; choose another --out"
        )


@contextmanager
def new_folder(out: str | os.PathLike, overwrite: bool = False):
    """A temporary folder that becomes `out` when the block ends well, and is gone when it does not; then `out` is as
    it was.

    Raises:
        FileExistsError: see `check_out`.
    """
    check_out(out, overwrite)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as holder:
        fresh, old = Path(holder, "new"), Path(holder, "old")
        fresh.mkdir()
        yield fresh
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(fresh, out)
        except BaseException:
            if old.exists():
                os.replace(old, out)
            raise


def copy_tokenizer(base: str | os.PathLike, folder: Path, **hub) -> None:
    """The base's own tokenizer files, byte for byte: whichever version of transformers wrote them will read them."""
    from transformers.utils import cached_file

    for name in TOKENIZER_FILES:
        path = cached_file(base, name, _raise_exceptions_for_missing_entries=False, **hub)
        if path is not None:
            shutil.copyfile(path, folder / name)
