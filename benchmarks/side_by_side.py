"""This model beside other ways to steer a Llama: same weights, offsets and prompts. `make bench`

    python benchmarks/side_by_side.py --markdown docs/benchmarks.md --figure figures/benchmarks.png

Every way runs in a process of its own, interleaved with plain Llama (peers.py); a peer in an environment of its own,
made here with pinned versions. One that cannot be installed or fails is quoted. Then how cost grows with layers,
heads, batch and context, by decode.py's interleaved rounds.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from decode import SHAPES, build, load_times, run
from gpu_decoding import references
from peers import ways
from transformers import AutoTokenizer

from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.card import replace_section


HERE = Path(__file__).resolve().parent
OURS = ("plain again", "iti-llama", "baked", "peft", "hooks")
PEERS = {
    "pyvene": ["pyvene==0.1.8"],
    "steering-vectors": ["--no-deps", "steering-vectors==0.12.2"],
    "repeng": ["repeng==0.4.0"],
}
"""Each with what pip is asked for."""

BESIDE = {
    "plain again": "a second plain Llama: the noise",
    "iti-llama": "this model",
    "baked": "`iti-llama export --to llama`: no strength at run time",
    "peft": "`iti-llama export --to peft`",
    "hooks": "a pre-hook on each o_proj, by hand",
}
TORCH = f"torch=={torch.__version__.split('+')[0]}"


def prepare(folder: Path, shape: str, heads: int, new: int) -> int:
    """Write what peers.py reads; returns the number of steered layers."""
    plain, steered, directions = build(SHAPES[shape], heads, "cpu", torch.float32)
    with torch.no_grad():
        for weight in plain.parameters():  # shared with the steered model; so that tokens depend on everything
            if weight.ndim == 2:
                weight.mul_(4)
    steered.set_iti_directions(directions)
    steered.iti_alpha = 1.0
    tokenizer = AutoTokenizer.from_pretrained(ROOT)
    for name, model in (("plain", plain), ("steered", steered)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    export(folder / "steered", "llama", folder / "baked", device_map="cpu")
    export(folder / "steered", "peft", folder / "peft", device_map="cpu")
    offsets = directions.offsets()
    np.savez(folder / "offsets.npz", **{str(layer): offset.numpy() for layer, offset in offsets.items()})
    weights = {layer: plain.model.layers[layer].self_attn.o_proj.weight.detach() for layer in offsets}
    vectors = {str(layer): (weights[layer] @ offset).numpy() for layer, offset in offsets.items()}
    np.savez(folder / "vectors.npz", **vectors)
    ids = torch.randint(5, 700, (4, 32), generator=torch.Generator().manual_seed(0))
    tokens = references(plain, directions, ids, new)
    np.savez(folder / "reference.npz", prompts=ids.numpy(), **tokens)
    return len(offsets)


def environment(name: str, wanted: list[str], folder: Path) -> Path:
    """The Python of a peer's own environment, made where it is not there yet."""
    place = folder / name
    python = place / "bin" / "python"
    if not (place / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        frozen = ROOT / "requirements" / "run.txt"
        steps = [[TORCH], wanted]
        if "--no-deps" in wanted:
            steps.insert(1, ["-r", str(frozen)])
        for step in steps:
            done = subprocess.run([*pip, *step], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"pip install {' '.join(step)}: {last_line(done.stderr)}")
        (place / ".ready").touch()
    return python


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip() and "WARNING" not in line]
    return lines[-1][:300] if lines else "no message"


