"""What a vLLM server steers by: its exports and the strengths of a request. `ITI_ADAPTERS="NAME=FOLDER,..."` names the
exports; `iti-llama export --to vllm` writes them. A request asks for strengths in its model's name
(`NAME@0.8+OTHER@-0.3`) or in `vllm_xargs` (`{"iti": 0.8}`, `{"iti": "NAME=0.8,OTHER=-0.3"}`). This module needs
neither vLLM nor torch.

A strength outside the range of the export is refused unless the server sets `ITI_ANY_STRENGTH=1`.
"""

import functools
import hashlib
import json
import math
import os
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iti_llama.iti_directions import FLOAT32_MAX, SCOPES, ITIDirections, file_sha256

from ..foundation.strength_range import StrengthRange
from .say_steering import Origin


if TYPE_CHECKING:
    import torch

EXPORT = "iti_export.json"

ARGUMENT = "iti"
"""The name of the strengths among a request's `vllm_xargs`."""

_SALTED = "iti_salted"
"""The name of the argument by which this process marks a request that has the `cache_salt` of its strengths."""

SALT = "iti-"
"""The start of every such salt."""

LONGEST = 512
"""The most characters of a model's name, or of the strengths in a request."""

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def register_model() -> None:
    """The entry point `vllm.general_plugins`: it registers the architecture, which vLLM imports on first use."""
    from vllm import ModelRegistry

    ModelRegistry.register_model("ITILlamaForCausalLM", "iti_llama.toolkit.export.vllm_model:ITILlamaForCausalLM")


@dataclass(frozen=True)
class Behaviour:
    """A directions file of an export. sha256: its digest. top_k: how many of its best heads are steered; None for all.
    share: its share of the mix, in units of the export's alpha."""

    file: str
    sha256: str
    top_k: int | None
    share: float


@dataclass(frozen=True)
class Adapter:
    """An export. alpha: its own strength. allowed: the strengths that a request may ask for. scope: the positions that
    are shifted. repo, commit: where it came from; a folder has no commit."""

    name: str
    folder: Path
    alpha: float
    allowed: StrengthRange
    scope: str
    repo: str
    commit: str | None
    behaviours: tuple[Behaviour, ...]

    def about(self, strength: float) -> dict:
        """What an answer says about the steering."""
        digests = {behaviour.file: behaviour.sha256 for behaviour in self.behaviours}
        return Origin(self.repo, self.commit, digests).say(strength, self.scope)


def read_adapters(text: str) -> dict[str, Adapter]:
    """`NAME=FOLDER,...` as a dictionary.

    Raises:
        ValueError: if the text has another form, or a folder holds no export of `--to vllm`.
    """
    adapters = {}
    for part in filter(None, text.split(",")):
        name, equals, folder = part.partition("=")
        if not equals or not re.fullmatch(r"[\w.-]{1,64}", name) or name in adapters:
            raise ValueError(f"ITI_ADAPTERS: {part!r}; expected NAME=FOLDER, each name once, of at most 64 letters")
        adapters[name] = read_adapter(name, Path(folder))
    return adapters


def read_adapter(name: str, folder: Path) -> Adapter:
    """Raises `ValueError`, naming the folder, unless it is an export of `--to vllm` with the files of its record."""
    wanted = "expected a folder of `iti-llama export --to vllm`"
    try:
        record = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
        form = record["form"]
        if form != "vllm" or "behaviours" not in record:
            form = f"{form}, of a version up to 0.2" if form == "vllm" else form
            raise ValueError(f"holds the form {form!r}")
        low, high = map(float, record["range"])
        if not -math.inf < low <= high < math.inf:
            raise ValueError(f"range is [{low}, {high}] instead of two finite numbers, the lower one first")
        if record["scope"] not in SCOPES:
            raise ValueError(f"scope is {record['scope']!r}")
        behaviours = tuple(Behaviour(**behaviour) for behaviour in record["behaviours"])
        for behaviour in behaviours:
            if file_sha256(folder / behaviour.file) != behaviour.sha256:
                raise ValueError(f"{behaviour.file} is not the file that was exported")
        kept = {key: record[key] for key in ("scope", "repo", "commit")}
        allowed = StrengthRange(low, high, bool(record["measured"]))
        return Adapter(name, folder, float(record["alpha"]), allowed, **kept, behaviours=behaviours)
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"ITI_ADAPTERS: {folder}: {type(error).__name__}: {error}; {wanted}") from None


@functools.cache
def adapters_of_server() -> dict[str, Adapter]:
    """The adapters of this process's environment. Raises `ValueError` as `read_adapters`, or if there are none."""
    adapters = read_adapters(os.environ.get("ITI_ADAPTERS", ""))
    if not adapters:
        raise ValueError("ITI_ADAPTERS names no export; expected NAME=FOLDER,...")
    return adapters


def offsets_of(adapters: Mapping[str, Adapter], config) -> dict[int, dict[str, dict[int, "torch.Tensor"]]]:
    """What the adapters add at strength 1: {layer: {site: {place of the adapter in their order: float32 [width]}}}.
    Raises `ITIDirectionsError`, naming the file, if they do not fit the model of `config`."""
    offsets = {}
    for column, adapter in enumerate(adapters.values()):
        for behaviour in adapter.behaviours:
            path = adapter.folder / behaviour.file
            directions = ITIDirections.load(path)
            directions.check_geometry(config, str(path))
            for layer, offset in directions.top(behaviour.top_k).offsets().items():
                rows = offsets.setdefault(layer, {}).setdefault(directions.site, {})
                rows[column] = rows.get(column, 0) + behaviour.share * offset
    return offsets


