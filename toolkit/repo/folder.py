"""A steered repo as a folder: which files it holds, and how it is put on disk whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


CODE = (
    *("configuration_iti_llama.py", "generation_iti_llama.py", "iti_directions.py", "loading_iti_llama.py"),
    *("modeling_iti_llama.py", "steering_iti_llama.py"),
)
"""The files that `trust_remote_code` runs."""

MANIFEST = "SHA256SUMS"
"""The checksums that `push` writes and `verify` checks; `sha256sum -c` reads it too."""


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
)


def weight_files(folder: Path, fields: dict) -> list[str]:
    """The names of the files from which transformers reads a folder's weights: one file, or an index and its shards.
    Other weights in the folder are left out; [] if there are none. `fields`: those of config.json.

    Raises:
        ValueError: naming index and file, if the index cannot be read, or names a file outside the folder.
        FileNotFoundError: if a shard is missing.
    """
    named = fields.get("transformers_weights")
    chosen = [named] if named is not None else ["model.safetensors", "model.safetensors.index.json"]
    where = "config.json: transformers_weights" if named is not None else "the weights"
    first = next((check_plain(name, where) for name in chosen if (folder / str(name)).is_file()), None)
    if first is None or not first.endswith(".index.json"):
        return [] if first is None else [first]
    try:
        shards = set(json.loads((folder / first).read_text(encoding="utf-8"))["weight_map"].values())
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder / first}: not an index of weights ({type(error).__name__}: {error})") from None
    shards = sorted(check_plain(name, f"{folder / first}") for name in shards)
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder / first}: names {', '.join(missing)}, and there is no such file")
    return [*shards, first]


def check_plain(name: object, where: str) -> str:
    """The name of a weights file. Raises `ValueError` unless it is a safetensors file in the folder itself."""
    plain = isinstance(name, str) and not any(character in name for character in "/\\:\0")
    if not plain or not name.endswith((".safetensors", ".safetensors.index.json")):
        raise ValueError(f"{where}: names {name!r}; expected a .safetensors file in the same folder")
    return name


def leads_out(root: Path, name: str) -> bool:
    """Whether a file of a folder is a link out of the folder, or lies behind one. Links from a snapshot in the Hub's
    cache to its own blobs do not count."""
    try:
        root, target = root.resolve(), (root / name).resolve()
    except (OSError, RuntimeError):  # a link to itself
        return True
    own_blobs = root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs"
    return root not in target.parents and not own_blobs


def check_no_links(folder: Path, names: Iterable[str]) -> None:
    """Raises `ValueError`, naming file and target, if a file to be published is a link, or is in a linked folder:
    its target may not be meant for publishing. The links of the Hub's own cache are allowed."""
    for name in names:
        parts = [folder / name, *(folder / name).parents]
        linked = next((path for path in parts[: len(Path(name).parts)] if path.is_symlink()), None)
        in_cache = folder.resolve().parent.name == "snapshots" and not leads_out(folder, name)
        if linked is not None and not in_cache:
            advice = "put the file itself there, or remove the link"
            raise ValueError(f"{linked}: is a link to {os.readlink(linked)}, and links are not published; {advice}")


def check_out(out: str | os.PathLike, overwrite: bool = False) -> None:
    """Refuse to write a repo where it would destroy something. Call it before the work as well as after it.

    Raises:
        FileExistsError: if `out` is a file, or a folder that is not empty; with `overwrite`, unless it is a steered
            repo and not a git checkout.
        PermissionError: if nothing can be written there.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file; expected a folder, or nothing")
    parent = next(path for path in out.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {out}: nothing can be written into {parent}; choose another")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{out}: is not empty; choose another --out, or delete it")
    config = out / "config.json"
    ours = config.is_file() and '"iti_llama"' in config.read_text(encoding="utf-8", errors="replace")
    if not ours or (out / ".git").exists():
        raise FileExistsError(
            f"{out}: is not a folder that holds only a steered repo, so it is not overwritten; choose another --out"
        )


@contextmanager
def only_run(out: str | os.PathLike):
    """Inside the block no other process of this user on this machine can enter such a block for the same folder, as
    long as both have the same temporary folder. Raises `FileExistsError` if one is in it."""
    name = hashlib.sha256(os.fsencode(Path(out).resolve())).hexdigest()[:16]
    lock = Path(tempfile.gettempdir(), f"iti-llama-{getattr(os, 'getuid', int)()}-{name}.lock")
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise FileExistsError(f"{out}: another run is writing there; wait for it, or choose another --out") from None
    with held:
        yield


@contextmanager
def new_folder(out: str | os.PathLike, overwrite: bool = False):
    """A temporary folder that becomes `out` if the block succeeds. If it fails, the folder is deleted and `out` stays
    as it was.

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
        check_out(out, overwrite)  # again: another command may have written there
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(fresh, out)
        except BaseException:
            if old.exists():
                os.replace(old, out)
            raise


def copy_tokenizer(base: str | os.PathLike, folder: Path, **hub) -> None:
    """Copy the base's tokenizer files byte for byte: the version of transformers that wrote them can read them."""
    from transformers.utils import cached_file

    from iti_llama.configuration_iti_llama import pinned

    hub = hub if os.path.isdir(base) else pinned(base, hub)  # all of one commit
    for name in TOKENIZER_FILES:
        path = cached_file(base, name, _raise_exceptions_for_missing_entries=False, **hub)
        if path is not None:
            shutil.copyfile(path, folder / name)
