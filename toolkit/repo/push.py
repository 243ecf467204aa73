"""Push a steered repo: what belongs to it and nothing else, with a card that names it."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, ModelCard, get_token, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from safetensors.numpy import load_file

from iti_llama.iti_directions import behaviours_of, check_fields, file_sha256

from ..foundation.files import write_text
from ..measure.keep_labelled_set import FILE
from .card import name_repo, new_card, renewed_card, with_base
from .folder import CODE, MANIFEST, TOKENIZER_FILES, check_no_links, copy_tokenizer, weight_files
from .open_repo import open_repo
from .replace_parts import read_card
from .steered_repo import SteeredRepo


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)

LOG_IN = "log in with `hf auth login`, or pass --token, a token with write access"

OWNERS = ("README.md", "LICENSE", "NOTICE")

RECORDS = ("iti_report.json", "sweep.json", "evaluation.json")

FIGURES = tuple(f"figures/{name}.png" for name in ("head_auc", "layers", "null", "projections", "sweep"))

FILES = (*CODE, *TOKENIZER_FILES, "config.json", "generation_config.json", *OWNERS, *RECORDS, *FIGURES)
"""The files that are pushed if they exist, besides the directions and, in self-contained form, the weights."""


@dataclass(frozen=True)
class Pushed:
    """Where it went. pull_request: its address, if one was asked for. info: what the Hub's client returned."""

    repo: str
    commit: str
    pull_request: str | None
    files: tuple[str, ...]
    info: CommitInfo


def files_to_push(folder: Path) -> list[str]:
    """The names of a steered repo's files. Tests, caches, environments and whatever else lies there are left out.

    Raises:
        FileNotFoundError: if code or the weights of a self-contained form are missing; also as `SteeredRepo.open`.
        ValueError: if nobody else could load the base, or a file is a link.
    """
    return _files_of(SteeredRepo.open(folder))


