"""Measure a repo that was made from a sentence on questions that others wrote: plain, told, steered, both, at minus
alpha, and along random directions of equal norm.

    python -m iti_llama.examples.smollm2.measure_questions FOLDER --questions alpaca_eval_600.jsonl --markdown FILE

The questions are rows of `{"instruction": str}`, as in AlpacaEval; FOLDER has the name of its checker in
`examples/sentences/checkers.py`.
"""

import argparse
from pathlib import Path

from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM, smollm2
from iti_llama.toolkit.foundation.sandbox import LateSandbox
from iti_llama.toolkit.instruct.read_requests import read_requests
from iti_llama.toolkit.instruct.say_instruction import Prompts
from iti_llama.toolkit.measure.conditions import told_conditions
from iti_llama.toolkit.measure.divergence import Text
from iti_llama.toolkit.measure.evaluate import divergence_of, evaluate
from iti_llama.toolkit.measure.target import Target, with_target
from iti_llama.toolkit.measure.tasks import FileTask, TaskSet, grade_intact
from iti_llama.toolkit.repo.card import replace_section
from iti_llama.toolkit.repo.open_repo import read_object

from ..sentences import checkers


def task_set(folder: Path, questions: Path, n: int, tokenizer) -> TaskSet:
    """The first questions, bare, and with the sentence that the repo was made from, in the place it had then."""
    prompts, said = Prompts(tokenizer), read_object(folder / "iti_report.json")["instruction"]
    requests = read_requests(questions, {"prompt": "instruction"})[:n]
    tasks = [FileTask(prompts.bare(request).prompt, request.group) for request in requests]
    told = {
        task.prompt: prompts.told(request, said["text"], said["place"]).prompt
        for task, request in zip(tasks, requests, strict=True)
    }
    texts = {"questions": [Text("", task.prompt, task.group) for task in tasks]}
    tasks = TaskSet(questions.name, tasks, "", lambda task: told[task.prompt], grade_intact, texts, 64, "intact")
    rule = getattr(checkers, folder.name)
    return with_target(tasks, Target(folder.name, lambda asked, texts: [float(rule("", text)) for text in texts]))


def table_of(folder: Path, questions: Path, n: int) -> str:
    """Measure the shares with intervals, and the divergence on the questions."""
    model = ITILlamaForCausalLM.from_pretrained(folder, base_model_name_or_path=smollm2(), dtype="auto").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tasks, conditions = task_set(folder, questions, n, tokenizer), told_conditions(model)
    rows, _ = evaluate(model, tokenizer, tasks, conditions, LateSandbox())
    moved = divergence_of(model, tokenizer, tasks.texts["questions"], conditions)
    lines = [f"| n = {len(tasks)} | {folder.name} | intact | KL |", "|---|---|---|---|"]
    for row in rows:
        kl = f"{moved[row.condition].kl.mean:.3f}" if row.condition in moved else ""
        lines.append(f"| {row.condition} | {row.target.percent()} | {row.correct.percent()} | {kl} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--markdown", type=Path, help="document whose part is replaced")
    given = parser.parse_args()
    table = table_of(given.folder, given.questions, given.n)
    print(table)
    if given.markdown:
        replace_section(given.markdown, "shares", table)


if __name__ == "__main__":
    main()
