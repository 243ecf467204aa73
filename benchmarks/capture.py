"""Capture at a model's real size, with random weights: rows per second and peak memory.

    python benchmarks/capture.py                                       # a small shape, on CPU
    python benchmarks/capture.py --shape llama-3.1-8b --device cuda    # the 8B shape, bfloat16

Texts are random tokens of the lengths of NeoCoder's statements and solutions.
"""

import argparse
import json
import resource
import time

import torch
import transformers
from decode import SHAPES

from iti_llama import ITILlamaConfig, ITILlamaForCausalLM
from iti_llama.toolkit.fit.positions import Row
from iti_llama.toolkit.fit.record_activations import record_batch
from iti_llama.toolkit.foundation.bound_memory import batches_of, tokens_a_batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    dtype = torch.bfloat16 if args.device != "cpu" else torch.float32
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(args.device):
        shape = SHAPES[args.shape] | {"max_position_embeddings": 8192, "iti_directions_file": None}
        model = ITILlamaForCausalLM(ITILlamaConfig(**shape)).eval()
    torch.set_default_dtype(torch.float32)
    lengths = (torch.randn(args.rows).mul(0.5).exp() * 600).clamp(60, 2000).int().tolist()
    if args.device == "cpu":
        lengths = [max(8, length // 8) for length in lengths]
    most = SHAPES[args.shape]["vocab_size"]
    rows = [Row(torch.randint(5, most, (length,)).tolist(), length - 1) for length in lengths]
    batches = batches_of([len(row.ids) for row in rows], args.batch_size, tokens_a_batch(model))
    record_batch(model, [rows[i] for i in batches[0]])
    start = time.perf_counter()
    for batch in batches:
        kept = record_batch(model, [rows[i] for i in batch])
    seconds = time.perf_counter() - start
    if args.device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        peak = torch.cuda.max_memory_allocated()
    print(
        json.dumps(
            {
                "shape": args.shape,
                "device": torch.cuda.get_device_name() if args.device != "cpu" else "cpu",
                "rows": args.rows,
                "tokens": sum(lengths),
                "rows per second": round(args.rows / seconds, 2),
                "tokens per second": round(sum(lengths) / seconds),
                "peak memory, GiB": round(peak / 2**30, 2),
                "kept per row, KiB": round(sum(t[0].numel() * 4 for t in kept.values()) / 1024),
                "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
