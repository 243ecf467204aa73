"""Turn files of older ITI code, or a baked checkpoint, into a steered repo that does the same."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import PretrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from iti_llama import ITIDirections, ITILlamaConfig, ITILlamaForCausalLM
from iti_llama.configuration_iti_llama import pinned
from iti_llama.iti_directions import check_alpha

from ..foundation.files import folder_of
from ..foundation.package import __version__
from ..repo.card import write_card
from ..repo.folder import check_out, check_plain, copy_tokenizer, new_folder
from ..repo.open_repo import read_object
from .legacy_files import CONFIG, PICKLES, RANKS, Legacy, read_legacy
from .unpickle import LegacyError


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion. said: what it read and decided, in words, one line each."""

    directions: ITIDirections
    alpha: float
    scope: str
    top_k: int | None
    said: tuple[str, ...]


def geometry(base: str | os.PathLike, revision: str | None = None) -> dict[str, int]:
    """num_hidden_layers, num_attention_heads, head_dim, hidden_size of a base model.

    Raises:
        FileNotFoundError: for a path that is not a folder.
        ValueError: if it is not a Llama.
    """
    folder_of(base, "base ")
    fields, _ = PretrainedConfig.get_config_dict(base, **({"revision": revision} if revision else {}))
    if fields.get("model_type") != "llama":
        raise ValueError(f"base {base}: config.json has model_type {fields.get('model_type')!r}; expected 'llama'")
    heads = fields["num_attention_heads"]
    head_dim = fields.get("head_dim") or fields["hidden_size"] // heads
    return {
        "num_hidden_layers": fields["num_hidden_layers"],
        "num_attention_heads": heads,
        "head_dim": head_dim,
        "hidden_size": fields["hidden_size"],
    }


def locate(source: str, revision: str | None = None) -> Path:
    """The folder or file of a source. From a Hub repo, only the files that a conversion reads are downloaded. Raises
    as `folder_of` does."""
    if os.path.exists(source):
        return Path(source)
    folder_of(source, "source ")
    patterns = [CONFIG, *PICKLES, *RANKS, "*.pkl", "config.json", "*.safetensors", SAFE_WEIGHTS_INDEX_NAME]
    return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))


def convert_legacy(
    legacy: Legacy,
    shape: dict[str, int],
    base_name: str,
    site: str | None = None,
    alpha: float | None = None,
    scope: str | None = None,
) -> Conversion:
    """Directions that add what the source's own code adds.

    Vectors without a standard deviation are slices of the attention output, after the output projection, added as they
    are (site "residual", sigma 1); vectors with one are heads, before it (site "head"). Both edit the last position of
    every forward pass, which is scope "generated". The length of a vector goes into sigma, so that alpha * sigma *
    theta stays what it was.

    Raises:
        LegacyError: if the source does not fit the base, mixes both kinds, or has no alpha and none is given.
    """
    said = list(legacy.said)
    for name, found in (("num_hidden_layers", legacy.num_layers), ("num_attention_heads", legacy.num_heads)):
        if found is not None and found != shape[name]:
            raise LegacyError(f"the source is for a model with {name}={found}, but the base has {shape[name]}")
    with_std = {std is not None for _, std in legacy.vectors.values()}
    if len(with_std) > 1:
        raise LegacyError("some directions have a standard deviation and some have none; expected one kind")
    found_site = "head" if with_std.pop() else "residual"
    if site is None:
        site = found_site
        why = {
            "residual": "vectors without a standard deviation: slices of the attention output, as that code added "
            "them",
            "head": "vectors with a standard deviation: outputs of heads, before the output projection",
        }
        said.append(f"site {site}: {why[site]} (--site overrides)")
    else:
        said.append(f"site {site}: as asked" + ("" if site == found_site else f"; the files look like {found_site}"))
    if alpha is None:
        alpha = legacy.alpha
        if alpha is None:
            raise LegacyError(
                "the source does not say its alpha; pass --alpha (its authors' figure, if they gave one)"
            )
        said.append(f"alpha {alpha:g}: from the source")
    else:
        said.append(f"alpha {alpha:g}: as asked")
    scope = scope or "generated"
    said.append(
        f"scope {scope}: "
        + ("that code edits the last position of every pass" if scope == "generated" else "as asked")
    )
    heads, directions, sigma, scores = [], [], [], []
    for (layer, head), (vector, std) in legacy.vectors.items():
        if len(vector) != shape["head_dim"]:
            raise LegacyError(
                f"layer {layer}, head {head}: a direction of {len(vector)} numbers, but the base has head_dim "
                f"{shape['head_dim']}"
            )
        length = float(np.linalg.norm(vector))
        if length == 0:
            said.append(f"layer {layer}, head {head}: a direction of zeros, which does nothing: left out")
            continue
        heads.append((layer, head))
        directions.append(vector / length)
        sigma.append(length * (1.0 if std is None or (site == "residual" and found_site == "residual") else std))
        scores.append(legacy.scores.get((layer, head), float("nan")))
    if not heads:
        raise LegacyError("every direction is zero")
    top_k = legacy.heads_used if legacy.heads_used is not None and legacy.heads_used < len(heads) else None
    if top_k is not None:
        said.append(f"top_k {top_k}: the source uses so many of its {len(heads)} heads")
    result = ITIDirections(
        heads=torch.tensor(heads),
        directions=torch.from_numpy(np.stack(directions)).float(),
        sigma=torch.tensor(sigma, dtype=torch.float32),
        scores=torch.tensor(scores, dtype=torch.float32) if np.isfinite(scores).all() else None,
        num_hidden_layers=shape["num_hidden_layers"],
        num_attention_heads=shape["num_attention_heads"],
        head_dim=shape["head_dim"],
        site=site,
        base_model=base_name,
        provenance={
            "converted_from": "older ITI files",
            "ranked": "yes" if legacy.ranked else "no",
            "tool": f"iti-llama {__version__}",
        },
    )
    checked = ITILlamaConfig(iti_alpha=alpha, iti_scope=scope)
    return Conversion(result, checked.iti_alpha, checked.iti_scope, top_k, tuple(said))


