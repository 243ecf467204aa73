"""Batched probes against a loop over scikit-learn, in one process on two threads.

    python benchmarks/probes.py                    # 1,024 heads x 128, n = 4,000
    python benchmarks/probes.py --rounds 5 --sample 32

scikit-learn is timed on an evenly spread sample of the heads, and scaled to all of them. Each round times all of ours
and another sample, so that the ratio has a spread. Prints the largest difference of a coefficient too.
"""

import argparse
import json
import platform
import statistics
import time

import numpy as np
import sklearn
import torch
from sklearn.linear_model import LogisticRegression

from iti_llama.toolkit.fit.probes import accuracy, auc, fit_probes


def activations(rows: int, heads: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels, and correlated activations of uneven scale. Some heads know the label well, others not at all."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (rows,), generator=generator)
    mixing = torch.randn(dim, dim, generator=generator) * torch.logspace(0, -1.5, dim) / dim**0.5
    x = torch.randn(rows, heads, dim, generator=generator) @ mixing.T
    strength = torch.linspace(2, 0, heads)[:, None]
    x += (y[:, None, None] - 0.5) * strength * torch.randn(heads, dim, generator=generator) / dim**0.5
    return x, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=64, help="heads that scikit-learn is timed on in each round")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(2)
    x, y = activations(args.rows, args.heads, args.dim)
    on_device = x.to(args.device)
    fit_probes(on_device[:, :32], y.to(args.device))  # warm up
    ours, loop = [], []
    sampled = set()
    for round_ in range(args.rounds):
        start = time.perf_counter()
        probes = fit_probes(on_device, y.to(args.device))
        ours.append(time.perf_counter() - start)
        heads = np.linspace(round_, args.heads - args.rounds + round_, args.sample).astype(int)
        sampled.update(heads.tolist())
        start = time.perf_counter()
        for head in heads:
            LogisticRegression(max_iter=1000).fit(x[:, head].numpy(), y.numpy())
        loop.append((time.perf_counter() - start) / len(heads) * args.heads)
    differences, same = [], []
    for head in sorted(sampled)[:: max(1, len(sampled) // 16)]:
        own = x[:, head].double().numpy()
        exact = LogisticRegression(tol=1e-9, solver="newton-cholesky").fit(own, y.numpy())
        differences.append(float(np.abs(exact.coef_[0] - probes.coef[head].numpy()).max()))
        mine = own @ probes.coef[head].numpy() + probes.intercept[head].item()
        theirs = exact.decision_function(own)
        pair = np.stack([mine, theirs], 1)
        same.append((np.ptp(accuracy(pair, y)), np.ptp(auc(pair, y))))
    ratios = [b / a for a, b in zip(ours, loop, strict=True)]
    print(
        json.dumps(
            {
                "shape": {"heads": args.heads, "dim": args.dim, "rows": args.rows},
                "seconds, ours": [round(value, 2) for value in ours],
                "seconds, loop over scikit-learn (scaled)": [round(value, 1) for value in loop],
                "times faster": {
                    "median": round(statistics.median(ratios), 1),
                    "from": round(min(ratios), 1),
                    "to": round(max(ratios), 1),
                },
                "heads compared": len(differences),
                "worst difference of a coefficient": max(differences),
                "worst difference of accuracy, of AUC": [
                    float(max(a for a, _ in same)),
                    float(max(b for _, b in same)),
                ],
                "device": args.device,
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
                "versions": {"torch": torch.__version__, "scikit-learn": sklearn.__version__},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
