"""Read the files of older ITI code."""

import json
import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .unpickle import LARGEST_INTEGER, LegacyError, read_pickle


MOST_NUMBERS = 1 << 24
"""Most numbers in all directions together; a file may use one list for many heads. The largest Llama has 2 million."""


@dataclass
class Legacy:
    """An intervention as older code stored it.

    vectors: {(layer, head): (vector [head_dim], standard deviation or None)}, best-ranked first where `ranked`.
    scores: {(layer, head): AUC or accuracy}. said: what was read and decided, in words.
    """

    vectors: dict[tuple[int, int], tuple[np.ndarray, float | None]]
    ranked: bool
    scores: dict[tuple[int, int], float] = field(default_factory=dict)
    alpha: float | None = None
    heads_used: int | None = None
    base: str | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    said: list[str] = field(default_factory=list)


CONFIG = "iti_config.json"


PICKLES = (
    "iti_components.pkl",
    "probe_results.pkl",
    "directions.pkl",
    "iti_directions.pkl",
    "intervention_directions.pkl",
)


RANKS = ("top_heads.pkl", "iti_top_heads.pkl")


def read_legacy(source: Path) -> Legacy:
    """Read a folder or a file of older code.

    Raises:
        LegacyError: if it holds no file that is known, or a file cannot be read.
    """
    if source.is_file():
        files = [source]
    else:
        files = [source / name for name in (CONFIG, *PICKLES, *RANKS) if (source / name).is_file()]
        others = sorted(path for path in source.glob("*.pkl") if path not in files)
        if not any(path.name in PICKLES for path in files) and len(others) == 1:
            files += others
    paths = {path.name: path for path in files}
    found = {path.name: _read_json(path) if path.suffix == ".json" else read_pickle(path) for path in files}
    said = [f"read {', '.join(found)}"]
    config, told_in = found.pop(CONFIG, {}) or {}, paths.get(CONFIG)
    if not isinstance(config, dict):
        raise LegacyError(f"{told_in}: {type(config).__name__}; expected an object")
    ranks = next(((paths[name], found.pop(name)) for name in RANKS if name in found), None)
    holders = list(found.items())
    if not holders and "directions" in config:
        holders = [(CONFIG, config)]
    if not holders:
        raise LegacyError(
            f"{source}: no directions found; expected one of {', '.join(PICKLES)}, or {CONFIG} with directions in it"
        )
    name, content = holders[0]
    where = paths[name]
    if not isinstance(content, dict):
        raise LegacyError(f"{where}: {type(content).__name__}; expected a dict")
    if isinstance(content.get("metadata"), dict) and not config:
        config, told_in = content, where
    raw = content["directions"] if isinstance(content.get("directions"), dict) else content
    vectors, numbers = {}, 0
    for key, value in raw.items():
        pair = _pair(key, where)
        vectors[pair] = _vector(value, where)
        numbers += len(vectors[pair][0])
        if numbers > MOST_NUMBERS:
            raise LegacyError(f"{where}: directions of more than {MOST_NUMBERS:,} numbers in all")
    if not vectors:
        raise LegacyError(f"{where}: holds no directions")
    order, scores, ranked = _ranks(content, where, ranks, said)
    accuracies = _accuracies(content, where)
    if accuracies and not scores:
        vectors = dict(sorted(vectors.items(), key=lambda item: -accuracies.get(item[0], -math.inf)))
        chosen = set(order or vectors)
        order = [pair for pair in vectors if pair in chosen]
        scores, ranked = {pair: accuracies[pair] for pair in order if pair in accuracies}, True
        said.append("the heads are ranked by the source's accuracy of each head (all_head_accs)")
    if order:
        missing = [pair for pair in order if pair not in vectors]
        if missing:
            raise LegacyError(
                f"{where}: top_heads names layer {missing[0][0]}, head {missing[0][1]}, which has no direction"
            )
        if len(order) < len(vectors):
            said.append(f"{len(vectors) - len(order)} heads have a direction and no rank: left out")
        vectors = {pair: vectors[pair] for pair in order}
    if not ranked:
        said.append("the source does not rank its heads: they are kept in its order, so iti_top_k means nothing here")
    meta = config.get("metadata") if isinstance(config.get("metadata"), dict) else {}
    alpha = meta.get("alpha", config.get("alpha"))
    if alpha is not None and (
        isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha)
    ):
        raise LegacyError(f"{told_in}: alpha is {_short(alpha)}; expected a number")
    used = config.get("num_intervention_heads", meta.get("num_intervention_heads"))
    base = config.get("base_model", meta.get("base_model"))
    return Legacy(
        vectors=vectors,
        ranked=ranked,
        scores=scores,
        alpha=alpha,
        heads_used=used if isinstance(used, int) and not isinstance(used, bool) and used > 0 else None,
        base=base if isinstance(base, str) else None,
        num_layers=content.get("num_layers") if isinstance(content.get("num_layers"), int) else None,
        num_heads=content.get("num_heads") if isinstance(content.get("num_heads"), int) else None,
        said=said,
    )


