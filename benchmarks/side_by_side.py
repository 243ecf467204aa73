"""Compare this model with other ways to steer a Llama: same weights, offsets and prompts. `make bench`

    python benchmarks/side_by_side.py --markdown docs/benchmarks.md --figure docs/figures/benchmarks.png

Every way runs in a separate process, interleaved with plain Llama (peers.py); a peer also gets a separate environment,
made here with pinned versions. The error of a peer that cannot be installed or fails is quoted. There are four parts
(--parts): cost; which ways of decoding give the right tokens; the cost of fitting, for ways that fit; how cost grows
with layers, heads, batch and context, with captured rows and with the alphas of a sweep.
"""

import argparse
import datetime
import json
import math
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from decode import SHAPES, build, load_times, run
from gpu import table
from gpu_decoding import references
from peer_ways import FITS, hf_generate
from peers import seconds, ways
from transformers import AutoTokenizer

from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.fit.positions import Row
from iti_llama.toolkit.fit.record_activations import record_batch
from iti_llama.toolkit.foundation.bound_memory import batches_of, tokens_a_batch
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.bundled_tasks import labelled_pairs
from iti_llama.toolkit.repo.card import replace_section


HERE = Path(__file__).resolve().parent
OURS = ("plain again", "iti-llama", "baked", "peft", "hooks")
PEERS = {
    "pyvene": ["pyvene==0.1.8"],
    "steering-vectors": ["--no-deps", "steering-vectors==0.12.2"],
    "repeng": ["repeng==0.4.0"],
    "nnsight": ["nnsight==0.8.1"],
    "transformer-lens": ["transformer-lens==4.3.0", "transformers==5.23.0"],
    "repsteer": ["repsteer==0.2.4"],
    "aisteer360": ["--no-deps", "git+https://github.com/IBM/AISteer360@1d7c843"],
    "saklas": ["saklas==5.3.0"],
}
"""Each peer with its pip requirements. TransformerLens loses the cache under transformers 5.24, so its tokens are
wrong there."""

BESIDE = {
    "plain again": "a second plain Llama: the noise",
    "iti-llama": "this model",
    "baked": "`iti-llama export --to llama`: no strength at run time",
    "peft": "`iti-llama export --to peft`",
    "hooks": "a pre-hook on each o_proj, by hand",
    "saklas": "the hooks of its compiled path, put on o_proj",
}
TORCH = f"torch=={torch.__version__.split('+')[0]}"


def prepare(folder: Path, shape: str, heads: int, new: int) -> int:
    """Write the files that peers.py reads; returns the number of steered layers."""
    plain, steered, directions = build(SHAPES[shape], heads, "cpu", torch.float32)
    with torch.no_grad():
        for weight in plain.parameters():  # scaled so that tokens depend on everything; the steered model shares them
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
    rows = labelled_pairs(groups=150)
    labelled = [[row.prompt + row.completion for row in rows], [row.label for row in rows]]
    (folder / "texts.json").write_text(json.dumps(labelled))
    return len(offsets)


