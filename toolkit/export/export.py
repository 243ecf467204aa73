"""Write a steered repo in another form, whole or not at all, with its canary."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from iti_llama import ITILlamaForCausalLM
from iti_llama.iti_directions import SCOPES, file_sha256

from ..foundation.files import write_text
from ..foundation.open_gguf import open_gguf
from ..foundation.package import __version__
from ..repo.folder import new_folder
from .adapters import export_peft, export_vllm
from .canary import Canary, make_canary
from .export_card import export_card
from .gguf_file import export_gguf
from .gguf_patch import patch_gguf
from .llama import export_llama
from .say_steering import public_name
from .select_behaviours import ExportError
from .source import Source, o_proj, open_source
from .vllm_plugin import EXPORT


FORMATS = ("llama", "gguf", "peft", "vllm")

ADAPTERS = ("peft", "vllm")
"""The formats that need the base beside them."""


def export(
    repo: str | os.PathLike,
    to: str,
    out: Path,
    *,
    alpha: float | None = None,
    top_k: int | None = None,
    scope: str | None = None,
    name: str | None = None,
    into: Path | None = None,
    quantisation: str = "f32",
    prompts: Sequence[str] = (),
    revision: str | None = None,
    device_map: str = "auto",
    dtype: str = "auto",
    with_canary: bool = True,
    base_name: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[Canary | None, list[str]]:
    """Write a form into the new folder `out`, and its canary, which is made with the steered model itself. Several
    behaviours are exported as their mix, or `name` alone. Returns the canary (None at alpha 0, or without one) and
    notes for the user. base_name: the base's name on the Hub if the base was a folder; adapters name it.

    Raises:
        ExportError: if the repo cannot be exported like that. FileExistsError: if `out` is not empty.
    """
    out = Path(out)
    if out.suffix == ".gguf":
        raise ExportError(f"--out is {out}; expected a folder, since the canary lies beside the GGUF")
    if to not in FORMATS:
        raise ExportError(f"--to is {to!r}; expected one of {', '.join(FORMATS)}")
    if into is not None and to != "gguf":
        raise ExportError(f"--into is for --to gguf, not {to}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: is not empty; choose another --out")
    scopes = SCOPES if to == "vllm" else ("all",)
    source, notes = open_source(repo, alpha, top_k, scope, revision, name, base_name, scopes), []
    with new_folder(out) as folder:
        progress(f"writing {to}")
        if into is not None:
            check_base_of(source, into)
            patched = folder / f"{into.stem}-{source.kind}.gguf"
            patch_gguf(source.folder, into, patched, alpha, top_k, scope, name)
        elif to == "gguf":
            base = source.base_name.split("/")[-1]
            notes += export_gguf(source, folder / f"{base}-{source.kind}-{quantisation}.gguf", quantisation, progress)
        elif to == "llama":
            export_llama(source, folder, progress)
        else:
            {"peft": export_peft, "vllm": export_vllm}[to](source, folder)
        if to in ADAPTERS and source.steered.weights_from is None:
            notes.append(
                f"the base is inside {source.repo}: `iti-llama export {source.repo} --alpha 0 --out BASE` writes it "
                "as a plain checkpoint, which the adapter needs"
            )
        if to in ADAPTERS and source.hub_base is None:
            notes.append(
                f"the base was the folder {source.base_name}, so the adapter names none: load it onto that base, or "
                "pass --base-name with its name on the Hub"
            )
        write_text(folder / EXPORT, json.dumps(_record(source, to), indent=1) + "\n")
        canary = None
        if source.alpha == 0:
            notes.append("alpha is 0: this is the plain base, so it has no canary")
        elif not with_canary:
            notes.append("no canary was made, so nothing here tells a steered engine from a plain one")
        else:
            progress("making the canary")
            canary = canary_of(source, prompts, device_map, dtype)
            canary.write(folder)
        write_text(folder / "README.md", export_card(source, to, canary, notes))
    return canary, notes


def check_base_of(source: Source, into: Path, most: float = 0.5) -> None:
    """Raises `ExportError` if a GGUF file holds another base: if the output projection of a steered layer,
    dequantised, is further from the base's than `most` times its size. Two bases are about 140% apart. Otherwise it
    raises as `open_gguf` does."""
    import gguf

    reader = open_gguf(into)
    layer = int(source.steered.default_directions.heads[0, 0])
    name, weight = f"blk.{layer}.attn_output.weight", source.tensor(o_proj(layer)).float().numpy()
    tensor = next((tensor for tensor in reader.tensors if tensor.name == name), None)
    if tensor is None:
        return  # `patch_gguf` names what is missing
    theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    apart = 1.0 if theirs.shape != weight.shape else np.linalg.norm(theirs - weight) / np.linalg.norm(weight)
    if not apart <= most:  # NaN is not near
        raise ExportError(
            f"{into}: {name} is {apart:.0%} of its size away from that of {source.base_name}; expected a GGUF of that"
        )


def _record(source: Source, to: str) -> dict:
    """The content of `iti_export.json`: what was exported, and the strengths that were measured for it."""
    allowed = source.steered.strengths_allowed(source.behaviours[0], source.scope)
    record = {
        "form": to,
        "alpha": source.alpha,
        "heads": source.heads,
        "scope": source.scope,
        "range": [allowed.low, allowed.high],
        "measured": allowed.measured,
        "repo": public_name(source.repo),
        "commit": source.commit,
        "tool": f"iti-llama {__version__}",
    }
    if to == "vllm":
        record["behaviours"] = [
            {"file": behaviour.file, "sha256": file_sha256(source.steered.opened.get(behaviour.file)),
             "top_k": behaviour.top_k, "share": share}
            for behaviour, share in source.shares
        ]  # fmt: skip
    return record


def canary_of(source: Source, prompts: Sequence[str] = (), device_map: str = "auto", dtype: str = "auto") -> Canary:
    """The canary of an export, made with the steered model, which is loaded as a user loads it."""
    from transformers import AutoTokenizer

    known = [shown for _, shown in source.steered.prompts[:20]]
    config = source.config()
    if source.steered.weights_from is not None:  # the files that are exported, even if the Hub has others by now
        config.base_model_name_or_path, config.base_model_revision = str(source.base.resolve()), None
    settings = {"config": config, "device_map": device_map, "dtype": dtype}
    model = ITILlamaForCausalLM.from_pretrained(source.folder, **settings).eval()
    place = source.folder if (source.folder / "tokenizer_config.json").is_file() else source.base
    return make_canary(model, AutoTokenizer.from_pretrained(place, trust_remote_code=False), prompts or known)
