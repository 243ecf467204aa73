"""Turn eight sentences into a steered SmolLM2 each, measure it by `iti-llama run --instruction`, and write a table.

    python -m iti_llama.examples.sentences.measure_sentences [NAME ...] --out DIR --markdown docs/evidence.md

A finished run is left alone, and a killed one goes on. If the base does not follow a sentence, the table has the
command's message.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from iti_llama.toolkit.foundation.files import write_text
from iti_llama.toolkit.foundation.intervals import Estimate
from iti_llama.toolkit.foundation.markdown_table import markdown_table
from iti_llama.toolkit.measure.summary import BOTH, TOLD, Summary
from iti_llama.toolkit.repo.card import replace_section
from iti_llama.toolkit.repo.kept_line import share


@dataclass(frozen=True)
class Sentence:
    """name: that of its checker and its folder. kind: what it asks for."""

    name: str
    kind: str
    text: str


SENTENCES = (
    Sentence("brief", "length", "Answer in one short sentence."),
    Sentence("capitals", "case", "Answer in capital letters only."),
    Sentence("steps", "format", "Answer with a numbered list of steps."),
    Sentence("spanish", "language", "Answer in Spanish."),
    Sentence("warm", "tone", "Answer in a warm and encouraging tone."),
    Sentence("pirate", "persona", "Answer like a pirate."),
    Sentence("example", "content", "Give an example in your answer."),
    Sentence("code", "code", "Answer with Python code only."),
)
"""These were chosen before any was measured; each stays in the table."""

CHECKERS = Path(__file__).parent / "checkers.py"

HEADS = ("sentence", "plain", "told", "steered", "both", "minus alpha", "random", "kept", "likeness")
HEADS += ("intact", "to the point", "perplexity", "KL", "tokens saved", "checks", "alpha", "minutes")


def measure(sentence: Sentence, out: Path) -> None:
    """Run one sentence, unless that is done. The message of a run that stopped, and the minutes, are kept next to the
    repo."""
    record = out / f"{sentence.name}.json"
    said = json.loads(record.read_text()) if record.is_file() else {"seconds": 0.0}
    if said.get("done"):
        return
    command = [sys.executable, "-m", "iti_llama.toolkit.cli", "run", "--instruction", sentence.text]
    command += ["--base", "smollm2", "--base-name", "HuggingFaceTB/SmolLM2-135M-Instruct", "--language", "en"]
    command += ["--target", f"{CHECKERS}:{sentence.name}", "--out", str(out / sentence.name)]
    begun = time.monotonic()
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    said["seconds"] += time.monotonic() - begun
    stopped = "does not follow" in ended.stderr
    said |= {"done": ended.returncode == 0 or stopped, "stopped": " ".join(ended.stderr.split()) if stopped else ""}
    write_text(record, json.dumps(said) + "\n")
    if not said["done"]:
        sys.exit(ended.stderr)


def row(sentence: Sentence, out: Path) -> list[str]:
    """The cells of a sentence's row."""
    said = json.loads((out / f"{sentence.name}.json").read_text())
    name, minutes = f"{sentence.text} ({sentence.kind})", f"{said['seconds'] / 60:.0f}"
    if said["stopped"]:
        why = said["stopped"].partition(f"{sentence.text!r}: ")[2].partition("; expected")[0]
        return [name, f"not followed: {why}", *[""] * (len(HEADS) - 3), minutes]
    folder = out / sentence.name
    evaluation, sweep = (json.loads((folder / file).read_text()) for file in ("evaluation.json", "sweep.json"))
    rows = {one["name"]: Summary.from_dict(one) for one in evaluation["summary"]}
    of_rows = {one["condition"]: one for one in evaluation["conditions"]}
    ways = ("plain", TOLD, "steered", BOTH, "minus alpha", "random directions")
    texts = list(evaluation["divergence"].values())
    perplexity, kl = math.exp(texts[-1]["steered"]["nll_change"]["mean"]), texts[0]["steered"]["kl"]["mean"]
    checks = [check["name"] for check in evaluation["checks"] if not check["passed"]]
    cells = [name, *(f"{100 * rows[way].target.mean:.0f}%" for way in ways)]
    instruction = evaluation["instruction"]
    intact = [f"{100 * Estimate(**of_rows[way]['correct']).mean:.0f}" for way in ("plain", TOLD, "steered")]
    cells += [share(instruction["kept"]["steered"]), f"{instruction['likeness']:+.2f}", " / ".join(intact) + "%"]
    to_the_point = [f"{100 * evaluation['answering'][way]['mean']:.0f}" for way in ("plain", TOLD, "steered")]
    cells += [" / ".join(to_the_point) + "%"]
    cells += [f"{perplexity:.3f}", f"{kl:.2f}"]
    cells += [f"{instruction['tokens_saved']:g} ({100 * instruction['prefill_share']:.0f}%)"]
    cells += [f"fails {', '.join(checks)}" if checks else "pass"]
    cells += [f"{evaluation['alpha']:g}" + ("" if sweep["chosen"] else ", none was chosen")]
    return [*cells, minutes]


def table(out: Path) -> str:
    """The table of what is measured so far."""
    records = {sentence: out / f"{sentence.name}.json" for sentence in SENTENCES}
    done = [one for one, path in records.items() if path.is_file() and json.loads(path.read_text())["done"]]
    return markdown_table(HEADS, [row(sentence, out) for sentence in done])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *(sentence.name for sentence in SENTENCES)])
    parser.add_argument("--out", type=Path, default=Path("build/sentences"))
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    os.makedirs(given.out, exist_ok=True)
    for sentence in SENTENCES:
        if not given.names or sentence.name in given.names:
            measure(sentence, given.out)
    print(table(given.out))
    if given.markdown is not None:
        replace_section(given.markdown, "sentences", table(given.out))


if __name__ == "__main__":
    main()
