"""What loading a steered repo would run, and whether to trust it, found out without running any of it."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from transformers import LlamaConfig

from iti_llama import ITIDirections, ITIDirectionsError

from ..foundation.package import ROOT
from .folder import CODE


PICKLED = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".npy", ".npz")
AUTO_MAP = {
    "AutoConfig": "configuration_iti_llama.ITILlamaConfig",
    "AutoModel": "modeling_iti_llama.ITILlamaModel",
    "AutoModelForCausalLM": "modeling_iti_llama.ITILlamaForCausalLM",
}


@dataclass(frozen=True)
class CodeFile:
    """status: "ours" (this package's own, byte for byte), "changed", or "unknown" (no file of ours)."""

    name: str
    sha256: str
    status: str


@dataclass(frozen=True)
class Verdict:
    """code: the Python files that loading can run. problems: reasons not to load it; empty if there are none. notes:
    what loading does, in words."""

    repo: str
    revision: str | None
    code: tuple[CodeFile, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def verify(repo: str, revision: str | None = None) -> Verdict:
    """Look into a folder or Hub repo. Of a Hub repo only Python files, the config and the directions are downloaded.

    Raises:
        OSError: if it cannot be found. ValueError: if its config.json is no JSON object.
    """
    if os.path.isdir(repo):
        root, commit = Path(repo), None
        found = (path.relative_to(root) for path in root.rglob("*") if path.is_file() or path.is_symlink())
        names = sorted(path.as_posix() for path in found if path.parts[0] != ".git")
        if root.resolve() == ROOT:  # of a checkout of the project, only what a repo holds counts
            names = [name for name in names if "/" not in name]

        def get(name: str) -> Path:
            return root / name
    else:
        info = HfApi().model_info(repo, revision=revision)
        commit = info.sha
        names = sorted(sibling.rfilename for sibling in info.siblings)

        def get(name: str) -> Path:
            return Path(hf_hub_download(repo, name, revision=commit))

    problems, notes = [], []
    if "config.json" not in names:
        raise FileNotFoundError(f"{repo}: no config.json; expected a model repo")
    try:
        config = json.loads(get("config.json").read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{repo}/config.json: no JSON ({error})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{repo}/config.json: {type(config).__name__}; expected an object")
    code = tuple(_code(name, get(name)) for name in names if name.endswith(".py"))
    problems += [
        f"{name} can hold a pickle, which runs code when it is read" for name in names if name.endswith(PICKLED)
    ]
    if config.get("model_type") != "iti_llama":
        problems.append(f"config.json has model_type {config.get('model_type')!r}; expected 'iti_llama'")
    for name, target in (config.get("auto_map") or {}).items():
        if AUTO_MAP.get(name) != target:
            problems.append(f"config.json maps {name} to {target}, which is not this package's class")
    for file in code:
        if file.status == "changed":
            problems.append(f"{file.name} is not this package's own: read it before you run it")
        elif file.status == "unknown":
            problems.append(f"{file.name} is no file of this package: read it before you run it")
    if config.get("custom_generate") or any(name.split("/")[0] == "custom_generate" for name in names):
        problems.append("the repo has a custom_generate folder, which would replace generation")
    problems += _directions(config, names, get)

    missing = [name for name in CODE if name not in names]
    if missing:
        notes.append(f"{', '.join(missing)} not in the repo: it loads through the installed package alone")
    ran = [file.name for file in code if file.name in CODE]
    if ran:
        notes.append(f"trust_remote_code=True runs {', '.join(ran)}, with the rights of your user")
    base = config.get("base_model_name_or_path")
    notes.append(
        "the weights are in the repo" if base is None else f"the weights come from {base}; no code of that repo is run"
    )
    if commit:
        notes.append(f'to load exactly this: revision="{commit}", code_revision="{commit}"')
    return Verdict(repo, commit, code, tuple(problems), tuple(notes))


def _code(name: str, path: Path) -> CodeFile:
    data = path.read_bytes()
    own = ROOT / name
    known = name in (*CODE, "__init__.py")
    status = "unknown" if not known else "ours" if own.read_bytes() == data else "changed"
    return CodeFile(name, hashlib.sha256(data).hexdigest(), status)


def _directions(config: dict, names: list[str], get) -> list[str]:
    file = config.get("iti_directions_file", "iti_directions.safetensors")
    if file is None:
        return ["iti_directions_file is null: the model is not steered"]
    if not isinstance(file, str) or file not in names:
        return [f"iti_directions_file is {file!r}, and there is no such file: it will not load"]
    try:
        directions = ITIDirections.load(get(file))
        own = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
        directions.check_geometry(LlamaConfig(**own), file)
        directions.top(config.get("iti_top_k"))
    except (ITIDirectionsError, ValueError, TypeError) as error:
        return [f"the directions cannot be used: {error}"]
    return []
