"""Measure two behaviours at once on the bundled model: idiomatic style, and a comment before the first statement,
alone and together, on held-out tasks. `make two`

    python benchmarks/two_behaviours.py build/commented build/commented-sweep/sweep.json --markdown DOCUMENT

The folder is a repo of the second behaviour, fitted on the same base. Its heads and strength are those that `sweep`
chose on validation tasks. A second strength is chosen there with the first behaviour switched on: the one with the
most answers that are correct and show both. The first behaviour is the shipped one. Answers are greedy.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.intervals import estimate, paired
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.foundation.sandbox import Sandbox
from iti_llama.toolkit.measure.bundled_tasks import corpus_set
from iti_llama.toolkit.measure.tasks import TaskSet
from iti_llama.toolkit.repo.card import replace_section
from iti_llama.toolkit.repo.info import overlap


def answered(model, tokenizer, tasks: TaskSet, alphas: tuple[float, float], sandbox: Sandbox) -> np.ndarray:
    """[idiomatic, commented, both, correct, all three], 0 or 1, for each answer at the strengths of both."""
    model.set_iti({"default": alphas[0], "commented": alphas[1]})
    answers = complete(model, tokenizer, [task.prompt for task in tasks.tasks], max_new_tokens=tasks.max_new_tokens)
    rows = []
    for answer, grade in zip(answers, tasks.grade(tasks.tasks, answers, sandbox), strict=True):
        one, other, correct = bool(grade.target), answer.lstrip().startswith("#"), bool(grade.correct)
        rows.append([one, other, one and other, correct, one and other and correct])
    return np.array(rows, dtype=float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("second", type=Path, help="repo of the second behaviour")
    parser.add_argument("sweep", type=Path, help="its sweep.json, which `iti-llama sweep` wrote")
    parser.add_argument("--n", type=int, default=300, help="held-out tasks")
    parser.add_argument("--markdown", type=Path, help="document whose part 'two' is replaced")
    args = parser.parse_args()
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)
    swept = json.loads(args.sweep.read_text())
    if swept["chosen"] is None:
        raise SystemExit(f"{args.sweep}: no strength was chosen; expected one")
    first, second = model.iti_alpha, swept["chosen"]["alpha"]
    model.load_iti_directions(args.second / "iti_directions.safetensors", "commented", 0.0, swept["chosen"]["top_k"])
    directions = ITIDirections.load(args.second / "iti_directions.safetensors").top(swept["chosen"]["top_k"])
    used, layers = model.iti_directions.top(model.iti_top_k), model.model.layers
    cosines = overlap(used, directions, lambda at: layers[at].self_attn.o_proj.weight.detach().double().numpy())
    largest = max(cosines.values(), key=abs, default=0.0)
    sandbox, validation, tried = Sandbox(), corpus_set("validation", 100), {}
    for alpha in sorted({point["alpha"] for point in swept["points"]} - {0.0}):
        tried[alpha] = answered(model, tokenizer, validation, (first, alpha), sandbox)[:, 4].mean()
    beside = max(tried, key=tried.get)
    tasks = corpus_set("test", args.n)
    groups = [task.group for task in tasks.tasks]
    points = dict.fromkeys([(0.0, 0.0), (first, 0.0), (0.0, second), (first, second), (first, beside)])
    found = {alphas: answered(model, tokenizer, tasks, alphas, sandbox) for alphas in points}
    heads = ["idiomatic", "commented", "both", "correct", "correct and both"]
    lines = [f"| alpha: idiomatic, commented | {' | '.join(heads)} |", "|---" * 6 + "|"]
    for alphas, rows in found.items():
        cells = [estimate(column, groups).percent() for column in rows.T]
        lines.append(f"| {alphas[0]:g}, {alphas[1]:g} | {' | '.join(cells)} |")
    text = "\n".join(lines) + f"\n\nn = {len(groups)} held-out tasks."
    for alpha in dict.fromkeys((second, beside)):
        change = paired(found[first, alpha][:, 3], found[0.0, 0.0][:, 3], groups)
        text += f" At {first:g} and {alpha:g}, correct: {change.points()} points beside plain."
    text += f" {second:g} was chosen alone, {beside:g} beside the first, both on 100 validation tasks."
    text += f" Overlap of the shifts: a cosine of {largest:.2f} in the layer where it is largest."
    print(text)
    if args.markdown is not None:
        replace_section(args.markdown, "two", text)


if __name__ == "__main__":
    main()
