"""Compare heads ranked by what they read with heads ranked by what they do: share of the behaviour against divergence.

    python benchmarks/ranking.py --markdown examples/bundled_model/evaluation.md

The directions come from one fit on the bundled model. Its heads are ranked by probes, by cause, and at random (three
draws), and the best 2, 4, 8 and 16 of each ranking are tried at strengths whose divergence on held-out texts is close
to each of a few budgets. Shares are of correct answers in the target, greedy, on held-out tasks. Fit and ranking saw
neither the tasks nor the texts. --out keeps results as they come.
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
from iti_llama.toolkit.fit.causal import by_cause, causal_effects
from iti_llama.toolkit.fit.fit_directions import fit, to_directions
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.files import write_text
from iti_llama.toolkit.foundation.intervals import Estimate
from iti_llama.toolkit.foundation.sandbox import Sandbox
from iti_llama.toolkit.measure.bundled_tasks import corpus_set, labelled_pairs
from iti_llama.toolkit.measure.divergence import measure_divergence
from iti_llama.toolkit.measure.sweep import rates_of
from iti_llama.toolkit.measure.tasks import TaskSet
from iti_llama.toolkit.repo.card import replace_section
from iti_llama.toolkit.repo.fit_repo import load_base


ROOT = Path(__file__).parent.parent
TOP_KS = (2, 4, 8, 16)
RANKINGS = ("probe", "causal", "random")


DRAWS = 3
BUDGETS = (0.001, 0.002, 0.004, 0.008, 0.016)
"""Divergences, in nats a token."""


@dataclass(frozen=True)
class Case:
    """What heads are ranked for. directions_of(ranking, k): the directions; for a random ranking, `DRAWS` of them."""

    model: ITILlamaForCausalLM
    tokenizer: object
    tasks: TaskSet
    directions_of: Callable[[str, int], list[ITIDirections]]


def ranked_case(n: int) -> Case:
    """The bundled model, with heads fitted and ranked in each way, and `n` test tasks."""
    model, tokenizer = load_base(ROOT)
    # The first line of a prompt asks for the style; the ranking uses the prompt without it.
    rows = [replace(row, meta={"bare": row.prompt.split("\n", 1)[1]}) for row in labelled_pairs(groups=300)]
    policy, settings = Policy("fraction", 0.0), FitSettings(top_k=max(TOP_KS), permutations=0)
    activations = capture(model, tokenizer, rows, policy)
    by_probe = fit(activations, rows, policy, settings)
    effects = causal_effects(model, tokenizer, rows, by_probe, "all")

    def directions_of(ranking: str, k: int) -> list[ITIDirections]:
        if ranking == "random":
            orders = [np.random.default_rng(seed).permutation(len(by_probe.ranking)) for seed in range(1, DRAWS + 1)]
            fits = [replace(by_probe, top_k=k, ranking=order) for order in orders]
        elif ranking == "probe":
            fits = [replace(by_probe, top_k=k)]
        else:
            fits = [by_cause(replace(by_probe, top_k=k), effects)]
        return [to_directions(one, activations, rows, policy, "iti-llama-demo", "iti-llama-demo") for one in fits]

    return Case(model, tokenizer, corpus_set("test", n), directions_of)


def strengths_at(case: Case) -> list[tuple[float, float]]:
    """(alpha, KL) close to each budget: alpha from the curve over powers of two on eight texts, KL on all texts."""
    powers, texts = [2.0**i for i in range(-5, 12)], case.tasks.texts["plain code"]
    some = [point.kl.mean for point in measure_divergence(case.model, case.tokenizer, texts[:8], powers)]
    rising = np.maximum.accumulate(np.maximum(some, 1e-9))
    alphas = np.exp(np.interp(np.log(BUDGETS), np.log(rising), np.log(powers))).tolist()
    return [(point.alpha, point.kl.mean) for point in measure_divergence(case.model, case.tokenizer, texts, alphas)]


def measure(case: Case, top_ks: list[int], path: Path) -> dict:
    """{"plain": share, "points": [{ranking, k, budget, alpha, kl, share}]}; a killed run goes on from `path`."""
    results = json.loads(path.read_text()) if path.is_file() else {"n": len(case.tasks), "points": []}
    done = {(point["ranking"], point["k"]) for point in results["points"]}
    for ranking, k in [(ranking, k) for k in top_ks for ranking in RANKINGS if (ranking, k) not in done]:
        points = []
        for draw, directions in enumerate(case.directions_of(ranking, k)):
            case.model.set_iti_directions(directions)
            strengths = strengths_at(case)
            wanted = [(False, 0.0), *((False, alpha) for alpha, _ in strengths)]
            plain, *shares = rates_of(case.model, case.tokenizer, case.tasks, wanted, Sandbox())
            results["plain"] = asdict(plain.both)
            for budget, (alpha, kl), rates in zip(BUDGETS, strengths, shares, strict=True):
                point = {"ranking": ranking, "k": k, "draw": draw, "heads": len(directions), "budget": budget}
                points.append(point | {"alpha": alpha, "kl": kl, "share": asdict(rates.both)})
        results["points"] += points
        write_text(path, json.dumps(results, indent=1) + "\n")
        print(f"{ranking}, {k} heads: " + ", ".join(f"{100 * p['share']['mean']:.0f}%" for p in points), flush=True)
    return results


def table(results: dict, top_ks: list[int]) -> str:
    """Share at each budget, with its interval; for several random draws the mean, and the least and the most."""
    lines = [
        f"| ranking | heads | {' | '.join(f'KL {budget:g}' for budget in BUDGETS)} |",
        "|---" * (len(BUDGETS) + 2) + "|",
    ]
    for ranking in RANKINGS:
        for k in top_ks:
            cells = []
            for budget in BUDGETS:
                points = [p for p in results["points"] if (p["ranking"], p["k"], p["budget"]) == (ranking, k, budget)]
                shares = [Estimate(**point["share"]) for point in points]
                means = 100 * np.array([share.mean for share in shares])
                spread = f"{means.mean():.1f}% ({means.min():.1f} to {means.max():.1f})"
                cells.append(shares[0].percent() if len(shares) == 1 else spread)
            kept = next(p["heads"] for p in results["points"] if (p["ranking"], p["k"]) == (ranking, k))
            heads = k if kept == k else f"{k}, of which {kept} gain"
            lines.append(f"| {ranking} | {heads} | {' | '.join(cells)} |")
    return f"n = {results['n']}, plain {Estimate(**results['plain']).percent()}\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="tasks")
    parser.add_argument("--top-ks", default=",".join(map(str, TOP_KS)), help="numbers of heads")
    parser.add_argument("--out", type=Path, default=Path("build/ranking"))
    parser.add_argument("--markdown", type=Path, help="document whose part 'ranking' is replaced")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    top_ks = [int(k) for k in args.top_ks.split(",")]
    results = measure(ranked_case(args.n), top_ks, args.out / "bundled.json")
    versions = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, python {platform.python_version()}"
    )
    text = f"{table(results, top_ks)}\n\n{versions}."
    print(text)
    if args.markdown is not None:
        replace_section(args.markdown, "ranking", text)


if __name__ == "__main__":
    main()