def _files_of(repo: SteeredRepo) -> list[str]:
    folder, base = repo.folder, repo.weights_from
    missing = [name for name in CODE if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: no {', '.join(missing)}; save the model with save_pretrained first")
    directions = [behaviour.file for behaviour in repo.behaviours.values()]
    names = [name for name in (*FILES, *directions) if (folder / name).is_file()]
    if base is None:
        weights = weight_files(folder, repo.fields)
        if not weights:
            raise FileNotFoundError(f"{folder}: self-contained form, but no model.safetensors")
        names += weights
    elif Path(base).is_dir():
        raise ValueError(
            f"{folder}/config.json: base_model_name_or_path is the folder {base}, which nobody else can load; set it "
            "to the base's Hub repo"
        )
    check_no_links(folder, names)
    return names


def push(
    what: "str | os.PathLike | PreTrainedModel",
    repo: str,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    private: bool = False,
    create_pr: bool = False,
    message: str | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    anyway: bool = False,
    announce: Callable[[Sequence[str]], None] = lambda names: logger.info("to be pushed: %s", ", ".join(names)),
) -> Pushed:
    """Publish a steered repo, a folder or a model in memory, whole and in one commit: code, config, directions,
    tokenizer, card and, in self-contained form, the weights. The repo is created if there is none. A folder without a
    card gets one; a folder without a tokenizer gets its base's. `tokenizer` is that of a model in memory. Such a model
    is pushed with the card and licence of the repo that it was loaded from, and with its records as long as directions
    and weights are the same. `announce` is called with the names of the files before anything is sent.

    Raises: as `files_to_push`; `ValueError` if the steering failed a check when it was measured, unless `anyway`;
    `FileNotFoundError` if there is no tokenizer anywhere; `PermissionError` without a token that may write; whatever
    else huggingface_hub raises. An upload that is cut off leaves no commit; try again.

    >>> from iti_llama import push
    >>> push("steered-llama", "me/steered-llama", private=True).repo  # doctest: +SKIP
    'me/steered-llama'
    """
    with tempfile.TemporaryDirectory() as holder:
        on_disk = isinstance(what, (str, os.PathLike))
        folder = Path(what) if on_disk else _saved(what, tokenizer, Path(holder, "repo"), token)
        steered, api = SteeredRepo.open(folder), HfApi(token=token)
        names = _files_of(steered)
        if not anyway and (failed := steered.failed_checks):
            advice = "see its card; `iti-llama push --anyway` (anyway=True) publishes it as it is"
            named = folder if on_disk else repo
            raise ValueError(f"{named}: the steering failed {', '.join(failed)} when it was measured: {advice}")
        content: dict[str, bytes | str] = {name: str(folder / name) for name in names}
        if not set(TOKENIZER_FILES) & content.keys():
            content |= _base_tokenizer(steered, Path(holder, "tokenizer"), token)
        _card(steered, repo)  # refuses a card that is wrong before anything is sent
        announce(sorted({*content, "README.md", MANIFEST}))
        try:
            repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
            check_not_base(repo, steered.weights_from)
            content["README.md"] = _card(steered, repo).encode()
            content[MANIFEST] = "".join(f"{_sha256(data)}  {name}\n" for name, data in content.items()).encode()
            if revision is not None and not create_pr:
                api.create_branch(repo, branch=revision, exist_ok=True)
            operations = [CommitOperationAdd(path_in_repo=n, path_or_fileobj=data) for n, data in content.items()]
            message = message or commit_message or "Push a steered Llama"
            info = api.create_commit(repo, operations, commit_message=message, create_pr=create_pr, revision=revision)
        except (HfHubHTTPError, LocalTokenNotFoundError) as error:
            status = getattr(getattr(error, "response", None), "status_code", 401)
            if status not in (401, 403):
                raise
            raise PermissionError(f"the Hub refuses to write to {repo} ({status}): {LOG_IN}") from error
    files = tuple(name for name in content if name != MANIFEST)
    return Pushed(repo, info.oid, info.pr_url if create_pr else None, files, info)


def check_not_base(repo: str, base: str | None) -> None:
    """Raises `ValueError` if a push would replace the base itself."""
    if repo == base:
        raise ValueError(f"{repo} is the base model, whose config.json would be lost; push to another repo")


def check_push(repo: str, base: str, self_contained: bool, token: str | None) -> None:
    """Refuse before the work what `push` would refuse after it.

    Raises:
        ValueError: if the name is invalid, or nobody else could load the base. PermissionError: without a token.
    """
    validate_repo_id(repo)
    check_not_base(repo, base)
    if os.path.isdir(base) and not self_contained:
        advice = "pass --self-contained, or the base's Hub repo"
        raise ValueError(f"--push {repo}, but the base is the folder {base}, which nobody else can load; {advice}")
    if not (token or get_token()):
        raise PermissionError(f"--push {repo}, but there is no token: {LOG_IN}")


def _card(repo: SteeredRepo, hub_name: str) -> str:
    """The card as the Hub gets it: it describes the repo as it is now, and names it."""
    text = renewed_card(repo.folder, hub_name)
    if text is not None:
        return text
    if not (repo.folder / "README.md").is_file():
        return new_card(repo, hub_name)
    return name_repo(with_base(read_card(repo.folder / "README.md"), repo.weights_from), hub_name)


def _saved(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase | None", folder: Path, token) -> Path:
    """Save a model in memory, the tokenizer of the repo that it was loaded from, unless one is given, and what
    `_take_along` copies from there."""
    base = model.config.base_model_name_or_path
    if base is not None and os.path.isdir(base):
        advice = "set it to the base's Hub repo, or to None to push the weights as well"
        raise ValueError(f"base_model_name_or_path is the folder {base}, which nobody else can load: {advice}")
    from iti_llama.loading_iti_llama import weights_changed

    model.save_pretrained(folder)
    revision = getattr(model, "_iti_revision", None)
    source = _folder_of(model.name_or_path, revision, token)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    elif source is not None:
        check_no_links(source, (name for name in TOKENIZER_FILES if (source / name).is_file()))
        copy_tokenizer(source, folder)
    former = _fields_of(source)
    if former is not None:
        _take_along(source, former, folder, weights_changed(model) is None)
    return folder


def _folder_of(name: str, revision: str | None, token: str | None) -> Path | None:
    """The folder that a model was loaded from, or the files of its Hub repo except weights. None if that is gone."""
    if os.path.isdir(name):
        return Path(name)
    if not name or os.path.isabs(name):
        return None
    patterns = [*FILES, "iti_directions*.safetensors"]
    try:
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        logger.warning("%s cannot be read, so its card and records are left out: %s", name, error)
        return None


def _fields_of(source: Path | None) -> dict | None:
    """The steering fields of the repo that a model was loaded from; None if that is gone, or is a plain Llama."""
    if source is None or not (source / "config.json").is_file():
        return None
    fields = open_repo(source).config()
    return check_fields(fields) if fields.get("model_type") == "iti_llama" else None


def _take_along(source: Path, former: dict, folder: Path, same_weights: bool) -> None:
    """Copy what a steered repo holds besides the model: card and licence; with the same directions and weights also
    the records. A card without live parts describes one steering: if that has changed, only the card's header is kept.
    former: the steering fields of the source."""
    repo, before = SteeredRepo.open(folder), list(behaviours_of(former).values())
    same = same_weights and bool(before)
    same = same and _same_tensors(folder / repo.default.file, source / before[0].file)
    records = (*RECORDS, FILE, *FIGURES) if same else ()
    names = [name for name in (*OWNERS, *records) if (source / name).is_file()]
    check_no_links(source, names)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    same = same and all(repo.fields[name] == former[name] for name in ("iti_alpha", "iti_top_k", "iti_scope"))
    path = folder / "README.md"
    if path.is_file() and not same and renewed_card(folder) is None:
        card = ModelCard(read_card(path))
        card.text = ModelCard(new_card(SteeredRepo.open(folder))).text
        write_text(path, str(card))


def _same_tensors(new: Path, former: Path) -> bool:
    if not former.is_file():
        return False
    ours, theirs = load_file(new), load_file(former)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def _base_tokenizer(repo: SteeredRepo, beside: Path, token: str | None) -> dict[str, str]:
    """The base's tokenizer, for a repo without one, copied into the folder `beside`: {name: path}.

    Raises:
        FileNotFoundError: if the base has none either: nobody could use the repo.
    """
    base, revision = repo.weights_from, repo.base_revision
    beside.mkdir()
    if base is not None:
        copy_tokenizer(base, beside, token=token, **({"revision": revision} if revision else {}))
    files = {path.name: str(path) for path in sorted(beside.iterdir())}
    if not files:
        where = repo.folder if base is None else f"{repo.folder} and its base {base}"
        raise FileNotFoundError(f"{where}: no tokenizer, without which nobody can use the repo; save one there")
    return files


def _sha256(data: bytes | str) -> str:
    return hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else file_sha256(data)
