"""Push a steered repo: what belongs to it and nothing else, with a card that names it."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from iti_llama import ITIDirections, ITILlamaConfig

from .card import name_repo, new_card, renewed_card, with_base
from .folder import CODE, MANIFEST, TOKENIZER_FILES, copy_tokenizer
from .state import state_of


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


FILES = (
    *CODE,
    *TOKENIZER_FILES,
    "config.json",
    "generation_config.json",
    "README.md",
    "LICENSE",
    "NOTICE",
    "iti_report.json",
    "sweep.json",
    "evaluation.json",
)
"""What is pushed where it is there, besides the directions, figures/*.png and, in self-contained form, the weights."""


@dataclass(frozen=True)
class Pushed:
    """Where it went. pull_request: its address, where one was asked for. info: what the Hub's client returned."""

    repo: str
    commit: str
    pull_request: str | None
    files: tuple[str, ...]
    info: CommitInfo


def files_to_push(folder: Path) -> list[str]:
    """The files of a steered repo, by name. Tests, caches, environments and whatever else lies there are not among
    them.

    Raises:
        FileNotFoundError: if code, config or directions are missing, or the weights of a self-contained form.
        ValueError: if the config, the directions or the form cannot be used by others.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no config.json; expected a steered repo, as `fit` or `convert` writes it")
    fields = json.loads(path.read_text(encoding="utf-8"))
    if fields.get("model_type") != "iti_llama":
        raise ValueError(f"{path}: model_type is {fields.get('model_type')!r}; expected 'iti_llama'")
    config = ITILlamaConfig.from_dict(fields)
    missing = [name for name in CODE if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: no {', '.join(missing)}; save the model with save_pretrained first")
    if config.iti_directions_file is None:
        raise ValueError(f"{path}: iti_directions_file is null, so this model is not steered")
    directions = ITIDirections.load(folder / config.iti_directions_file)
    directions.check_geometry(config, str(folder / config.iti_directions_file))
    directions.top(config.iti_top_k)
    for entry in config.iti_others.values():
        held = ITIDirections.load(folder / entry["file"])
        held.check_geometry(config, str(folder / entry["file"]))
        held.top(entry["top_k"])
    others = [entry["file"] for entry in config.iti_others.values()]
    names = [name for name in (*FILES, config.iti_directions_file, *others) if (folder / name).is_file()]
    names += sorted(str(figure.relative_to(folder)) for figure in (folder / "figures").glob("*.png"))
    base = config.base_model_name_or_path
    if base is None:
        weights = sorted(
            p.name for p in folder.glob("model*.safetensors*") if p.name.endswith((".safetensors", ".json"))
        )
        if not weights:
            raise FileNotFoundError(f"{folder}: self-contained form, but no model.safetensors")
        names += weights
    elif Path(base).is_dir():
        raise ValueError(
            f"{path}: base_model_name_or_path is the folder {base}, which nobody else can load; set it to the base's "
            "Hub repo"
        )
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
) -> Pushed:
    """Publish a steered repo, a folder or a model in memory, whole and in one commit: code, config, directions,
    tokenizer, card and, in self-contained form, the weights. The repo is created if there is none. A folder without
    card gets one, without tokenizer its base's; `tokenizer` is that of a model in memory.

    Raises: as `files_to_push`; `ValueError` if the steering failed a gate when it was measured, unless `anyway`;
    `FileNotFoundError` if there is no tokenizer anywhere; `PermissionError` without a token that may write; what
    huggingface_hub raises else. An upload that is cut off leaves no commit; try again.
    """
    with tempfile.TemporaryDirectory() as holder:
        folder = (
            Path(what)
            if isinstance(what, (str, os.PathLike))
            else _saved(what, tokenizer, Path(holder, "repo"), token)
        )
        names, api = files_to_push(folder), HfApi(token=token)
        if not anyway and (failed := state_of(folder).failed):
            advice = "see its card; `iti-llama push --anyway` (anyway=True) publishes it as it is"
            raise ValueError(f"{folder}: the steering failed {', '.join(failed)} when it was measured: {advice}")
        content: dict[str, bytes | str] = {name: str(folder / name) for name in names}
        if not set(TOKENIZER_FILES) & content.keys():
            content |= _base_tokenizer(folder, Path(holder, "tokenizer"), token)
        try:
            repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
            content["README.md"] = _card(folder, repo).encode()
            content[MANIFEST] = "".join(f"{_sha256(data)}  {name}\n" for name, data in content.items()).encode()
            if revision is not None and not create_pr:
                api.create_branch(repo, branch=revision, exist_ok=True)
            operations = [CommitOperationAdd(path_in_repo=n, path_or_fileobj=data) for n, data in content.items()]
            said = message or commit_message or "Push a steered Llama"
            info = api.create_commit(repo, operations, commit_message=said, create_pr=create_pr, revision=revision)
        except (HfHubHTTPError, LocalTokenNotFoundError) as error:
            status = getattr(getattr(error, "response", None), "status_code", 401)
            if status not in (401, 403):
                raise
            advice = "log in with `hf auth login`, or pass --token, a token with write access"
            raise PermissionError(f"the Hub refuses to write to {repo} ({status}): {advice}") from error
    files = tuple(name for name in content if name != MANIFEST)
    return Pushed(repo, info.oid, info.pr_url if create_pr else None, files, info)


def _card(folder: Path, repo: str) -> str:
    """The card as the Hub gets it: of the present state, and naming the repo."""
    text = renewed_card(folder, repo)
    if text is not None:
        return text
    if not (folder / "README.md").is_file():
        return new_card(state_of(folder), repo)
    config = ITILlamaConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    return name_repo(with_base((folder / "README.md").read_text(encoding="utf-8"), config), repo)  # its owner's


def _saved(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase | None", folder: Path, token) -> Path:
    """The files of a model in memory; with a tokenizer, or that of the folder or repo that it was loaded from."""
    base = model.config.base_model_name_or_path
    if base is not None and os.path.isdir(base):
        advice = "set it to the base's Hub repo, or to None to push the weights as well"
        raise ValueError(f"base_model_name_or_path is the folder {base}, which nobody else can load: {advice}")
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    elif os.path.isdir(model.name_or_path) or (model.name_or_path and not os.path.isabs(model.name_or_path)):
        copy_tokenizer(model.name_or_path, folder, token=token)
    return folder


def _base_tokenizer(folder: Path, beside: Path, token: str | None) -> dict[str, str]:
    """The base's tokenizer, for a repo that has none of its own, in the folder `beside`: {name: path}.

    Raises:
        FileNotFoundError: if there is none either: nobody could use the repo.
    """
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    base, revision = fields.get("base_model_name_or_path"), fields.get("base_model_revision")
    beside.mkdir()
    if base is not None:
        copy_tokenizer(base, beside, token=token, **({"revision": revision} if revision else {}))
    found = {path.name: str(path) for path in sorted(beside.iterdir())}
    if not found:
        where = folder if base is None else f"{folder} and its base {base}"
        raise FileNotFoundError(f"{where}: no tokenizer, without which nobody can use the repo; save one there")
    return found


def _sha256(data: bytes | str) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else Path(data).read_bytes()).hexdigest()
