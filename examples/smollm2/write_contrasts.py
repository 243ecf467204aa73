"""Labelled sets of one contrast each: a request with the sentence of a behaviour after it (label 1), and the bare
request (label 0). What is read is the prompt's last token, before any answer, so that one stands for all.

    python -m iti_llama.examples.smollm2.write_contrasts FOLDER
"""

import json
import sys
from pathlib import Path

from iti_llama.toolkit.data.read_table import read_table
from iti_llama.toolkit.foundation.files import write_text

from .behaviours import SENTENCES


HERE = Path(__file__).parent

UNREAD = "..."
"""A labelled row has a completion; with `--policy "fraction 0"` none is read."""


def contrasts(sentence: str) -> list[dict]:
    """Two rows for each request of `requests.jsonl`."""
    rows = []
    for number, (_, row) in enumerate(read_table(HERE / "requests.jsonl"), 1):
        for prompt, label in ((f"{row['prompt']} {sentence}", 1), (row["prompt"], 0)):
            rows.append({"prompt": prompt, "completion": UNREAD, "label": label, "group": f"request {number}"})
    return rows


if __name__ == "__main__":
    for name, sentence in SENTENCES.items():
        lines = "".join(json.dumps(row) + "\n" for row in contrasts(sentence))
        print(write_text(Path(sys.argv[1], f"{name}.jsonl"), lines))
