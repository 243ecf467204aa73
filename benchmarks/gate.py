"""A gate on the bundled model: steer functions about texts, leave those about numbers alone.

    python benchmarks/gate.py --markdown examples/bundled_model/evaluation.md

The gate is fitted on prompts of the training tasks, about strings and characters (label 1) and about integers (label
0). Its labels say nothing about style, and the directions are the shipped ones. Held-out tasks of both kinds, also in
four phrasings that neither saw, then show how often the gate acts, and how many answers are idiomatic: plain, steered
everywhere, and steered where the gate acts. Answers are greedy.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import torch

from iti_llama import ITILlamaForCausalLM
from iti_llama.examples.bundled_model.corpus import sample_task
from iti_llama.generation_iti_llama import record_heads
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.gate import fit_gate
from iti_llama.toolkit.fit.report_table import gate_line
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.intervals import estimate
from iti_llama.toolkit.foundation.sandbox import Sandbox
from iti_llama.toolkit.foundation.tokenize import prompt_ids
from iti_llama.toolkit.measure.bundled_tasks import PHRASINGS, corpus_set
from iti_llama.toolkit.measure.grade import grade
from iti_llama.toolkit.repo.card import replace_section


ROOT = Path(__file__).parent.parent


def about_text(group: str) -> bool:
    return group.startswith(("words", "chars"))


def prompts(groups: int, seed: int = 0) -> list[Example]:
    """Prompts of training tasks, the same number of each kind."""
    rng, rows = random.Random(f"gate:{seed}"), {}
    while len(rows) < groups:
        task = sample_task("train", rng)
        label = int(about_text(task.group))
        if sum(row.label == label for row in rows.values()) < groups // 2:
            rows.setdefault(task.group, Example(task.prompt, "pass\n", label, task.group))
    return list(rows.values())


@torch.no_grad()
def acts(model, tokenizer, given: list[str]) -> list[bool]:
    """Whether the gate lets each prompt through, as `generate` asks it."""
    gate, opened = model.iti_directions.gate, []
    for prompt in given:
        ids = torch.tensor([prompt_ids(tokenizer, prompt)])
        opened.append(bool(gate.opens(record_heads(model.model, lambda heads: heads[:, -1], input_ids=ids))))
    return opened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=300)
    parser.add_argument("--n", type=int, default=300, help="held-out tasks")
    parser.add_argument("--markdown", type=Path, help="document whose part 'gate' is replaced")
    args = parser.parse_args()
    from transformers import AutoTokenizer

    model, tokenizer = ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)
    alpha, plain = model.iti_alpha, model.iti_directions
    model.set_iti_directions(None)
    gate, told = fit_gate(model, tokenizer, prompts(args.groups))
    model.set_iti_directions(replace(plain, gate=gate))
    tasks, sandbox = corpus_set("test", args.n).tasks, Sandbox()
    kinds = {"about texts": [], "about numbers": []}
    for task in tasks:
        kinds["about texts" if about_text(task.group) else "about numbers"].append(task)
    heading = "| tasks | phrasing | gate acts | idiomatic, plain | everywhere | gated | correct, gated | n |"
    lines = [heading, "|---" * 8 + "|"]
    for kind, own in kinds.items():
        groups = [task.group for task in own]
        for phrasing, asked in (("as in training", lambda task: task.prompt), *PHRASINGS):
            given = [asked(task) for task in own]
            answers = {
                "plain": complete(model, tokenizer, given, [0.0] * len(own)),
                "everywhere": complete(model, tokenizer, given, [alpha] * len(own), iti_gate=False),
                "gated": complete(model, tokenizer, given, [alpha] * len(own)),
            }
            grades = {name: grade(own, said, sandbox) for name, said in answers.items()}
            shares = [estimate([g.target for g in grades[name]], groups).percent() for name in answers]
            correct = estimate([g.correct for g in grades["gated"]], groups).percent()
            fired = estimate(acts(model, tokenizer, given), groups).percent()
            lines.append(f"| {kind} | {phrasing} | {fired} | {' | '.join(shares)} | {correct} | {len(own)} |")
            print(lines[-1], flush=True)
    text = "\n".join(lines) + f"\n\nOn test prompts of the set that the gate was fitted on it {gate_line(told)}."
    print(text)
    if args.markdown is not None:
        replace_section(args.markdown, "gate", text)


if __name__ == "__main__":
    main()