def strengths_of_model(model: str, adapters: Mapping[str, Adapter], any_strength: bool) -> dict[str, float] | None:
    """The strengths that a model's name asks for; None if it names none of the adapters.

    Raises:
        ValueError: if the name asks for something that is refused, with the reason.
    """
    _check_length("model", model)
    parts = [part.partition("@") for part in split_mix(model)]
    if not any(name in adapters for name, _, _ in parts):
        return None
    pairs = [(name, number if at else None) for name, at, number in parts]
    return _strengths(f"model {model!r}", pairs, adapters, any_strength)


def split_mix(model: str) -> list[str]:
    """`A@0.8+B@+1e+0` as `A@0.8` and `B@+1e+0`: a plus begins a new part unless it belongs to a number."""
    parts = []
    for piece in model.split("+"):
        if parts and (parts[-1][-1:] == "@" or "@" not in piece):
            parts[-1] += "+" + piece
        else:
            parts.append(piece)
    return parts


def strengths_of_argument(value: object, adapters: Mapping[str, Adapter], any_strength: bool) -> dict[str, float]:
    """The strengths that `vllm_xargs` asks for: a number, if the server has one adapter, or `NAME=0.8,OTHER=-0.3`.

    Raises:
        ValueError: if the value is refused, with the reason.
    """
    where = f"vllm_xargs[{ARGUMENT!r}]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = repr(value)
    if not isinstance(value, str):
        raise ValueError(f"{where} is {str(value)[:80]!r}; expected a number, or NAME=NUMBER,...")
    _check_length(where, value)
    if "=" not in value:
        if len(adapters) != 1:
            raise ValueError(f"{where} is {value!r}, but this server has {', '.join(adapters)}; expected NAME=NUMBER")
        value = f"{next(iter(adapters))}={value}"
    pairs = [part.partition("=")[::2] for part in value.split(",")]
    return _strengths(where, pairs, adapters, any_strength)


def _check_length(where: str, text: str) -> None:
    if len(text) > LONGEST:
        raise ValueError(f"{where} {text[:40]!r}... has {len(text)} characters; expected at most {LONGEST}")


def _strengths(where: str, pairs, adapters: Mapping[str, Adapter], any_strength: bool) -> dict[str, float]:
    strengths = {}
    for name, number in pairs:
        if name not in adapters:
            raise ValueError(f"{where}: no adapter is called {name!r}; this server has {', '.join(adapters)}")
        if name in strengths:
            raise ValueError(f"{where} names {name!r} twice; expected each once")
        adapter = adapters[name]
        if number is None:
            strengths[name] = adapter.alpha
            continue
        strength = float(number) + 0.0 if NUMBER.fullmatch(number) else math.nan  # -0.0 is 0.0
        if not abs(strength) <= FLOAT32_MAX:
            raise ValueError(f"{where}: the strength of {name!r} is {number!r}; expected a finite number, such as 0.8")
        if not any_strength:
            adapter.allowed.check(strength, f"{where}: the strength of {name!r}")
        strengths[name] = strength
    return strengths


def arguments_of(
    strengths: Mapping[str, float], adapters: Mapping[str, Adapter], salt: str | None = None
) -> tuple[dict[str, str], str | None]:
    """The `extra_args` of a request with these strengths, and its `cache_salt`. With the salt, only requests of equal
    strengths share keys and values in the prefix cache. `salt` is the request's own. Nothing is added if all strengths
    are 0.

    In scope "generated" no requests share them: vLLM also caches the generated tokens, and in the prompt of the next
    turn the same tokens are plain.
    """
    if salt is not None and (not isinstance(salt, str) or salt.startswith(SALT)):
        raise ValueError(f"cache_salt is {str(salt)[:80]!r}; expected a text that does not begin with {SALT!r}")
    steering = {name: strengths[name] for name in sorted(strengths) if strengths[name] != 0}
    if not steering:
        return {}, salt
    text = ",".join(f"{name}={strength!r}" for name, strength in steering.items())
    digests = [behaviour.sha256 for name in steering for behaviour in adapters[name].behaviours]
    alone = uuid.uuid4().hex if any(adapters[name].scope == "generated" for name in steering) else ""
    digest = hashlib.sha256(json.dumps([text, digests, salt, alone]).encode()).hexdigest()
    return {ARGUMENT: text, _SALTED: _word()}, SALT + digest


@functools.cache
def _word() -> str:
    """A secret of this process. A request that has it went through `arguments_of`, since no client knows it."""
    return secrets.token_hex(16)


def check_arguments(
    extra_args: Mapping | None, adapters: Mapping[str, Adapter], any_strength: bool
) -> dict[str, float]:
    """The strengths of a request as the engine gets it.

    Raises:
        ValueError: if they are refused, or the request does not have the salt of its strengths.
    """
    given = {name: value for name, value in (extra_args or {}).items() if name.startswith(ARGUMENT)}
    if not given:
        return {}
    for name in given:
        if name not in (ARGUMENT, _SALTED):
            raise ValueError(f"vllm_xargs[{name[:80]!r}] is not known; expected {ARGUMENT!r}")
    if given.get(_SALTED) != _word():
        raise ValueError(
            f"vllm_xargs[{ARGUMENT!r}] came without the cache_salt of its strengths, so it would share keys and "
            "values of the prefix cache with others; start the server with --middleware "
            "iti_llama.toolkit.export.vllm_server.Steering, and ask its /v1/completions or another path that it steers"
        )
    return strengths_of_argument(given.get(ARGUMENT), adapters, any_strength)
