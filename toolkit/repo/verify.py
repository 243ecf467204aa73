"""Find out what loading a steered repo would run, and whether to trust it, without running any of it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from iti_llama.iti_directions import AUTO_MAP, DANGEROUS_FIELDS, file_sha256

from ..foundation.package import ROOT
from .folder import CODE, MANIFEST, leads_out
from .open_repo import OpenRepo, open_repo
from .replace_parts import marked_parts
from .steered_repo import SteeredRepo


PICKLED = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".npy", ".npz")
COMPILED = (".so", ".pyc", ".pyd", ".dll", ".dylib")
READ_BY_TRANSFORMERS = r".*config\.json|tokenizer.*\.json|special_tokens_map\.json|added_tokens\.json|.*\.index\.json"


@dataclass(frozen=True)
class CodeFile:
    """status: "ours" (this package's own, byte for byte), "released 0.1.0" (that of a released version), "changed", or
    "unknown" (not a file of ours)."""

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
    """Look into a folder or Hub repo. All files of a Hub repo except weights are downloaded, and none is run.

    Raises:
        OSError: if it cannot be found, or has no config.json. ValueError: if that is not a JSON object.
    """
    opened = open_repo(repo, revision)
    names, get, commit = list(opened.names()), opened.get, opened.commit
    root = Path(repo).resolve() if opened.commit is None else None
    links = [name for name in names if root is not None and leads_out(root, name)]
    problems, notes = [f"{name} is a link to somewhere else" for name in links], []
    if root is not None:
        dangling = [name for name in names if name not in links and not (root / name).exists()]
        problems += [f"{name} is a link to nothing" for name in dangling]
    files = [name for name in names if root is None or (root / name).is_file()]  # not links to folders, or to nothing
    config = opened.config() if "config.json" in files or "config.json" not in names else {}
    code = tuple(_code(name, get(name)) for name in files if name.lower().endswith(".py"))
    for name in names:
        if name.lower().endswith(PICKLED):
            problems.append(f"{name} can hold a pickle, which runs code when it is read")
        elif name.lower().endswith(COMPILED):
            problems.append(f"{name} is compiled code, which no repo of this package holds")
    try:
        SteeredRepo.read(opened, config)
    except (OSError, ValueError, TypeError, OverflowError) as error:
        problems.append(f"it will not load: {error}")
    for name in files:
        if name not in links and name.lower().endswith(".json") and name != "tokenizer.json":
            problems += _references(name, get(name), files)
    for file in code:
        if file.status == "changed":
            problems.append(f"{file.name} is not this package's own: read it before you run it")
        elif file.status == "unknown":
            problems.append(f"{file.name} is not a file of this package: read it before you run it")
    held = any(re.fullmatch(r"model.*\.safetensors", name) for name in files)
    if config.get("base_model_name_or_path") is None and config.get("transformers_weights") is None and not held:
        problems.append("it will not load: it names no base, and holds no model.safetensors")
    if "adapter_config.json" in names:
        problems.append(
            "adapter_config.json: transformers would load a PEFT adapter, and the base that it names, as well"
        )
    if any(name.split("/")[0] == "custom_generate" for name in names):
        problems.append("the repo has a custom_generate folder, which would replace generation")
    problems += _card(config, files, get)
    wrong, unknown = _manifest(opened, files)
    problems, notes = problems + wrong, notes + unknown

    missing = sorted(set(CODE) - set(names))
    if missing:
        notes.append(f"{', '.join(missing)} not in the repo: it loads through the installed package alone")
    ran = [file.name for file in code if file.name in CODE]
    if ran:
        notes.append(f"trust_remote_code=True runs {', '.join(ran)}, with the rights of your user")
    base = config.get("base_model_name_or_path")
    notes.append("transformers runs chat templates in a sandbox of Jinja's")
    notes.append(
        "the weights are in the repo" if base is None else f"the weights come from {base}; no code of that repo is run"
    )
    if commit:
        notes.append(f'to load exactly this: revision="{commit}", code_revision="{commit}"')
    return Verdict(repo, commit, code, tuple(problems), tuple(notes))


def _card(config: dict, names: list[str], get) -> list[str]:
    """The problem of a card that says another strength than the config: the card was not renewed after a change."""
    if "README.md" not in names or not isinstance(alpha := config.get("iti_alpha", 1.0), (int, float)):
        return []
    text = get("README.md").read_text(encoding="utf-8", errors="replace")
    try:
        what = "".join(text[start:end] for _, start, end in marked_parts(text, ["iti-what"]))
    except ValueError as error:
        return [f"README.md, {error}"]
    carded = re.search(r"shifted by alpha = (\S+) ", what)
    if carded is None or carded[1] == f"{alpha:g}":
        return []
    return [f"README.md says alpha = {carded[1]}, config.json {alpha:g}: `iti-llama push` renews the card"]


def _code(name: str, path: Path) -> CodeFile:
    sha256 = file_sha256(path)
    if name not in (*CODE, "__init__.py", "app.py"):
        return CodeFile(name, sha256, "unknown")
    if file_sha256(ROOT / name) == sha256:
        return CodeFile(name, sha256, "ours")
    versions = [version for version, files in released().items() if files.get(name) == sha256]
    return CodeFile(name, sha256, f"released {versions[-1]}" if versions else "changed")


def released() -> dict[str, dict[str, str]]:
    """{version: {code file: SHA-256}} of every released version, oldest first. A release adds a line to the table."""
    return json.loads((Path(__file__).with_name("released_code.json")).read_text(encoding="utf-8"))


def _references(name: str, path: Path, files: list[str]) -> list[str]:
    """The parts of a repo's JSON file that make transformers run code or read outside the repo, in words."""
    problems = []

    def unique(pairs: list[tuple[str, object]]) -> dict:
        keys = [key for key, _ in pairs]
        problems.extend(f"{name} says {key!r} twice" for key in sorted({key for key in keys if keys.count(key) > 1}))
        return dict(pairs)

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "auto_map":
                    wanted = AUTO_MAP if name == "config.json" else {}
                    targets = inner.items() if isinstance(inner, dict) else [("", inner)]
                    problems.extend(
                        f"{name} maps {kind} to {target}, which is not this package's class"
                        for kind, target in targets
                        if wanted.get(kind) != target
                    )
                elif key.strip("_").removesuffix("_internal") in DANGEROUS_FIELDS and inner is not None:
                    problems.append(f"{name} says {key}={inner!r}, which can make transformers run code")
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)
        elif isinstance(value, str) and re.fullmatch(r"[\w.-]+/[\w.-]+--[\w.]+", value):
            problems.append(f"{name} names code of another repo, {value}")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
        walk(content)
        if isinstance(content, dict) and "/" not in name:
            shards = content.get("weight_map") if name.endswith(".index.json") else None
            wanted = set(map(str, shards.values())) if isinstance(shards, dict) else set()
            if name == "generation_config.json":
                given = [field for field in ("iti_alpha", "iti_gate") if content.get(field) is not None]
                problems += [f"{name} holds {field}, which `generate` refuses there" for field in given]
            if name == "config.json" and content.get("transformers_weights") is not None:
                wanted.add(str(content["transformers_weights"]))
            outside = sorted(wanted - set(files))
            problems += [f"{name} takes weights from {file!r}, which is not a file of the repo" for file in outside]
    except (ValueError, RecursionError) as error:
        if re.fullmatch(READ_BY_TRANSFORMERS, name):
            problems.append(f"{name} is not JSON that can be read ({type(error).__name__})")
    return list(dict.fromkeys(problems))


def _manifest(opened: OpenRepo, names: list[str]) -> tuple[list[str], list[str]]:
    """Problems and notes from SHA256SUMS, which `push` writes. Weights on the Hub are not downloaded for it."""
    if MANIFEST not in names:
        return [], [f"no {MANIFEST}: the files cannot be compared with those that were pushed"]
    problems, unread, listed = [], [], {MANIFEST, ".gitattributes"}
    try:
        lines = opened.get(MANIFEST).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return [f"{MANIFEST} is not text that can be read"], []
    for line in lines:
        wanted, _, name = line.partition("  ")
        listed.add(name)
        if name not in names:
            problems.append(f"{MANIFEST} lists {name}, and there is no such file")
        elif opened.commit is not None and re.fullmatch(r"model.*\.safetensors", name):
            unread.append(name)
        elif file_sha256(opened.get(name)) != wanted:
            problems.append(f"{name} is not the file that was pushed: its SHA-256 is not the one in {MANIFEST}")
    added = [name for name in names if name not in listed and not name.startswith(".cache/huggingface/")]
    problems += [f"{name} is not in {MANIFEST}: it was added later, or is from an earlier push" for name in added]
    return problems, [f"not checked against {MANIFEST}: {', '.join(unread)}"] if unread else []
