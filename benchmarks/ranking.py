"""Heads ranked by what they read against heads ranked by what they do: share of the behaviour against divergence.

    python benchmarks/ranking.py --figure figures/ranking.png --markdown docs/methods.md

On the bundled model and on the natural one: directions of one fit, its heads ranked by probes, by cause with equal and
with fitted weights, and at random (three draws; one on the natural model, which is slower), the best 2, 4, 8 and 16 of
each, at strengths whose divergence on held-out texts is about each of a few budgets. Shares are of correct (natural:
parsing) answers in the target, on held-out tasks, greedily. Neither tasks nor texts were seen by fit or ranking.
Results are kept in --out as they come.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.examples.natural.behaviours import BEHAVIOURS
from iti_llama.examples.natural.corpus import sources
from iti_llama.examples.natural.measure import Bench, Plan, balanced
from iti_llama.toolkit.bundled.pairs import style_pairs
from iti_llama.toolkit.bundled.tasks import corpus_set
from iti_llama.toolkit.fit.causal import by_cause, causal_effects
from iti_llama.toolkit.fit.fit_directions import fit, to_directions
from iti_llama.toolkit.fit.positions import Policy, fits
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.files import write_text
from iti_llama.toolkit.foundation.intervals import Estimate
from iti_llama.toolkit.foundation.sandbox import LateSandbox, Sandbox
from iti_llama.toolkit.measure.divergence import Text, measure_divergence
from iti_llama.toolkit.measure.sweep import rates_of
from iti_llama.toolkit.measure.tasks import TaskSet
from iti_llama.toolkit.repo.card import replace_section
from iti_llama.toolkit.repo.fit_repo import load_base


ROOT = Path(__file__).parent.parent
TOP_KS = (2, 4, 8, 16)
RANKINGS = ("probe", "causal", "causal, weighted", "random")


@dataclass(frozen=True)
class Case:
    """What heads are ranked for. make(ranking, k): the directions, of a random ranking three draws."""

    name: str
    model: ITILlamaForCausalLM
    tokenizer: object
    tasks: TaskSet
    texts: list[Text]
    sandbox: object
    budgets: tuple[float, ...]
    draws: int
    make: Callable[[str, int], list[ITIDirections]]


def maker(model, tokenizer, rows, policy: Policy, base: str, draws: int) -> Callable[[str, int], list[ITIDirections]]:
    settings = FitSettings(top_k=max(TOP_KS), permutations=0)
    activations = capture(model, tokenizer, rows, policy)
    found = fit(activations, rows, policy, settings)
    by = replace(found, settings=replace(settings, rank="causal"))
    effects = causal_effects(model, tokenizer, rows, by, "all")

    def make(ranking: str, k: int) -> list[ITIDirections]:
        if ranking == "random":
            drawn = [np.random.default_rng(seed).permutation(len(found.ranking)) for seed in range(1, draws + 1)]
            fitted = [replace(found, top_k=k, ranking=order) for order in drawn]
        elif ranking == "probe":
            fitted = [replace(found, top_k=k)]
        else:
            own = replace(by.settings, weights="fitted" if "weighted" in ranking else "equal")
            fitted = [by_cause(replace(by, top_k=k, settings=own), effects, rows, own)]
        return [to_directions(one, activations, rows, policy, base, base) for one in fitted]

    return make


def bundled(n: int) -> Case:
    model, tokenizer = load_base(ROOT)
    # The first line of a prompt asks for the style; what is ranked by is said without it.
    rows = [replace(row, meta={"bare": row.prompt.split("\n", 1)[1]}) for row in style_pairs(300)]
    make = maker(model, tokenizer, rows, Policy("fraction", 0.0), "iti-llama-demo", 3)
    budgets = (0.001, 0.002, 0.004, 0.008, 0.016)
    tasks = corpus_set("test", n)
    return Case("bundled: idiomatic", model, tokenizer, tasks, tasks.texts["plain code"], Sandbox(), budgets, 3, make)


def natural(name: str, n: int) -> Case:
    model, tokenizer = load_base(ROOT / "examples" / "natural" / "model", dtype="float32")
    bench = Bench(model, tokenizer, sources(), Plan(), Path(), print)
    behaviour = next(one for one in BEHAVIOURS if one.name == name)
    policy, longest = Policy("fraction", 0.0), model.config.max_position_embeddings
    drawn = balanced(bench.rows(behaviour, "train"), 400, 0)
    rows = [row for row in drawn if fits(row, Policy("completion-mean"), tokenizer, longest)]
    make, tasks = maker(model, tokenizer, rows, policy, "natural", 1), bench.tasks(behaviour, "test", n)
    budgets, texts = (0.05, 0.1, 0.2, 0.4), tasks.texts["code"][:24]
    return Case(f"natural: {name}", model, tokenizer, tasks, texts, LateSandbox(), budgets, 1, make)


def strengths_at(case: Case, texts: list[Text]) -> list[tuple[float, float]]:
    """(alpha, KL) of about each budget: the first from the curve over powers of two on eight texts, KL on all."""
    powers = [2.0**i for i in range(-5, 12)]
    some = [found.kl.mean for found in measure_divergence(case.model, case.tokenizer, texts[:8], powers)]
    rising = np.maximum.accumulate(np.maximum(some, 1e-9))
    alphas = np.exp(np.interp(np.log(case.budgets), np.log(rising), np.log(powers))).tolist()
    return [(one.alpha, one.kl.mean) for one in measure_divergence(case.model, case.tokenizer, texts, alphas)]


def measured(case: Case, top_ks: list[int], say: Callable[[str], None], path: Path) -> dict:
    """{"plain": share, "points": [{ranking, k, budget, alpha, kl, share}]}; a killed run goes on from `path`."""
    found = json.loads(path.read_text()) if path.is_file() else {"case": case.name, "n": len(case.tasks), "points": []}
    done = {(point["ranking"], point["k"]) for point in found["points"]}
    for ranking, k in [(ranking, k) for k in top_ks for ranking in RANKINGS if (ranking, k) not in done]:
        points = []
        for draw, directions in enumerate(case.make(ranking, k)):
            case.model.set_iti_directions(directions)
            strengths = strengths_at(case, case.texts)
            wanted = [(False, 0.0), *((False, alpha) for alpha, _ in strengths)]
            plain, *shares = rates_of(case.model, case.tokenizer, case.tasks, wanted, case.sandbox)
            found["plain"] = asdict(plain.both)
            for budget, (alpha, kl), rates in zip(case.budgets, strengths, shares, strict=True):
                point = {"ranking": ranking, "k": k, "draw": draw, "heads": len(directions), "budget": budget}
                points.append(point | {"alpha": alpha, "kl": kl, "share": asdict(rates.both)})
        found["points"] += points
        write_text(path, json.dumps(found, indent=1) + "\n")
        say(f"{case.name}, {ranking}, {k} heads: " + ", ".join(f"{100 * p['share']['mean']:.0f}%" for p in points))
    return found


def table(found: dict, top_ks: list[int]) -> str:
    """Share at each budget, with its interval; of several random draws their mean, from the least to the most."""
    budgets = sorted({point["budget"] for point in found["points"]})
    lines = [
        f"| ranking | heads | {' | '.join(f'KL {budget:g}' for budget in budgets)} |",
        "|---" * (len(budgets) + 2) + "|",
    ]
    for ranking in RANKINGS:
        for k in top_ks:
            cells = []
            for budget in budgets:
                of = [p for p in found["points"] if (p["ranking"], p["k"], p["budget"]) == (ranking, k, budget)]
                shares = [Estimate(**point["share"]) for point in of]
                means = 100 * np.array([share.mean for share in shares])
                spread = f"{means.mean():.1f}% ({means.min():.1f} to {means.max():.1f})"
                cells.append(shares[0].percent() if len(shares) == 1 else spread)
            kept = next(p["heads"] for p in found["points"] if (p["ranking"], p["k"]) == (ranking, k))
            heads = k if kept == k else f"{k}, of which {kept} gain"
            lines.append(f"| {ranking} | {heads} | {' | '.join(cells)} |")
    plain = Estimate(**found["plain"]).percent()
    return f"**{found['case']}**, n = {found['n']}, plain {plain}\n\n" + "\n".join(lines)


def figure(every: list[dict], top_ks: list[int], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plots, axes = plt.subplots(
        len(every), len(top_ks), figsize=(3 * len(top_ks), 2.6 * len(every)), squeeze=False, sharey="row"
    )
    colours = dict(zip(RANKINGS, ("tab:blue", "tab:red", "tab:orange", "0.6"), strict=True))
    for row, found in zip(axes, every, strict=True):
        for axis, k in zip(row, top_ks, strict=True):
            for ranking in RANKINGS:
                for draw in sorted({p["draw"] for p in found["points"] if p["ranking"] == ranking}):
                    of = [p for p in found["points"] if (p["ranking"], p["k"], p["draw"]) == (ranking, k, draw)]
                    shares = [Estimate(**point["share"]) for point in of]
                    errors = np.array([[s.mean - s.low, s.high - s.mean] for s in shares]).T * 100
                    values, label = [100 * share.mean for share in shares], ranking if draw == 0 else None
                    style = {"color": colours[ranking], "label": label, "marker": ".", "linewidth": 1, "capsize": 2}
                    axis.errorbar([point["kl"] for point in of], values, errors, **style)
            axis.axhline(100 * found["plain"]["mean"], color="0.8", linewidth=1)
            axis.set(title=f"{found['case']}, {k} heads", xlabel="KL from plain, nats a token", xscale="log")
            axis.title.set_size(8)
            budgets = sorted({point["budget"] for point in found["points"]})
            axis.set_xticks(budgets, [f"{budget:g}" for budget in budgets], fontsize=8)
            axis.minorticks_off()
        row[0].set_ylabel("correct and on target, %")
    axes[0, -1].legend(fontsize=7, loc="lower right")
    plots.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="tasks")
    parser.add_argument("--cases", default="bundled,annotation,docstring")
    parser.add_argument("--top-ks", default=",".join(map(str, TOP_KS)), help="numbers of heads")
    parser.add_argument("--out", type=Path, default=Path("build/ranking"))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--markdown", type=Path, help="document whose part 'ranking' is replaced")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    every, top_ks = [], [int(k) for k in args.top_ks.split(",")]
    for name in args.cases.split(","):
        case = bundled(args.n) if name == "bundled" else natural(name, args.n)
        every.append(measured(case, top_ks, lambda said: print(said, flush=True), args.out / f"{name}.json"))
    versions = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, python {platform.python_version()}"
    )
    text = "\n\n".join(table(found, top_ks) for found in every) + f"\n\n{versions}."
    print(text)
    if args.markdown is not None:
        replace_section(args.markdown, "ranking", text)
    if args.figure is not None:
        figure(every, top_ks, args.figure)


if __name__ == "__main__":
    main()
