"""`iti-llama generate`"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..foundation.files import read_text
from ..measure.settings import TaskRequest
from .expand_settings import expand_settings, option_type
from .options import Json, Sampling, Seed, SteeredModel, console


@expand_settings()
def generate(
    steered: SteeredModel,
    sampling: Sampling,
    prompt: Annotated[str | None, typer.Option(help="the text to complete, or the question of a chat model")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="read the prompt from a file; - for standard input")] = None,
    alpha: Annotated[float | None, typer.Option(help="strength; by default the repo's")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="show the plain completion too")] = False,
    samples: Annotated[int, typer.Option(min=1, help="answers at each strength, when sampling")] = 1,
    seed: Seed = 0,
    raw: option_type(TaskRequest, "raw") = False,
    system: option_type(TaskRequest, "system") = None,
    json_: Json = False,
) -> None:
    """Answer one prompt.

    Example: iti-llama generate --model REPO --prompt "Why do we yawn?" --compare

    A model with a chat template answers; any other completes the text. Greedy unless you pass --temperature.
    """
    from ..foundation.complete import complete
    from ..foundation.tokenize import chat_prompt
    from .stream_answer import print_answer, stream_answer

    if (prompt is None) == (prompt_file is None):
        raise ValueError("expected either --prompt or --prompt-file")
    if prompt is None:
        piped = str(prompt_file) == "-"
        prompt = sys.stdin.read().removeprefix("\ufeff") if piped else read_text(prompt_file, "a text")
    if not prompt:
        raise ValueError("the prompt is empty")
    if samples > 1 and not sampling.kwargs:
        raise ValueError(f"--samples is {samples}, but greedy answers are all the same; expected --temperature too")
    model, tokenizer = steered.load()
    if alpha is not None:
        model.iti_alpha = alpha
    given = chat_prompt(tokenizer, prompt, system=system, raw=raw)
    alphas = [alpha for alpha in ([0.0] if compare else []) + [model.iti_alpha] for _ in range(samples)]
    room, how = sampling.room(model), sampling.kwargs
    if how:
        import torch

        torch.manual_seed(seed)
    together = json_ or (how and len(alphas) > 1)  # random draws depend on the batch
    texts = complete(model, tokenizer, [given] * len(alphas), alphas, room, **how) if together else []
    if json_:
        rows = [{"alpha": alpha, "completion": text} for alpha, text in zip(alphas, texts, strict=True)]
        print(json.dumps({"prompt": prompt, "completions": rows}, indent=2))
        return
    if len(alphas) > 1:
        console.rule("prompt")
    if not console.quiet and (len(alphas) > 1 or given == prompt):  # a completion goes on where its prompt ends
        print(prompt, end="\n" if len(alphas) > 1 else "", flush=True)
    for number, alpha in enumerate(alphas):
        if len(alphas) > 1:
            console.rule(f"{'steered, ' if alpha else 'plain, '}alpha {alpha:g}")
        if together:
            print_answer(texts[number], end="\n")
        else:
            stream_answer(model, tokenizer, given, alpha, room, **how)
