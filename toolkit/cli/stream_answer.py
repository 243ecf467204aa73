"""Print an answer while it is written."""

from .options import console


def stream_answer(model, tokenizer, prompt: str, alpha: float, max_new_tokens: int, **sampling) -> str:
    """Print the answer to a prompt, at one strength, word by word. Returns it."""
    from transformers import TextStreamer

    from ..foundation.complete import complete

    words = []

    class Printer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            words.append(text)
            print_answer(text, end="\n" if stream_end else "")

    printer = Printer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    complete(model, tokenizer, [prompt], [alpha], max_new_tokens, streamer=printer, **sampling)
    return "".join(words)


def print_answer(text: str, end: str = "") -> None:
    """Print a text, or a part of it, as it is, bold at a terminal: rich would break lines, expand tabs and draw ":x:"
    as a picture."""
    if not console.quiet:
        print(f"\x1b[1m{text}\x1b[0m" if console.color_system and text else text, end=end, flush=True)
