"""What loading a steered repo would run, and whether to trust it, found out without running any of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from iti_llama.iti_directions import ITIDirections, ITIDirectionsError

from ..foundation.package import ROOT
from .folder import CODE
from .open_repo import open_repo


PICKLED = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".npy", ".npz")
AUTO_MAP = {
    "AutoConfig": "configuration_iti_llama.ITILlamaConfig",
    "AutoModel": "modeling_iti_llama.ITILlamaModel",
    "AutoModelForCausalLM": "modeling_iti_llama.ITILlamaForCausalLM",
}


GEOMETRY = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "head_dim": None}
"""What a config that does not say otherwise describes, as LlamaConfig has it."""


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
    opened = open_repo(repo, revision)
    names, get, commit, config = list(opened.names()), opened.get, opened.commit, opened.config()
    if opened.commit is None and Path(repo).resolve() == ROOT:  # a checkout of the project: only what a repo holds
        names = [name for name in names if "/" not in name]
    problems, notes = [], []
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
        directions = ITIDirections.load(get(file), framework="np")
        directions.check_geometry(SimpleNamespace(**GEOMETRY | {k: config[k] for k in GEOMETRY if k in config}), file)
        directions.top(config.get("iti_top_k"))
    except (ITIDirectionsError, ValueError, TypeError) as error:
        return [f"the directions cannot be used: {error}"]
    return []
