"""Two behaviours at once, on the bundled model: idiomatic style, and a comment before the first statement, each alone
and together, a 2 x 2 table of held-out tasks. `make two`

    python benchmarks/two_behaviours.py build/commented build/commented-sweep/sweep.json --markdown docs/methods.md

The folder is a repo of the second behaviour, fitted on the same base; heads and strength are those that `sweep` chose
on validation tasks. The first is as it is shipped. Greedy.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.bundled.tasks import corpus_set
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.intervals import estimate, paired
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.foundation.sandbox import Sandbox
from iti_llama.toolkit.repo.card import replace_section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("second", type=Path, help="repo of the second behaviour")
    parser.add_argument("sweep", type=Path, help="what `iti-llama sweep` wrote of it")
    parser.add_argument("--n", type=int, default=300, help="held-out tasks")
    parser.add_argument("--markdown", type=Path, help="document whose part 'two' is replaced")
    args = parser.parse_args()
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)
    chosen = json.loads(args.sweep.read_text())["chosen"]
    if chosen is None:
        raise SystemExit(f"{args.sweep}: no strength was chosen; expected one")
    first, second = model.iti_alpha, chosen["alpha"]
    model.load_iti_directions(args.second / "iti_directions.safetensors", "commented", 0.0, chosen["top_k"])
    overlap = max(model.iti_overlap()["default", "commented"].values(), key=abs, default=0.0)
    tasks = corpus_set("test", args.n)
    groups, found, sandbox = [task.group for task in tasks.tasks], {}, Sandbox()
    for a, b in ((0, 0), (1, 0), (0, 1), (1, 1)):
        model.set_iti({"default": a * first, "commented": b * second})
        answers = complete(
            model, tokenizer, [task.prompt for task in tasks.tasks], max_new_tokens=tasks.max_new_tokens
        )
        rows = []
        for answer, grade in zip(answers, tasks.grade(tasks.tasks, answers, sandbox), strict=True):
            commented = answer.lstrip().startswith("#")
            rows.append([grade.target, commented, grade.target and commented, grade.correct])
        found[a, b] = np.array(rows, dtype=float)
    lines = ["| idiomatic, commented (alpha) | idiomatic | commented | both | correct |", "|---|---|---|---|---|"]
    for (a, b), rows in found.items():
        cells = [estimate(column, groups).percent() for column in rows.T]
        lines.append(f"| {a * first:g}, {b * second:g} | {' | '.join(cells)} |")
    together = found[1, 1]
    changes = {
        "idiomatic, beside that alone": paired(together[:, 0], found[1, 0][:, 0], groups),
        "commented, beside that alone": paired(together[:, 1], found[0, 1][:, 1], groups),
        "correct, beside plain": paired(together[:, 3], found[0, 0][:, 3], groups),
    }
    told = "; ".join(f"{name}: {change.points()} points" for name, change in changes.items())
    text = "\n".join(lines) + f"\n\nn = {len(groups)} held-out tasks. Both together: {told}."
    text += f" Overlap of the shifts: a cosine of {overlap:.2f} in the layer where it is largest."
    print(text)
    if args.markdown is not None:
        replace_section(args.markdown, "two", text)


if __name__ == "__main__":
    main()