def measured(name: str, python: Path | str, folder: Path, *arguments: str) -> dict | str:
    """What peers.py prints, or why it prints nothing."""
    command = [str(python), str(HERE / "peers.py"), name, str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        return "did not end in 600 seconds"
    if done.returncode:
        return last_line(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def row(name: str, found: dict | str, layers: int) -> str:
    said = BESIDE.get(name, "")
    if isinstance(found, str):
        return f"| {name} | | failed: `{found}` | | | | | | | |"
    same = "" if name == "plain again" else "yes" if found["same tokens"] else "NO"
    cells = [f"{found['operations'] / layers:+.1f}", f"{found['syncs'] / layers:+.1f}", same]
    for phase in ("decode", "prefill"):
        for batch in (1, 8):
            ratio = found[f"{phase}, batch {batch}"]
            cells.append(f"{ratio['median']:.2f} ({ratio['from']:.2f} to {ratio['to']:.2f})")
    version = found.get("version", "")
    return f"| {name} {version} | {said} | " + " | ".join(cells) + f" | {found['lines']} |"


def decoding_table(found: dict[str, dict | str]) -> str:
    """Which ways of decoding give the hooks' tokens, for each way of steering and scope."""
    names = list(ways(torch.zeros(1, 2, dtype=torch.long), None))
    lines = [f"| way | scope | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    notes: dict[str, str] = {}
    for name, own in found.items():
        if isinstance(own, str):
            lines.append(f"| {name} | | failed: `{own}` |" + " |" * (len(names) - 1))
            continue
        for scope, told in own["decodings"].items():
            if set(told.values()) == {"not offered"}:
                lines.append(f"| {name} | {scope} | not offered |" + " |" * (len(names) - 1))
                continue
            cells = []
            for way in names:
                known = told[way] in ("right", "wrong", "not offered")
                cells.append(told[way] if known else f"fails ({notes.setdefault(told[way], str(len(notes) + 1))})")
            lines.append(f"| {name} | {scope} | {' | '.join(cells)} |")
    text = "\n".join(lines)
    return text + "".join(f"\n\n({number}) `{error}`" for error, number in notes.items())


def growth(rounds: int) -> dict[str, list[tuple[int, float, float]]]:
    """{what grows: [(how much, decode time as a ratio to plain Llama, the same of a second plain Llama)]}."""
    small = SHAPES["small"]
    points = {
        "layers": [({"num_hidden_layers": n}, 48, 1, 64, n) for n in (2, 4, 8, 16)],
        "heads": [({}, k, 1, 64, k) for k in (1, 8, 32, 64)],
        "batch": [({}, 48, b, 64, b) for b in (1, 4, 16, 64)],
        "context": [({}, 48, 1, length, length) for length in (128, 512, 2048, 8000)],
    }
    found = {}
    for what, own in points.items():
        for change, heads, batch, length, amount in own:
            plain, steered, _ = build(small | change, heads, "cpu", torch.float32)
            ids = torch.randint(0, small["vocab_size"], (batch, length))
            ratios = {"steered": [], "plain again": []}
            for round_ in range(rounds + 1):
                times = {n: run(m, ids, 8, None, length)[1] for n, m in (("plain", plain), ("steered", steered))}
                times["plain again"] = run(plain, ids, 8, None, length)[1]
                if round_:
                    for name, values in ratios.items():
                        values.append(times[name] / times["plain"])
            medians = [float(np.median(values)) for values in ratios.values()]
            found.setdefault(what, []).append((amount, *medians))
            print(what, amount, medians, flush=True)
    return found


def figure(found: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(1, len(found), figsize=(3.2 * len(found), 2.8), sharey=True)
    for axis, (what, own) in zip(axes, found.items(), strict=True):
        amounts = [amount for amount, *_ in own]
        axis.plot(amounts, [ratio for _, ratio, _ in own], "o-", label="steered")
        axis.plot(amounts, [noise for *_, noise in own], "s--", color="grey", label="plain again")
        axis.set_xscale("log", base=2)
        axis.set_xticks(amounts, [str(amount) for amount in amounts])
        axis.set_xlabel(what)
        axis.axhline(1, color="black", linewidth=0.5)
    axes[0].set_ylabel("decode time / plain Llama's")
    axes[0].legend()
    picture.tight_layout()
    picture.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--heads", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=24, help="tokens of the answers that are compared")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of them, or nothing")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venv-peers")
    parser.add_argument("--no-times", dest="times", action="store_false", help="the ways of decoding alone")
    parser.add_argument("--no-growth", dest="growth", action="store_false")
    parser.add_argument("--markdown", type=Path, help="document whose part 'side by side' is replaced")
    parser.add_argument("--figure", type=Path, help="picture of how cost grows")
    args = parser.parse_args()
    torch.set_num_threads(2)
    rows, decoded = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layers = prepare(folder, args.shape, args.heads, args.new)
        for way in (*OURS, *filter(None, args.peers.split(","))):
            try:
                python = environment(way, PEERS[way], args.environments) if way in PEERS else sys.executable
                decoded[way] = measured(way, python, folder, "--decoding")
                found = measured(way, python, folder, "--rounds", str(args.rounds)) if args.times else ""
            except RuntimeError as error:
                decoded[way] = found = str(error)
            rows.append(row(way, found, layers))
            print(rows[-1] if args.times else decoded[way], flush=True)
    del decoded["plain again"]
    table = decoding_table(decoded)
    print(table)
    if args.markdown is not None:
        replace_section(args.markdown, "decoding", table)
    if not args.times:
        return
    head = "| way | | operations a steered layer | syncs a steered layer | same tokens as hooks | decode, batch 1 "
    head += "| batch 8 | prefill, batch 1 | batch 8 | lines |"
    where = f"{platform.processor() or platform.machine()}, 2 threads"
    said = (
        f"{datetime.date.today()}, {where}, torch {torch.__version__}, transformers {transformers.__version__}; shape "
        f"{args.shape}, {layers} steered layers, float32, {args.rounds} rounds. Times are ratios to plain Llama of "
        "the same process (less is better): median, and from the least to the most."
    )
    text = "\n".join([head, "|---" * 10 + "|", *rows]) + f"\n\n{said}"
    if args.growth:
        plain, steered, _ = build(SHAPES[args.shape], args.heads, "cpu", torch.float32)
        loading = load_times(plain, steered, 5, "cpu")
        spread = f"{loading['median']:.2f} ({loading['from']:.2f} to {loading['to']:.2f})"
        text += f"\n\nLoading takes {spread} of plain Llama's time."
        grown = growth(args.rounds)
        lines = ["| what grows | decode time / plain Llama's (a second plain Llama) |", "|---|---|"]
        for what, own in grown.items():
            told = ", ".join(f"{amount}: {ratio:.2f} ({noise:.2f})" for amount, ratio, noise in own)
            lines.append(f"| {what} | {told} |")
        text += "\n\n" + "\n".join(lines)
        if args.figure is not None:
            figure(grown, args.figure)
    print(text)
    if args.markdown is not None:
        replace_section(args.markdown, "side by side", text)


if __name__ == "__main__":
    main()
