"""How often SmolLM2-135M-Instruct does what it is told, and what it is steered to, on requests that no direction was
fitted on: plain, told the sentence before and after the user's words, and steered at several strengths.

    python -m iti_llama.examples.smollm2.print_shares [NAME ...] [--markdown FILE]
"""

import argparse
from pathlib import Path

from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM, smollm2
from iti_llama.toolkit.data.read_table import read_table
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.intervals import Estimate, estimate
from iti_llama.toolkit.foundation.tokenize import chat_prompt
from iti_llama.toolkit.measure.conditions import Condition, random_directions, under
from iti_llama.toolkit.measure.degenerate import degenerate
from iti_llama.toolkit.repo.card import replace_section

from .behaviours import CHECKERS, SENTENCES
from .write_contrasts import HERE


ALPHAS = (0.7, 1.2, 1.8)

TOKENS = 64
"""Of an answer, at most."""


def share_of(name: str, model, tokenizer, prompts: list[str], alpha: float) -> tuple[Estimate, Estimate]:
    """The shares of answers that the checker passes, and of those that are neither empty nor a loop."""
    texts = complete(model, tokenizer, prompts, [alpha] * len(prompts), TOKENS, batch_size=32)
    wanted = [CHECKERS[name](prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    return estimate(wanted, prompts), estimate([not degenerate(text) for text in texts], prompts)


def rows_of(name: str, requests: list[str]) -> list[tuple[str, Estimate, Estimate]]:
    """(how it was asked, shares as `share_of` gives them)."""
    model = ITILlamaForCausalLM.from_pretrained(HERE / name, base_model_name_or_path=smollm2(), dtype="auto").eval()
    tokenizer, sentence = AutoTokenizer.from_pretrained(HERE / name), SENTENCES[name]
    told = {
        "plain": requests,
        "plain, told in the system turn": requests,
        "plain, told before the question": [f"{sentence} {request}" for request in requests],
        "plain, told after it": [f"{request} {sentence}" for request in requests],
    }
    rows = []
    for how, written in told.items():
        system = sentence if "system" in how else None
        prompts = [chat_prompt(tokenizer, text, system=system) for text in written]
        rows.append((how, *share_of(name, model, tokenizer, prompts, 0.0)))
    prompts = [chat_prompt(tokenizer, request) for request in requests]
    for alpha in sorted({*ALPHAS, model.iti_alpha}):
        shipped = " (as it is here)" if alpha == model.iti_alpha else ""
        rows.append((f"steered, alpha {alpha:g}{shipped}", *share_of(name, model, tokenizer, prompts, alpha)))
    drawn = Condition("random", model.iti_alpha, random_directions(model.iti_directions, 1))
    with under(model, drawn):
        at = f"random directions, alpha {drawn.alpha:g}"
        rows.append((at, *share_of(name, model, tokenizer, prompts, drawn.alpha)))
    return rows


def table_of(name: str, rows: list[tuple[str, Estimate, Estimate]]) -> str:
    checker = CHECKERS[name].__name__.replace("_", " ")
    head = [f"**{name}**: {SENTENCES[name]}", "", f"| | {checker} | intact | n |", "|---|---|---|---|"]
    cells = (f"| {how} | {share.percent()} | {intact.percent()} | {share.n} |" for how, share, intact in rows)
    return "\n".join([*head, *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(SENTENCES), metavar="NAME")
    parser.add_argument("--markdown", type=Path, help="document whose part is written again")
    given = parser.parse_args()
    requests = [row["prompt"] for _, row in read_table(HERE / "other_requests.jsonl")]
    tables = []
    for name in given.names:
        tables.append(table_of(name, rows_of(name, requests)))
        print(tables[-1], end="\n\n", flush=True)
    if given.markdown:
        replace_section(given.markdown, "shares", "\n\n".join(tables))


if __name__ == "__main__":
    main()
