"""The steering added to a GGUF file that is there, of any quantisation, without torch.

llama.cpp reads `blk.N.attn_output.bias`, where a file has it, and adds it after the output projection (its
`src/models/llama.cpp`).
"""

import math
import os
from pathlib import Path

import numpy as np

from iti_llama.iti_directions import ITIDirections

from ..foundation.open_gguf import ARCHITECTURE, open_gguf
from ..repo.open_repo import open_repo


class ExportError(ValueError):
    """What cannot be exported so, and what to do instead."""


def bias_name(layer: int) -> str:
    return f"blk.{layer}.attn_output.bias"


def patch_gguf(
    repo: str | os.PathLike,
    into: Path,
    out: Path,
    alpha: float | None = None,
    top_k: int | None = None,
    scope: str | None = None,
    file: str | None = None,
) -> None:
    """Add the steering to a GGUF of the base, of any quantisation: `blk.N.attn_output.bias`, computed from that file's
    own output projections, dequantised. Everything else is copied byte for byte. Needs no torch. `file` is the one
    directions file to add, of a repo that has several.

    Raises:
        ExportError: if the file is of another architecture or geometry, or the scope is "generated".
        FileNotFoundError, ValueError: if repo or file cannot be read; FileExistsError: if `out` is there.
    """
    import gguf

    opened = open_repo(repo)
    fields = opened.config()
    scope = scope or fields.get("iti_scope", "all")
    if scope != "all":
        raise ExportError(
            f"{repo}: iti_scope is 'generated', but a bias acts on every position, of the prompt too; pass --scope "
            "all to say that this is wanted"
        )
    strength = float(fields.get("iti_alpha", 1.0) if alpha is None else alpha)
    if not math.isfinite(strength):
        raise ValueError(f"iti_alpha is {strength}; expected a finite number")
    name = file or fields.get("iti_directions_file") or "iti_directions.safetensors"
    directions = ITIDirections.load(opened.get(name), framework="np")
    others = [entry for entry in (fields.get("iti_behaviours") or {}).values() if entry.get("alpha") and file is None]
    for found, what in ((others, "several behaviours"), (directions.gate, "a gate")):
        if found:
            raise ExportError(f"{repo}: has {what}, which a patched file cannot hold; expected one, without gate")
    k = top_k if top_k is not None else fields.get("iti_top_k")
    rows = len(directions) if k is None else k
    if not 1 <= rows <= len(directions):
        raise ExportError(f"iti_top_k is {rows}, but the directions hold {len(directions)} heads")
    reader = open_gguf(into)
    _check_geometry(reader, directions, into)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    biases: dict[int, np.ndarray] = {}
    for row in range(rows):
        layer, head = (int(x) for x in directions.heads[row])
        offset = float(directions.scales[row]) * directions.directions[row].astype(np.float64)
        columns = slice(head * directions.head_dim, (head + 1) * directions.head_dim)
        if directions.site == "head":
            found = tensors.get(projection := f"blk.{layer}.attn_output.weight")
            if found is None:
                raise ExportError(f"{into}: has no {projection}; expected a whole Llama")
            weight = gguf.quants.dequantize(found.data, found.tensor_type)
            shift = weight[:, columns].astype(np.float64) @ offset
        else:
            shift = np.zeros(directions.num_attention_heads * directions.head_dim)
            shift[columns] = offset
        biases[layer] = biases.get(layer, 0) + strength * shift
    for layer in biases:
        if bias_name(layer) in tensors:  # a base with biases of its own
            own = tensors[bias_name(layer)]
            biases[layer] = biases[layer] + gguf.quants.dequantize(own.data, own.tensor_type)
    new = {bias_name(layer): bias.astype(np.float32) for layer, bias in sorted(biases.items())}
    with writing(out) as (part, _):
        writer = gguf.GGUFWriter(part, ARCHITECTURE, endianess=reader.endianess)
        if gguf.Keys.General.ALIGNMENT in reader.fields:
            writer.data_alignment = reader.fields[gguf.Keys.General.ALIGNMENT].contents()
        for field in reader.fields.values():
            if field.name.startswith("GGUF.") or field.name == gguf.Keys.General.ARCHITECTURE:
                continue
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
        for tensor in reader.tensors:
            if tensor.name not in new:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        for tensor_name, bias in new.items():
            writer.add_tensor(tensor_name, bias)
        finish(writer)


def _check_geometry(reader, directions: ITIDirections, into: Path) -> None:
    def field(name: str, default=None):
        found = reader.fields.get(f"{ARCHITECTURE}.{name}")
        return default if found is None else found.contents()

    heads, hidden = field("attention.head_count"), field("embedding_length")
    found = {
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": heads,
        "head_dim": field("attention.key_length", hidden // heads if heads else None),
    }
    for name, value in found.items():
        if value != getattr(directions, name):
            raise ExportError(
                f"{into}: {name} is {value}, but the directions were made for {getattr(directions, name)}; expected a "
                f"GGUF of {directions.base_model or 'their base'}"
            )


class writing:
    """`with writing(out) as (part, said)`: a file beside `out` that becomes it when the block ends well."""

    def __init__(self, out: Path):
        if out.exists():
            raise FileExistsError(f"{out}: is there already; choose another --out")
        self.out, self.part = out, out.with_name(f".{out.name}.part")

    def __enter__(self) -> tuple[Path, list[str]]:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        return self.part, []

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            os.replace(self.part, self.out)
        else:
            self.part.unlink(missing_ok=True)


def finish(writer) -> None:
    """Write all that was added, and close."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
