"""The cost of ranking heads by cause, as a ratio to the capture pass, in one process.

    python benchmarks/causal_cost.py --rounds 3

The same texts, prompt and whole completion, are in turn captured (one forward pass) and used to rank heads by cause
(`causal_effects`: derivatives of all heads, then exact checks of the best 2K).
"""

import argparse
import statistics
import time
from pathlib import Path

from iti_llama.toolkit.fit.causal import causal_effects
from iti_llama.toolkit.fit.fit_directions import fit
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.measure.bundled_tasks import labelled_pairs
from iti_llama.toolkit.repo.fit_repo import load_base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--top-k", type=int, default=12)
    args = parser.parse_args()
    model, tokenizer = load_base(Path(__file__).parent.parent)
    rows, policy = labelled_pairs(groups=args.groups), Policy("completion-mean")
    settings = FitSettings(top_k=args.top_k, permutations=0, rank="causal", test_share=0.01)
    found, ratios = fit(capture(model, tokenizer, rows, policy), rows, policy, settings), []
    for _ in range(args.rounds):
        times = []
        for work in (
            lambda: capture(model, tokenizer, rows, policy),
            lambda: causal_effects(model, tokenizer, rows, found, "all"),
        ):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        ratios.append(times[1] / times[0])
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(
        f"ranking by cause / capture: {statistics.median(ratios):.2f} ({spread}), {len(rows)} rows, K = {args.top_k}"
    )


if __name__ == "__main__":
    main()
