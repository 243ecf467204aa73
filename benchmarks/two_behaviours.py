"""Two behaviours at once, on the natural model: annotations and docstrings, each alone and together, a 2 x 2 table.

    python benchmarks/two_behaviours.py --markdown docs/methods.md

The directions are those of examples/natural, at the strengths that were chosen there; the prompts are places of the
held-out packages where a function's arguments begin. One answer shows both: whether the first argument is annotated,
and whether a docstring follows. Greedy, at most 96 tokens, scope "generated".
"""

import argparse
from pathlib import Path

import numpy as np

from iti_llama import ITIDirections
from iti_llama.examples.natural.behaviours import BEHAVIOURS, completed
from iti_llama.examples.natural.corpus import sources
from iti_llama.examples.natural.measure import Bench, Plan
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.intervals import estimate, paired
from iti_llama.toolkit.measure.degenerate import degenerate
from iti_llama.toolkit.repo.card import replace_section
from iti_llama.toolkit.repo.make import load_base


FOLDER = Path(__file__).parent.parent / "examples" / "natural"
ALPHAS = {"annotation": 2.0, "docstring": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="prompts")
    parser.add_argument("--markdown", type=Path, help="document whose part 'two' is replaced")
    args = parser.parse_args()
    model, tokenizer = load_base(FOLDER / "model", dtype="float32")
    first, second = (next(one for one in BEHAVIOURS if one.name == name) for name in ALPHAS)
    model.set_iti_directions(ITIDirections.load(FOLDER / f"{first.name}.safetensors"))
    model.load_iti_directions(FOLDER / f"{second.name}.safetensors", name=second.name)
    model.iti_scope = "generated"
    overlap = max(model.iti_overlap()["default", second.name].values(), key=abs)
    tasks = Bench(model, tokenizer, sources(), Plan(), Path(), print).tasks(first, "test", args.n).tasks
    groups, found = [task.group for task in tasks], {}
    for a, b in ((0, 0), (1, 0), (0, 1), (1, 1)):
        model.set_iti({"default": a * ALPHAS[first.name], second.name: b * ALPHAS[second.name]})
        answers = complete(model, tokenizer, [task.prompt for task in tasks], max_new_tokens=96)
        rows = []
        for task, answer in zip(tasks, answers, strict=True):
            tree, whole = completed(task.unit, answer)
            shows = [tree is not None and one.check(tree) for one in (first, second)]
            rows.append([*shows, all(shows), whole and not degenerate(answer)])
        found[a, b] = np.array(rows, dtype=float)
    names = f"{first.name}, {second.name} (alpha)"
    lines = [f"| {names} | annotated | documented | both | parses |", "|---|---|---|---|---|"]
    for (a, b), rows in found.items():
        cells = [estimate(column, groups).percent() for column in rows.T]
        name = f"{a * ALPHAS[first.name]:g}, {b * ALPHAS[second.name]:g}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    together = found[1, 1]
    changes = {
        "annotated, beside annotation alone": paired(together[:, 0], found[1, 0][:, 0], groups),
        "documented, beside docstring alone": paired(together[:, 1], found[0, 1][:, 1], groups),
        "parses, beside plain": paired(together[:, 3], found[0, 0][:, 3], groups),
    }
    told = "; ".join(f"{name}: {change.points()} points" for name, change in changes.items())
    text = "\n".join(lines) + f"\n\nn = {len(tasks)} prompts in {len(set(groups))} files. Both together: {told}."
    text += f" Overlap of the shifts: cosine {overlap:.2f} in the layer where it is largest."
    print(text)
    if args.markdown is not None:
        replace_section(args.markdown, "two", text)


if __name__ == "__main__":
    main()