def is_baked(folder: Path) -> bool:
    """Whether a folder is a checkpoint in safetensors, and not a folder of directions."""
    weights = any((folder / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME))
    known = any((folder / name).is_file() for name in (CONFIG, *PICKLES))
    return folder.is_dir() and weights and not known and (folder / "config.json").is_file()


def _tensors(repo: str | os.PathLike, wanted: str, revision: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors checkpoint whose names end with `wanted`, one file after the other."""
    hub = {"revision": revision} if revision else {}
    quiet = {"_raise_exceptions_for_missing_entries": False}
    names, found = [SAFE_WEIGHTS_NAME], {}
    if cached_file(repo, SAFE_WEIGHTS_NAME, **quiet, **hub) is None:
        index = cached_file(repo, SAFE_WEIGHTS_INDEX_NAME, **quiet, **hub)
        weight_map = {} if index is None else read_object(Path(index)).get("weight_map", {})
        names = sorted({check_plain(file, index) for tensor, file in weight_map.items() if tensor.endswith(wanted)})
        names = names or [SAFE_WEIGHTS_NAME]
    for name in names:
        path = cached_file(repo, name, **quiet, **hub)
        if path is None:
            raise LegacyError(f"{repo}: no {name}; baked checkpoints are read from safetensors alone")
        with safe_open(path, framework="pt") as file:
            for tensor in file.keys():  # noqa: SIM118 (no iterator there)
                if tensor.endswith(wanted):
                    found[tensor] = file.get_tensor(tensor)
    return found


def _equal_as_saved(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two weights are the same, except for rounding to the coarser of their dtypes, in which one was saved."""
    if not (a.is_floating_point() and b.is_floating_point()):
        return a.dtype == b.dtype and torch.equal(a, b)
    coarser = max((a.dtype, b.dtype), key=lambda dtype: torch.finfo(dtype).eps)
    return torch.equal(a.to(coarser).float(), b.to(coarser).float())


def convert_baked(
    source: str | os.PathLike,
    base: str | os.PathLike,
    shape: dict[str, int],
    base_name: str,
    revision: str | None = None,
) -> Conversion:
    """The o_proj biases of a checkpoint as directions of site "residual", one slice per head, exact at alpha 1.

    Raises:
        LegacyError: if it has no such biases, has others, or its output projections are not the base's.
    """
    biases = _tensors(source, "self_attn.o_proj.bias")
    if not biases:
        raise LegacyError(f"{source}: no o_proj biases, so nothing is baked into this checkpoint")
    for part in ("q_proj", "k_proj", "v_proj"):
        for name, bias in _tensors(source, f"self_attn.{part}.bias").items():
            if bool(bias.any()):
                raise LegacyError(f"{source}: {name} is not zero; only o_proj biases can become directions")
    theirs = _tensors(source, "self_attn.o_proj.weight")
    of_base = _tensors(base, "self_attn.o_proj.weight", revision)
    if not of_base:
        raise LegacyError(f"{base}: no self_attn.o_proj.weight; expected a Llama in safetensors, to compare with")
    if any(bool(bias.any()) for bias in _tensors(base, "self_attn.o_proj.bias", revision).values()):
        raise LegacyError(f"{base}: has o_proj biases of its own, to which the steering would be added; expected none")
    for name, weight in of_base.items():
        if name not in theirs or not _equal_as_saved(theirs[name], weight):
            raise LegacyError(
                f"{source}: {name} is not that of {base}; this is not its base, or it was trained as well"
            )
    heads, directions, sigma = [], [], []
    dim = shape["head_dim"]
    for name, bias in sorted(biases.items(), key=lambda item: int(item[0].split(".layers.")[1].split(".")[0])):
        layer = int(name.split(".layers.")[1].split(".")[0])
        if len(bias) != shape["num_attention_heads"] * dim:
            raise LegacyError(
                f"{source}: {name} has {len(bias)} numbers; expected heads x head_dim = "
                f"{shape['num_attention_heads'] * dim}"
            )
        for head, part in enumerate(bias.double().view(-1, dim)):
            if bool(part.any()):
                heads.append((layer, head))
                directions.append(part / part.norm())
                sigma.append(part.norm())
    if not heads:
        raise LegacyError(f"{source}: every o_proj bias is zero, so nothing is baked into this checkpoint")
    result = ITIDirections(
        heads=torch.tensor(heads),
        directions=torch.stack(directions).float(),
        sigma=torch.stack(sigma).float(),
        num_hidden_layers=shape["num_hidden_layers"],
        num_attention_heads=shape["num_attention_heads"],
        head_dim=dim,
        site="residual",
        base_model=base_name,
        provenance={
            "converted_from": "o_proj biases of a baked checkpoint",
            "ranked": "no",
            "tool": f"iti-llama {__version__}",
        },
    )
    layers = len({layer for layer, _ in heads})
    said = (
        f"baked checkpoint: {layers} layers with an o_proj bias; its output projections are the base's",
        "site residual: a bias acts after the output projection; alpha 1 is the bias itself",
        "scope all: a bias acts at every position",
        "a bias does not rank heads: they are kept by position, so iti_top_k means nothing here",
    )
    return Conversion(result, 1.0, "all", None, said)


def convert(
    source: str,
    base: str,
    out: str | os.PathLike,
    site: str | None = None,
    alpha: float | None = None,
    scope: str | None = None,
    revision: str | None = None,
    base_revision: str | None = None,
    overwrite: bool = False,
    dtype: str = "auto",
    device_map: str = "cpu",
    about: dict[str, str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Conversion:
    """Write a steered repo, in adapter form on `base`, from a folder, file or Hub repo of older code or a baked
    checkpoint. about: further facts for the card, see `fit_repo`. progress: called with "step I of 3" as each step is
    done: read, base loaded, written.

    Raises:
        FileNotFoundError: if source or base is a path that does not exist.
        LegacyError: if the source cannot be read, is refused, or does not fit the base. Nothing is written then.
    """
    if site not in (None, "head", "residual"):
        raise ValueError(f"site is {site!r}; expected head or residual")
    check_out(out, overwrite)
    is_dir = os.path.isdir(base)
    name = Path(base).resolve().name if is_dir else base
    folder_of(base, "base ")
    hub = pinned(base, {"revision": base_revision} if base_revision else {})  # all that is read of it is of one commit
    shape, where = geometry(base, hub.get("revision")), locate(source, revision)
    if is_baked(where):
        found = convert_baked(where, base, shape, name, hub.get("revision"))
        if alpha is not None:
            found = Conversion(
                found.directions, check_alpha(alpha), found.scope, None, (*found.said, f"alpha {alpha:g}: as asked")
            )
    else:
        if where.is_dir() and (where / "intervenable_config.json").is_file():
            raise LegacyError(f"{source}: pyvene's interventions are stored as torch pickles, which are not read")
        found = convert_legacy(read_legacy(where), shape, name, site, alpha, scope)
    progress("step 1 of 3")
    if about:
        directions = replace(found.directions, provenance=found.directions.provenance | about)
        found = replace(found, directions=directions)
    model = ITILlamaForCausalLM.from_base(
        base,
        found.directions,
        alpha=found.alpha,
        top_k=found.top_k,
        scope=found.scope,
        dtype=dtype,
        device_map=device_map,
        **hub,
    )
    model.config.base_model_revision = base_revision
    progress("step 2 of 3")
    with new_folder(out, overwrite) as folder:
        model.save_pretrained(folder)
        copy_tokenizer(base, folder, **hub)
        write_card(folder, None if is_dir else base, source, found.said)
    progress("step 3 of 3")
    return found
