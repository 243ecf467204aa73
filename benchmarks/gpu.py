"""Everything that needs a GPU, in one command: `make gpu`, which writes docs/gpu.md.

    python benchmarks/gpu.py                                          # all parts, the shape of Llama 3.1 8B, bfloat16
    python benchmarks/gpu.py --parts decoding,speed                   # some of them
    python benchmarks/gpu.py --device cpu --shape tiny --out gpu.md    # the command itself, without a card

Weights are random, since the cost does not depend on them. Each part runs in a separate process, and failures are
quoted.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers


HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BARS = {"decode": 0.99, "prefill": 0.99, "load": 1.05}
"""The lowest throughput of decode and prefill, as a share of plain Llama's, and the highest load time."""


def script(name: str, *arguments: object) -> dict:
    """The JSON that another benchmark prints."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(map(str, arguments))}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout[done.stdout.index("{") :])


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def demo(args) -> str:
    """The bundled model's prompts, answered on the device."""
    command = [sys.executable, "-m", "iti_llama.toolkit.cli", "demo", "--n", "10", "--json"]
    done = subprocess.run([*command, "--device-map", args.device], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    counts = {name: sum(row[name]["correct"] for row in rows) for name in ("plain", "steered")}
    idiomatic = {name: sum(row[name]["style"] == "idiomatic" for row in rows) for name in ("plain", "steered")}
    rows = [[name, f"{counts[name]} of {len(rows)}", f"{idiomatic[name]} of {len(rows)}"] for name in counts]
    return table(["bundled model", "correct", "idiomatic"], rows)


def decoding(args) -> str:
    """Eight ways of decoding at both scopes, token for token, against forward hooks on plain Llama."""
    found = script("gpu_decoding.py", "--device", args.device)
    said = {"right": "same tokens", "wrong": "OTHER TOKENS"}
    rows = [[way, *(said.get(found[scope][way], found[scope][way]) for scope in found)] for way in found["all"]]
    return table(["way of decoding", *(f"scope {scope}" for scope in found)], rows)


def speed(args) -> str:
    """Prefill and decode against plain Llama, eager and compiled over a static cache, and loading."""
    rows, shape = [], ["--shape", args.shape, "--device", args.device, "--json", "--no-counts"]
    rounds = ["--rounds", args.rounds, "--batch", *args.batch, "--prompt", args.prompt]
    for attention in args.attention:
        for compiled in ([], ["--compile"]) if args.compiled else ([],):
            load = [] if compiled or attention != args.attention[0] else ["--load"]
            how = f"{attention}, {'compiled' if compiled else 'eager'}"
            try:
                result = script("decode.py", *shape, *rounds, "--attention", attention, *compiled, *load)
            except RuntimeError as error:
                rows.append([how, f"failed: {error}", "", "", ""])
                continue
            for name, ratio in result["ratios"].items():
                batch, phase, model = name.split(", ")
                if model != "plain again":
                    noise = result["ratios"][f"{batch}, {phase}, plain again"]
                    bar = "" if model != "steered" else ("yes" if ratio["median"] >= BARS[phase] else "NO")
                    rows.append([f"{how}, {batch}, {phase}, {model}", *map(_spread, (ratio, noise)), bar])
            if load:
                for shape, ratio in result["load_time"].items():
                    bar = "yes" if ratio["median"] <= BARS["load"] else "NO"
                    rows.append([f"load time, {shape} (less is better)", _spread(ratio), "", bar])
    return table(["against plain Llama", "ratio (middle half)", "plain again", "inside the bar"], rows)


def _spread(ratio: dict) -> str:
    return f"{ratio['median']:.3f} ({ratio['from']:.3f} to {ratio['to']:.3f})"


def capture(args) -> str:
    """Recording activations: rows a second, memory."""
    found = script("capture.py", "--shape", args.shape, "--device", args.device, "--rows", args.rows)
    return table(list(found), [list(found.values())])


def probes(args) -> str:
    """Fitting a probe for each of 1,024 heads, against a loop over scikit-learn."""
    small = ["--heads", 32, "--rows", 400, "--sample", 4] if args.shape == "tiny" else []
    found = script("probes.py", "--device", args.device, "--rounds", 2, *small)
    return table(["", ""], [[name, value] for name, value in found.items()])


def sweep(args) -> str:
    """Eight strengths as rows of one batch, against one after another."""
    tasks = 2 if args.shape == "tiny" else 32
    found = script("sweep.py", "--device", args.device, "--tasks", tasks, "--rounds", 2 if args.shape == "tiny" else 5)
    return table(["", ""], [[name, value] for name, value in found.items()])


def forms(args) -> str:
    """Merging, and exporting as a plain Llama: seconds, and how far the logits are from the steered model's."""
    sys.path.insert(0, str(HERE))
    from decode import SHAPES, build
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from iti_llama.toolkit.export.export import export

    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    _, steered, _ = build(SHAPES[args.shape], 48, args.device, dtype)
    steered.iti_alpha = 1.0
    ids = torch.randint(5, 100, (2, 64), device=args.device)
    rows = []
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        own = steered(ids).logits.float()
        plain = steered(ids, iti_alpha=0.0).logits.float()
        scale = (own - plain).abs().max().item()
        started = time.perf_counter()
        merged = steered.merge_and_unload()
        seconds = time.perf_counter() - started
        rows.append(["merge_and_unload", f"{seconds:.1f}", _apart(merged(ids).logits, own, scale)])
        del merged
        steered.save_pretrained(f"{folder}/steered")
        AutoTokenizer.from_pretrained(ROOT).save_pretrained(f"{folder}/steered")
        del steered
        started = time.perf_counter()
        export(f"{folder}/steered", "llama", Path(folder) / "llama", device_map=args.device, prompts=())
        seconds = time.perf_counter() - started
        exported = AutoModelForCausalLM.from_pretrained(f"{folder}/llama", dtype=dtype, device_map=args.device)
        rows.append(["iti-llama export --to llama", f"{seconds:.1f}", _apart(exported(ids).logits, own, scale)])
    return table(["form", "seconds", "largest difference of a logit, as a share of what the steering changes"], rows)


def _apart(logits: torch.Tensor, own: torch.Tensor, scale: float) -> str:
    return f"{(logits.float() - own).abs().max().item() / scale:.2g}"


PARTS = {part.__name__: part for part in (demo, decoding, speed, capture, probes, sweep, forms)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, separated by commas")
    parser.add_argument("--shape", default="llama-3.1-8b", choices=["tiny", "small", "llama-3.1-8b"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--rows", type=int, default=256, help="rows of the capture")
    parser.add_argument("--attention", nargs="+", default=["sdpa", "flash_attention_2"])
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gpu.md")
    args = parser.parse_args()
    unknown = set(args.parts.split(",")) - PARTS.keys()
    if unknown:
        parser.error(f"--parts names {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} finds no CUDA device; --device cpu --shape tiny tries the command")
    card = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.processor() or 'a CPU'}, no card"
    said = f"{datetime.date.today()}, {card}, torch {torch.__version__}, transformers {transformers.__version__}"
    written = [f"# On a card\n\n`make gpu` wrote this: {said}, shape {args.shape}, random weights."]
    failed = []
    for name in args.parts.split(","):
        started = time.perf_counter()
        try:
            found = PARTS[name](args)
        except Exception as error:  # the other parts are still worth running
            found = f"**failed**: {type(error).__name__}: {error}"
            failed.append(name)
        if "failed: " in found:  # in one of its rows
            failed.append(name)
        seconds = time.perf_counter() - started
        written.append(f"## {name}\n\n{PARTS[name].__doc__}\n\n{found}\n\n{seconds:.0f} seconds.")
        print(written[-1], flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n\n".join(written) + "\n")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see {args.out}")


if __name__ == "__main__":
    main()
