"""Compare a sweep whose alphas are rows of one batch with the same alphas one after another, on the bundled model.

    python benchmarks/sweep.py

Only generation is timed (grading is the same for both), with rounds interleaved in one process. Both give the same
completions, which is checked. Two ratios are printed: for the alphas alone, and with the plain answers that each alpha
is compared with. These are rows of the one batch, but each of the runs one after another makes them again, as
`iti-llama evaluate` does at each alpha.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.bundled_tasks import corpus_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--alphas", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=256, help="rows of one batch, for both")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(2)
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(ROOT), AutoTokenizer.from_pretrained(ROOT)
    model = model.eval().to(args.device)
    prompts = [task.prompt for task in corpus_set("validation", args.tasks).tasks]
    alphas = [model.iti_alpha * (i + 1) / args.alphas for i in range(args.alphas)]

    def one_batch(alphas: list[float]) -> list[str]:
        rows = [(prompt, alpha) for prompt in prompts for alpha in alphas]
        return complete(model, tokenizer, [p for p, _ in rows], [a for _, a in rows], batch_size=args.batch_size)

    def one_after_another(alphas: list[float]) -> list[str]:
        own = model.iti_alpha
        texts = []
        for alpha in alphas:
            model.iti_alpha = alpha
            texts.append(complete(model, tokenizer, prompts, batch_size=args.batch_size))
        model.iti_alpha = own
        return [text for per_task in zip(*texts, strict=True) for text in per_task]

    def seconds(run: Callable[[list[float]], list[str]], alphas: list[float]) -> tuple[float, list[str]]:
        start = time.perf_counter()
        texts = run(alphas)
        return time.perf_counter() - start, texts

    one_batch(alphas)
    alone, with_plain, same = [], [], 0
    for _ in range(args.rounds):
        apart, first = seconds(one_after_another, alphas)
        together, second = seconds(one_batch, alphas)
        plain_apart, _ = seconds(one_after_another, [0.0] * len(alphas))
        plain_together, _ = seconds(one_batch, [0.0, *alphas])
        alone.append(together / apart)
        with_plain.append(plain_together / (apart + plain_apart))
        same = sum(a == b for a, b in zip(first, second, strict=True))

    def summary(ratios: list[float]) -> dict:
        return {
            "median": round(statistics.median(ratios), 3),
            "from": round(min(ratios), 3),
            "to": round(max(ratios), 3),
        }

    print(
        json.dumps(
            {
                "tasks": args.tasks,
                "alphas": args.alphas,
                "rounds": args.rounds,
                "one batch / one after another": summary(alone),
                "the same, with the plain answers": summary(with_plain),
                "same completions": f"{same} of {len(first)}",
                "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
