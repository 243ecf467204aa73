"""`iti-llama from-gguf`"""

import json
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from .options import Json, console, progress_bar, say_next


def from_gguf(
    file: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="GGUF of a Llama, in any quantisation")],
    out: Annotated[Path, typer.Option(help="folder of the plain Llama to write")],
    dtype: Annotated[str, typer.Option(help="dtype of the weights: bfloat16, float16 or float32")] = "bfloat16",
    original: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="the original model on the Hub, for the card")
    ] = None,
    json_: Json = False,
) -> None:
    """Make a base from a GGUF file.

    Example: iti-llama from-gguf FILE.gguf --out DIR

    DIR is a plain Llama folder with dequantised weights, tokenizer and chat template.
    """
    from transformers.utils.logging import disable_progress_bar

    from ..convert.dequantise_gguf import dequantise_gguf

    disable_progress_bar()
    with progress_bar() as advance:
        advance("reading")
        weights = dequantise_gguf(file, out, dtype, original, progress=advance)
    if json_:
        print(json.dumps({"folder": str(out), "weights": weights}))
        return
    console.print(f"{out}: a plain Llama in {dtype}, its weights {weights}", highlight=False, soft_wrap=True)
    say_next(f"iti-llama run LABELS.jsonl --base {quote(str(out))} --out NAME")
