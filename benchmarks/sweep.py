"""A sweep whose alphas are rows of one batch, against the same alphas one after another, on the bundled model.

    python benchmarks/sweep.py

Generation alone is timed (grading is the same for both), rounds interleaved in one process. Both give the same completions;
that is checked.
"""

import argparse
import json
import statistics
import time

import torch
import transformers
from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.bundled import ROOT
from iti_llama.toolkit.completion import complete
from iti_llama.toolkit.corpus import sample_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--alphas", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=256, help="rows of one batch, for both")
    args = parser.parse_args()
    torch.set_num_threads(2)
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)
    prompts = [task.prompt for task in sample_tasks("validation", args.tasks, seed=3)]
    alphas = [model.iti_alpha * (i + 1) / args.alphas for i in range(args.alphas)]

    def one_batch() -> list[str]:
        rows = [(prompt, alpha) for prompt in prompts for alpha in alphas]
        return complete(model, tokenizer, [p for p, _ in rows], [a for _, a in rows], batch_size=args.batch_size)

    def one_after_another() -> list[str]:
        own = model.iti_alpha
        texts = []
        for alpha in alphas:
            model.iti_alpha = alpha
            texts.append(complete(model, tokenizer, prompts, batch_size=args.batch_size))
        model.iti_alpha = own
        return [text for per_task in zip(*texts, strict=True) for text in per_task]

    one_batch()
    ratios, same = [], 0
    for _ in range(args.rounds):
        start = time.perf_counter()
        first = one_after_another()
        middle = time.perf_counter()
        second = one_batch()
        ratios.append((time.perf_counter() - middle) / (middle - start))
        same = sum(a == b for a, b in zip(first, second, strict=True))
    print(
        json.dumps(
            {
                "tasks": args.tasks,
                "alphas": args.alphas,
                "one batch / one after another": {
                    "median": round(statistics.median(ratios), 3),
                    "from": round(min(ratios), 3),
                    "to": round(max(ratios), 3),
                    "rounds": args.rounds,
                },
                "same completions": f"{same} of {len(first)}",
                "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
