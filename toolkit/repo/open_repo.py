"""The files of a repo on the Hub or on disk, one by one, without torch and without running any of it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import OfflineModeIsEnabled

from ..foundation.files import folder_of
from ..foundation.package import ROOT


@dataclass(frozen=True)
class OpenRepo:
    """A repo to read. repo: its name or folder. commit: the commit on the Hub that is read; None for a folder."""

    repo: str
    commit: str | None
    listed: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Every file, with `/` between folders; links and hidden folders too, except .git. For a checkout of this
        project only the files at its top, since a repo holds no others."""
        if self.commit is not None:
            return self.listed
        root = Path(self.repo)
        paths = root.iterdir() if root.resolve() == ROOT else root.rglob("*")
        inside = (path.relative_to(root) for path in paths if path.is_file() or path.is_symlink())
        return tuple(sorted(path.as_posix() for path in inside if path.parts[0] != ".git"))

    def get(self, name: str) -> Path:
        """A file of the repo, downloaded if need be. Raises `FileNotFoundError` if there is none."""
        if self.commit is not None and name in self.listed:
            return Path(hf_hub_download(self.repo, name, revision=self.commit))
        if self.commit is None and Path(self.repo, name).is_file():
            return Path(self.repo, name)
        raise FileNotFoundError(f"{self.repo}: no {name}")

    def config(self) -> dict:
        """config.json. Raises `FileNotFoundError` if there is none, `ValueError` if it is not a JSON object."""
        return read_object(self.get("config.json"), f"{self.repo}/config.json")


def read_object(path: Path, where: str = "") -> dict:
    """The object in a JSON file. Raises `ValueError`, naming the file, if there is none in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where or path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{where or path}: {type(content).__name__}; expected an object")
    return content


def open_repo(repo: str | os.PathLike, revision: str | None = None) -> OpenRepo:
    """Look into a folder or a Hub repo; offline, into what the Hub's cache holds of it. Raises `OSError` if it cannot
    be found."""
    if folder_of(repo) is not None:
        return OpenRepo(os.fspath(repo), None)
    name = os.fspath(repo)
    try:
        info = HfApi().model_info(name, revision=revision)
    except OfflineModeIsEnabled:  # what transformers would load then
        kept = Path(snapshot_download(name, revision=revision, local_files_only=True))
        files = (path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file())
        return OpenRepo(name, kept.name, tuple(sorted(files)))
    return OpenRepo(name, info.sha, tuple(sorted(sibling.rfilename for sibling in info.siblings)))
