"""Peak memory of `export --to llama` at a real size: a sharded checkpoint with the shapes of Llama 3.1 70B (fewer
layers). Its shards are sparse files of zeros, so it takes no disk space until the export writes its copy.

    python benchmarks/export_memory.py [--layers 8] [--out FOLDER]

Prints the size of the checkpoint, of its largest shard, and the peak resident memory of the export's process, and of a
process that imports the same and exports nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig

from iti_llama import ITIDirections, ITILlamaConfig


HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 8192, 28672, 64, 8, 128, 128256
SHARD = 5 << 30


def shapes(layers: int) -> dict[str, list[int]]:
    """Name and shape of every weight."""
    found = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN]}
    for layer in range(layers):
        own = {
            "self_attn.q_proj": [HEADS * HEAD_DIM, HIDDEN],
            "self_attn.k_proj": [KV_HEADS * HEAD_DIM, HIDDEN],
            "self_attn.v_proj": [KV_HEADS * HEAD_DIM, HIDDEN],
            "self_attn.o_proj": [HIDDEN, HEADS * HEAD_DIM],
            "mlp.gate_proj": [INTERMEDIATE, HIDDEN],
            "mlp.up_proj": [INTERMEDIATE, HIDDEN],
            "mlp.down_proj": [HIDDEN, INTERMEDIATE],
            "input_layernorm": [HIDDEN],
            "post_attention_layernorm": [HIDDEN],
        }
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    return found | {"model.norm.weight": [HIDDEN], "lm_head.weight": [VOCABULARY, HIDDEN]}


def write_base(folder: Path, layers: int) -> int:
    """Write a sharded checkpoint of zeros, with holes for its data. Returns the bytes of the largest shard."""
    shards, size = [{}], 0
    for name, shape in shapes(layers).items():
        length = 2 * torch.Size(shape).numel()
        if size + length > SHARD and shards[-1]:
            shards, size = [*shards, {}], 0
        shards[-1][name] = {"dtype": "BF16", "shape": shape, "data_offsets": [size, size + length]}
        size += length
    index, sizes = {}, []
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header = json.dumps(tensors).encode()
        header += b" " * (-len(header) % 8)
        end = max(tensor["data_offsets"][1] for tensor in tensors.values())
        with (folder / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + end)
        sizes.append(end)
        index |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": sum(sizes)}, "weight_map": index})
    )
    fields = {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "vocab_size": VOCABULARY, "head_dim": HEAD_DIM}
    heads = {"num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}
    LlamaConfig(**fields, **heads, dtype="bfloat16", architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    return max(sizes)


def write_repo(folder: Path, base: Path, layers: int) -> None:
    """Write an adapter of 48 heads on the base."""
    heads = [[row % layers, row % HEADS] for row in range(48)]
    directions = ITIDirections(
        heads=torch.tensor(heads),
        directions=torch.nn.functional.normalize(torch.randn(48, HEAD_DIM), dim=-1),
        sigma=torch.ones(48),
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        head_dim=HEAD_DIM,
    )
    directions.save(folder / "iti_directions.safetensors")
    fields = LlamaConfig.from_pretrained(base).to_dict()
    fields = {key: value for key, value in fields.items() if key not in ("model_type", "architectures")}
    ITILlamaConfig(**fields, base_model_name_or_path=str(base)).save_pretrained(folder)


EXPORT = """
import resource, sys
from pathlib import Path
from iti_llama.toolkit.export.llama import export_llama
from iti_llama.toolkit.export.source import open_source
if sys.argv[3] == "export":
    export_llama(open_source(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--out", default=None, help="folder with enough space; by default a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        base, repo, out = (Path(folder, name) for name in ("base", "repo", "out"))
        for path in (base, repo, out):
            path.mkdir()
        largest = write_base(base, args.layers)
        write_repo(repo, base, args.layers)
        total = json.loads((base / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
        peaks = {}
        for what in ("nothing", "export"):
            command = [sys.executable, "-c", EXPORT, str(repo), str(out), what]
            peaks[what] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        gib = {name: value / (1 << 30) for name, value in (("total", total), ("largest", largest), *peaks.items())}
        print(
            f"{args.layers} layers: checkpoint {gib['total']:.1f} GiB, largest shard {gib['largest']:.1f} GiB; peak "
            f"memory {gib['export']:.1f} GiB, of which {gib['nothing']:.1f} GiB are Python, torch and transformers"
        )


if __name__ == "__main__":
    main()
