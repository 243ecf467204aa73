"""`iti-llama generate`"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..foundation.files import read_text
from .expand_settings import expand_settings
from .options import Json, Seed, SteeredModel, console


@expand_settings()
def generate(
    steered: SteeredModel,
    prompt: Annotated[str | None, typer.Option(help="the text to complete")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="read it from a file; - for standard input")] = None,
    alpha: Annotated[float | None, typer.Option(help="strength; the repo's own by default")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="show the plain completion too")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 160,
    temperature: Annotated[
        float | None, typer.Option(min=0.01, help="sample at this temperature; greedy without it")
    ] = None,
    top_p: Annotated[float | None, typer.Option(min=0.01, max=1, help="of sampling: nucleus")] = None,
    sample_top_k: Annotated[int | None, typer.Option(min=1, help="of sampling: so many likeliest tokens")] = None,
    samples: Annotated[int, typer.Option(min=1, help="answers of each strength, when sampling")] = 1,
    seed: Seed = 0,
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="through the chat template; where there is one by default")
    ] = None,
    json_: Json = False,
) -> None:
    """Complete a prompt, greedily or by sampling."""
    from ..foundation.complete import complete
    from ..foundation.tokenize import chat_prompt

    if (prompt is None) == (prompt_file is None):
        raise ValueError("give --prompt or --prompt-file, one of them")
    if prompt is None:
        piped = str(prompt_file) == "-"
        prompt = sys.stdin.read().removeprefix("\ufeff") if piped else read_text(prompt_file, "a text")
    if not prompt:
        raise ValueError("the prompt is empty")
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": sample_top_k}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    if samples > 1 and not sampling:
        raise ValueError(f"--samples is {samples}, but greedy answers are all the same; expected --temperature too")
    model, tokenizer = steered.load()
    if alpha is not None:
        model.iti_alpha = alpha
    alphas = [alpha for alpha in ([0.0] if compare else []) + [model.iti_alpha] for _ in range(samples)]
    if chat and not tokenizer.chat_template:
        raise ValueError(f"--chat, but the tokenizer of {steered.repo} has no chat template")
    given = prompt if chat is False else chat_prompt(tokenizer, prompt)
    if sampling:
        import torch

        torch.manual_seed(seed)
        sampling["do_sample"] = True
    texts = complete(model, tokenizer, [given] * len(alphas), alphas, max_new_tokens, **sampling)
    if json_:
        rows = [{"alpha": alpha, "completion": text} for alpha, text in zip(alphas, texts, strict=True)]
        print(json.dumps({"prompt": prompt, "completions": rows}, indent=2))
        return
    for alpha, text in zip(alphas, texts, strict=True):
        if len(alphas) > 1:
            console.rule(f"alpha {alpha:g}")
        if not console.quiet:  # as it is: rich would break lines, expand tabs and draw ":x:" as a picture
            print(prompt + (f"\x1b[1m{text}\x1b[0m" if console.color_system else text))