def _accuracies(content: dict, where: Path) -> dict[tuple[int, int], float]:
    """{(layer, head): accuracy} where the source has one for every head, in the order of the layers."""
    values, layers, heads = (content.get(key) for key in ("all_head_accs", "num_layers", "num_heads"))
    if values is None or not isinstance(layers, int) or not isinstance(heads, int):
        return {}
    by_layer = isinstance(values, list) and len(values) == layers and 0 < layers * heads < MOST_NUMBERS
    if by_layer and all(isinstance(row, list) and len(row) == heads for row in values):
        values = [number for row in values for number in row]
    try:
        numbers = _numbers(values)
    except TypeError as error:
        raise LegacyError(f"{where}: all_head_accs {error}") from None
    if len(numbers) != layers * heads or not np.isfinite(numbers).all():
        raise LegacyError(
            f"{where}: all_head_accs has {len(numbers)} numbers; expected one for {layers} x {heads} heads"
        )
    return {divmod(index, heads): float(number) for index, number in enumerate(numbers)}


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise LegacyError(f"{path}: not JSON that can be read ({error})") from None


def _short(value: object) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _integer(digits: str) -> int:
    if len(digits) > 18 or abs(int(digits)) > LARGEST_INTEGER:
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


def _pair(key: object, where: str | Path) -> tuple[int, int]:
    """(layer, head) from a tuple or list of two integers, or from a text with two integers."""
    if isinstance(key, str):
        numbers = re.findall(r"\d+", key)
        if len(numbers) == 2 and max(map(len, numbers)) < 10:
            return int(numbers[0]), int(numbers[1])
    elif isinstance(key, (tuple, list)) and len(key) == 2 and all(type(number) is int for number in key):
        return tuple(key)
    raise LegacyError(f"{where}: a key is {_short(key)}; expected (layer, head)")


def _numbers(value: object) -> np.ndarray:
    """[N] float64 from a flat list of numbers or an array. Raises `TypeError` for anything else, before NumPy sees it:
    for lists that share their parts, NumPy would double their number with every level."""
    if isinstance(value, np.ndarray):
        return np.asarray(value, dtype=np.float64).reshape(-1)
    if not isinstance(value, (list, tuple)) or not all(isinstance(number, (int, float)) for number in value):
        raise TypeError(f"is {_short(value)}; expected a flat list of numbers")
    return np.asarray(value, dtype=np.float64)


def _vector(value: object, where: Path) -> tuple[np.ndarray, float | None]:
    """An array alone, or (array, standard deviation), or the same as JSON lists and objects."""
    std = None
    if isinstance(value, dict):
        std = next((value[key] for key in ("std", "sigma") if key in value), None)
        value = value.get("direction", value.get("vector"))
    elif isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], (np.ndarray, list)):
        value, std = value
    try:
        vector = _numbers(value)
        std = None if std is None else float(std)
    except (TypeError, ValueError):
        raise LegacyError(f"{where}: a direction is {type(value).__name__}; expected numbers") from None
    shape = list(np.shape(value)) if isinstance(value, np.ndarray) else [len(vector)]
    if len(shape) != 1 or not np.isfinite(vector).all() or (std is not None and not (math.isfinite(std) and std >= 0)):
        raise LegacyError(
            f"{where}: a direction has shape {shape} and spread {std}; expected finite numbers [head_dim]"
        )
    return vector, std


def _ranks(content: dict, where: Path, ranks: tuple[Path, object] | None, said: list[str]) -> tuple[list, dict, bool]:
    """The heads in the source's order, their scores, and whether that order is a ranking."""
    listed_in, listed = ranks or (f"{where}: top_heads", content.get("top_heads"))
    if listed is None:
        return [], {}, False
    order, scores = [], {}
    for entry in _entries(listed, listed_in):
        if isinstance(entry, dict):
            entry, score = _scored(entry, listed_in, ("auc", "val_acc", "accuracy"))
            scores[entry] = score
        order.append(_pair(entry, listed_in))
    scored_in = f"{where}: top_heads_scores"
    for entry in _entries(content.get("top_heads_scores") or [], scored_in):
        if isinstance(entry, dict):
            pair, score = _scored(entry, scored_in, ("auc", "val_acc"))
            scores[pair] = score
    if len(set(order)) < len(order):
        raise LegacyError(f"{listed_in}: names a head twice")
    by_position = not scores and order == sorted(order) and len(order) > 2
    if by_position:
        said.append("top_heads is sorted by position")
    return order, {k: float(v) for k, v in scores.items() if isinstance(v, (int, float))}, not by_position


def _entries(value: object, where: str | Path) -> Sequence:
    value = value.tolist() if isinstance(value, np.ndarray) and value.ndim else value
    if not isinstance(value, (list, tuple)):
        raise LegacyError(f"{where}: {type(value).__name__}; expected a list of heads")
    return value


def _scored(entry: dict, where: str | Path, names: Sequence[str]) -> tuple[tuple[int, int], object]:
    """(layer, head) and the first score that the entry has."""
    pair = _pair((entry.get("layer"), entry.get("head")), where)
    return pair, next((entry[name] for name in names if name in entry), math.nan)
