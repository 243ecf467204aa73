"""Output that is not an answer: empty, or going round in a loop."""

import re
from collections import Counter


_LOOP = re.compile(r"((?:\S+ ){3,20}?)\1{3}")


def degenerate(completion: str) -> str:
    """Why an output is degenerate: "empty", or "loop" (the same 3 to 20 words four times in a row, or ten lines or
    more of which half are the same); "" if it is not."""
    words = completion.split()
    if not words:
        return "empty"
    if _LOOP.search(" ".join(words) + " "):
        return "loop"
    lines = [line.strip() for line in completion.splitlines() if line.strip()]
    if len(lines) >= 10 and max(Counter(lines).values()) * 2 >= len(lines):
        return "loop"
    return ""
