"""The part of the demo with a real Llama: SmolLM2-135M-Instruct, steered by directions of this project."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ..foundation.package import ROOT
from .options import console


FOLDER = ROOT / "examples" / "smollm2" / "brief"
"""A steered repo without weights. A checkout has it, an installed package does not."""

QUESTIONS = ("How do rivers form?", "What is a good way to begin the day?", "Who was Marie Curie?")
"""None of these is among the requests that directions were fitted on or the strength was chosen on."""

TOKENS = 64
"""Most tokens of an answer: enough to see what it is like."""


def show_chat() -> None:
    """Print answers to the questions at minus alpha, plain and steered, side by side, or say what is missing."""
    from iti_llama import smollm2

    try:
        base = smollm2()
    except FileNotFoundError as error:
        console.print(f"skipped: SmolLM2, a real Llama. {error}", highlight=False, soft_wrap=True, markup=False)
        return
    if not FOLDER.is_dir():
        console.print(
            f"skipped: SmolLM2, whose directions are in a checkout, in {FOLDER}", soft_wrap=True, markup=False
        )
        return
    console.print(answers_of(FOLDER, base))


def answers_of(folder: Path, base: str) -> Table:
    """The answers of the steered repo in `folder` on its base."""
    from transformers import AutoTokenizer

    from iti_llama import ITILlamaForCausalLM

    from ..foundation.complete import complete
    from ..foundation.tokenize import chat_prompt
    from ..repo.steered_repo import SteeredRepo

    model = ITILlamaForCausalLM.from_pretrained(folder, base_model_name_or_path=base, dtype="auto").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    strengths = (-model.iti_alpha, 0.0, model.iti_alpha)
    prompts = [chat_prompt(tokenizer, question) for question in QUESTIONS for _ in strengths]
    texts = complete(model, tokenizer, prompts, strengths * len(QUESTIONS), TOKENS)
    does = SteeredRepo.open(folder).does
    table = Table(title=f"SmolLM2-135M-Instruct, steered: {does}", title_justify="left", expand=True, show_lines=True)
    for name, alpha in zip(("steered away", "plain", "steered"), strengths, strict=True):
        table.add_column(f"{name}, alpha {alpha:g}", ratio=1, overflow="fold")
    for at, question in enumerate(QUESTIONS):
        answers = (escape(text.strip()) for text in texts[3 * at : 3 * at + 3])
        table.add_row(*(f"[italic]{escape(question)}[/italic]\n{answer}" for answer in answers))
    return table
