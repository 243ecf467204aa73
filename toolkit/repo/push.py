"""Push a steered repo: what belongs to it and nothing else, with a card that names it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from iti_llama import ITIDirections, ITILlamaConfig

from .card import name_repo, with_base
from .folder import CODE, MANIFEST, TOKENIZER_FILES


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
    """Where it went. pull_request: its address, where one was asked for."""

    repo: str
    commit: str
    pull_request: str | None
    files: tuple[str, ...]


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
    names = [name for name in (*FILES, config.iti_directions_file) if (folder / name).is_file()]
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
    folder: Path,
    repo: str,
    private: bool = False,
    create_pr: bool = False,
    message: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> Pushed:
    """Create the repo if there is none, and put the files there in one commit.

    Raises: as `files_to_push`, and what huggingface_hub raises. An upload that is cut off leaves no commit; try again.
    """
    names = files_to_push(folder)
    operations, sums = [], []
    for name in names:
        content: str | bytes = str(folder / name)
        if name == "README.md":
            config = ITILlamaConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
            text = with_base((folder / name).read_text(encoding="utf-8"), config)
            content = name_repo(text, repo).encode()
        operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content))
        data = content if isinstance(content, bytes) else Path(content).read_bytes()
        sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    operations.append(CommitOperationAdd(path_in_repo=MANIFEST, path_or_fileobj="".join(sums).encode()))
    api = HfApi(token=token)
    api.create_repo(repo, private=private, exist_ok=True)
    if revision is not None and not create_pr:
        api.create_branch(repo, branch=revision, exist_ok=True)
    info = api.create_commit(
        repo, operations, commit_message=message or "Push a steered Llama", create_pr=create_pr, revision=revision
    )
    return Pushed(repo, info.oid, info.pr_url if create_pr else None, tuple(names))
