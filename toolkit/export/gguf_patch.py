"""Add the steering to an existing GGUF file, of any quantisation, without torch.

llama.cpp reads `blk.N.attn_output.bias` if the file has it, and adds it after the output projection (its
`src/models/llama.cpp`).
"""

import os
from pathlib import Path

import numpy as np

from iti_llama.iti_directions import ITIDirections

from ..foundation.open_gguf import ARCHITECTURE, open_gguf
from ..repo.steered_repo import SteeredRepo
from .select_behaviours import ExportError, mix_shifts, select_behaviours


def bias_name(layer: int) -> str:
    return f"blk.{layer}.attn_output.bias"


def patch_gguf(
    repo: str | os.PathLike,
    into: Path,
    out: Path,
    alpha: float | None = None,
    top_k: int | None = None,
    scope: str | None = None,
    name: str | None = None,
) -> None:
    """Add the steering to a GGUF of the base, of any quantisation: the mix of several behaviours, or `name` alone. It
    becomes `blk.N.attn_output.bias`, computed from the dequantised output projections of that file. Everything else is
    copied byte for byte. This needs no torch.

    Raises:
        ExportError: if the file has another architecture or geometry; else as `select_behaviours` does.
        FileNotFoundError, ValueError: if repo or file cannot be read; FileExistsError: if `out` exists.
    """
    import gguf

    steered = SteeredRepo.open(repo)
    behaviours = select_behaviours(steered, alpha, top_k, scope, name)
    reader = open_gguf(into)
    _check_geometry(reader, steered.default_directions, into)
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def weight_of(layer: int) -> np.ndarray:
        projection = f"blk.{layer}.attn_output.weight"
        if projection not in tensors:
            raise ExportError(f"{into}: has no {projection}; expected a whole Llama")
        return gguf.quants.dequantize(tensors[projection].data, tensors[projection].tensor_type)

    shifts = mix_shifts(steered, behaviours, weight_of)
    biases = {layer: behaviours[0].alpha * shift for layer, shift in shifts.items()}
    for layer in biases:
        if bias_name(layer) in tensors:  # the base has biases already
            held = tensors[bias_name(layer)]
            biases[layer] = biases[layer] + gguf.quants.dequantize(held.data, held.tensor_type)
    with np.errstate(over="ignore"):  # an overflow is refused below
        new = {bias_name(layer): bias.astype(np.float32) for layer, bias in sorted(biases.items())}
    for tensor_name, bias in new.items():
        if not np.isfinite(bias).all():
            raise ExportError(
                f"{into}: {tensor_name} would hold NaN or infinity; expected finite output projections, and an alpha "
                f"of a usual size, not {behaviours[0].alpha:g}"
            )
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
    def field(name: str) -> int | None:
        entry = reader.fields.get(f"{ARCHITECTURE}.{name}")
        value = None if entry is None else entry.contents()
        if value is not None and not isinstance(value, int):
            raise ExportError(f"{into}: {ARCHITECTURE}.{name} is {str(value)[:40]!r}; expected one number")
        return value

    heads, head_dim = field("attention.head_count"), field("attention.key_length")
    if head_dim is None:
        hidden = field("embedding_length")
        if hidden is None:
            raise ExportError(f"{into}: has no {ARCHITECTURE}.embedding_length; expected a whole Llama")
        head_dim = hidden // heads if heads else None
    geometry = {"num_hidden_layers": field("block_count"), "num_attention_heads": heads, "head_dim": head_dim}
    for name, value in geometry.items():
        if value != getattr(directions, name):
            raise ExportError(
                f"{into}: {name} is {value}, but the directions were made for {getattr(directions, name)}; expected a "
                f"GGUF of {directions.base_model or 'their base'}"
            )


class writing:
    """`with writing(out) as (part, notes)`: a file beside `out` that becomes `out` if the block ends without error."""

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
    """Write everything that was added, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