def environment(name: str, wanted: list[str], folder: Path) -> Path:
    """The Python of a peer's environment, which is made if it does not exist yet."""
    place = folder / name
    python = place / "bin" / "python"
    if not (place / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        frozen = ROOT / ".ci" / "requirements" / "run.txt"
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
    """The output of peers.py, or the reason that it has none."""
    command = [str(python), str(HERE / "peers.py"), name, str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        return "did not end in 600 seconds"
    if done.returncode:
        return last_line(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


COLUMNS = (
    *("way", "", "operations a steered layer", "syncs a steered layer", "graph breaks", "same tokens as hooks"),
    *("decode, batch 1", "batch 8", "prefill, batch 1", "batch 8"),
    *("load", "MB beyond plain", "ms to change alpha", "lines"),
)


def row(name: str, found: dict | str, layers: int, plain_memory: float) -> list[str]:
    """The cells of COLUMNS. plain_memory: bytes of a process that holds only plain Llama."""
    if isinstance(found, str):
        return [name, f"failed: `{found}`", *[""] * (len(COLUMNS) - 2)]
    other = found["transformers"] != transformers.__version__
    beside = f"under transformers {found['transformers']}" if other else BESIDE.get(name, "")
    cells = [f"{name} {found.get('version', '')}", beside]
    cells += [f"{found['operations'] / layers:+.1f}", f"{found['syncs'] / layers:+.1f}"]
    breaks, change = found["graph breaks"], 1000 * found["seconds to change alpha"]
    cells += ["" if math.isnan(breaks) else f"{breaks:+.0f}"]
    cells += ["" if name == "plain again" else "yes" if found["same tokens"] else "NO"]
    for phase in ("decode", "prefill"):
        for batch in (1, 8):
            cells.append(_spread(found[f"{phase}, batch {batch}"]))
    cells += [_spread(found["load"]), f"{(found['memory'] - plain_memory) / 1e6:+.0f}"]
    cells += ["" if name == "plain again" else "made anew" if math.isnan(change) else f"{change:.2f}"]
    return [*cells, str(found["lines"])]


def _spread(ratio: dict) -> str:
    return f"{ratio['median']:.2f} ({ratio['from']:.2f} to {ratio['to']:.2f})"


def decoding_table(found: dict[str, dict | str]) -> str:
    """Which ways of decoding give the hooks' tokens, for each way of steering and scope."""
    names = list(ways(torch.zeros(1, 2, dtype=torch.long), None))
    rows, notes = [], {}
    for name, own in found.items():
        if isinstance(own, str):
            rows.append([name, "", f"failed: `{own}`", *[""] * (len(names) - 1)])
            continue
        for scope, of in own["decodings"].items():
            if set(of.values()) == {"not offered"}:
                rows.append([name, scope, "not offered", *[""] * (len(names) - 1)])
                continue
            cells = []
            for way in names:
                known = of[way] in ("right", "wrong", "not offered")
                cells.append(of[way] if known else f"fails ({notes.setdefault(of[way], str(len(notes) + 1))})")
            rows.append([name, scope, *cells])
    told = "".join(f"\n\n({number}) `{error}`" for error, number in notes.items())
    return table(["way", "scope", *names], rows) + told


Point = tuple[int, float, float]
"""(amount, time as a ratio to plain Llama's, the same for a second plain Llama), medians over the rounds."""


def interleaved(amount: int, rounds: int, plain: Callable[[], float], own: Callable[[], float]) -> Point:
    """A point from two functions that return seconds; the first round warms up."""
    ratios = []
    for _ in range(rounds + 1):
        base = plain()
        ratios.append((own() / base, plain() / base))
    return (amount, *np.median(ratios[1:], axis=0).tolist())


def decode_growth(rounds: int) -> dict[str, list[Point]]:
    """The time of a decode step, by the size of the model and of the batch."""
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
            one, other = (partial(run, model, ids, 8, None, length) for model in (plain, steered))
            point = interleaved(amount, rounds, lambda one=one: one()[1], lambda other=other: other()[1])
            found.setdefault(what, []).append(point)
            print(what, point, flush=True)
    return found


@torch.no_grad()
def capture_growth(rounds: int) -> list[Point]:
    """Capture of every head and layer, against the same passes without it."""
    plain, _, _ = build(SHAPES["small"], 48, "cpu", torch.float32)
    lengths = torch.randint(16, 128, (256,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [Row(list(range(5, 5 + length)), length - 1) for length in lengths]

    def left_alone(batch: list[Row]) -> None:
        length = max(len(row.ids) for row in batch)
        ids = torch.tensor([row.ids + [0] * (length - len(row.ids)) for row in batch])
        plain.model(input_ids=ids, attention_mask=(ids > 0).long(), use_cache=False)

    def over(one: Callable[[list[Row]], object], amount: int) -> None:
        for batch in batches_of([len(row.ids) for row in rows[:amount]], 16, tokens_a_batch(plain)):
            one([rows[index] for index in batch])

    passes = (left_alone, partial(record_batch, plain))
    return [interleaved(n, rounds, *(partial(seconds, over, one, n) for one in passes)) for n in (16, 64, 256)]


def sweep_growth(rounds: int) -> list[Point]:
    """Answers at several strengths, rows of one batch, against plain Llama's answers, one batch after another."""
    plain, steered, _ = build(SHAPES["small"], 48, "cpu", torch.float32)
    ids = torch.randint(5, 700, (8, 32), generator=torch.Generator().manual_seed(0))

    def one_after_another(amount: int) -> None:
        for _ in range(amount):
            hf_generate(plain, ids, 16)

    def together(amount: int) -> None:
        strengths = torch.linspace(0, 1, amount).repeat_interleave(len(ids))
        hf_generate(steered, ids.repeat(amount, 1), 16, iti_alpha=strengths)

    answers = (one_after_another, together)
    return [interleaved(n, rounds, *(partial(seconds, one, n) for one in answers)) for n in (1, 2, 4, 8)]


def figure(found: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(1, len(found), figsize=(3.2 * len(found), 2.8), sharey=True)
    for axis, (what, own) in zip(axes, found.items(), strict=True):
        amounts = [amount for amount, *_ in own]
        axis.plot(amounts, [ratio for _, ratio, _ in own], "o-", label="steered")
        axis.plot(amounts, [noise for *_, noise in own], "s--", color="grey", label="plain Llama again")
        axis.set_xscale("log", base=2)
        axis.set_xticks(amounts, [str(amount) for amount in amounts])
        axis.set_xlabel(what)
        axis.axhline(1, color="black", linewidth=0.5)
    axes[0].set_ylabel("time / plain Llama's")
    axes[0].legend()
    picture.tight_layout()
    picture.savefig(path, dpi=120)


def asked(args, folder: Path, names: Iterable[str], *arguments: str) -> dict[str, dict | str]:
    """{way: the output of peers.py, or the reason that it has none}."""
    found = {}
    for name in names:
        try:
            python = environment(name, PEERS[name], args.environments) if name in PEERS else sys.executable
            found[name] = measured(name, python, folder, *arguments)
        except RuntimeError as error:
            found[name] = str(error)
        print(name, found[name], sep=" | ", flush=True)
    return found


def machine(args) -> str:
    where = f"{platform.processor() or platform.machine()}, 2 threads"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{datetime.date.today()}, {where}, {versions}; shape {args.shape}, float32"


def cost(args, folder: Path, layers: int) -> str:
    found = asked(args, folder, [*OURS, *args.peers], "--rounds", str(args.rounds))
    plain = found["plain again"]
    plain_memory = math.nan if isinstance(plain, str) else plain["memory"]
    rows = [row(name, own, layers, plain_memory) for name, own in found.items()]
    said = (
        f"{machine(args)}, {layers} steered layers, {args.rounds} rounds. Times are ratios to plain Llama of "
        "the same process (less is better): median, and from the least to the most."
    )
    return f"{table(COLUMNS, rows)}\n\n{said}"


def decoding(args, folder: Path, layers: int) -> str:
    return decoding_table(asked(args, folder, [*OURS[1:], *args.peers], "--decoding"))


def fitting(args, folder: Path, layers: int) -> str:
    names = [name for name in FITS if name not in PEERS or name in args.peers]
    rows = []
    for name, own in asked(args, folder, names, "--fit", "--rounds", str(args.rounds)).items():
        told = [f"failed: `{own}`", ""] if isinstance(own, str) else [_spread(own["seconds"]), _spread(own["ratio"])]
        rows.append([name, *told])
    head = ["way", "seconds to fit 12 heads on 300 texts", "times one plain pass over them"]
    return f"{table(head, rows)}\n\n{machine(args)}, {args.rounds} rounds."


def growth(args, folder: Path, layers: int) -> str:
    plain, steered, _ = build(SHAPES[args.shape], args.heads, "cpu", torch.float32)
    load = _spread(load_times(plain, steered, 5, "cpu"))
    grown = decode_growth(args.rounds)
    grown["rows captured"], grown["alphas of a sweep"] = capture_growth(args.rounds), sweep_growth(args.rounds)
    told = [
        [what, ", ".join(f"{amount}: {ratio:.2f} ({noise:.2f})" for amount, ratio, noise in own)]
        for what, own in grown.items()
    ]
    if args.figure is not None:
        figure(grown, args.figure)
    text = table(["what grows", "time / plain Llama's (a second plain Llama)"], told)
    said = f"{machine(args)}, {args.rounds} rounds, medians."
    return f"Loading takes {load} times plain Llama's time.\n\n{text}\n\n{said}"


def named(listed: str) -> list[str]:
    return [name for name in listed.split(",") if name]


PARTS = {"cost": cost, "decoding": decoding, "fit": fitting, "growth": growth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=named, default=list(PARTS), help="some of " + ", ".join(PARTS))
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--heads", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=24, help="tokens of the answers that are compared")
    parser.add_argument("--peers", type=named, default=list(PEERS), help="some of the peers, or nothing")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venv-peers")
    parser.add_argument("--markdown", type=Path, help="document whose parts of these names are replaced")
    parser.add_argument("--figure", type=Path, help="picture of how cost grows")
    args = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layers = prepare(folder, args.shape, args.heads, args.new)
        for part in args.parts:
            text = PARTS[part](args, folder, layers)
            print(text)
            if args.markdown is not None:
                replace_section(args.markdown, part, text)


if __name__ == "__main__":
    main()
