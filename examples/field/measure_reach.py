"""How far one direction goes: SmolLM2 steered to answer in one short sentence (`examples/smollm2/brief`), fitted on
everyday requests in English, on other kinds of prompts and along a conversation; and how few rows do.

    python -m iti_llama.examples.field.measure_reach --data FOLDER --out DIR --markdown docs/evidence.md

FOLDER holds `chat/alpaca_eval_600.jsonl` and `code/HumanEval.jsonl.gz`. A part that is measured is left alone.
"""

import argparse
import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM, smollm2
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.fit_directions import fit, to_directions
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.files import write_text
from iti_llama.toolkit.foundation.intervals import Estimate, estimate
from iti_llama.toolkit.foundation.markdown_table import markdown_table
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.foundation.tokenize import chat_prompt
from iti_llama.toolkit.instruct.read_requests import read_requests, split_requests
from iti_llama.toolkit.instruct.say_instruction import Prompts
from iti_llama.toolkit.measure.degenerate import degenerate
from iti_llama.toolkit.repo.card import replace_section
from iti_llama.toolkit.repo.open_repo import read_object

from ..sentences.checkers import brief


REPO = ROOT / "examples" / "smollm2" / "brief"

TOKENS, N = 64, 80
"""Most tokens of an answer, and most prompts of each kind."""

CONVERSATIONS, TURNS = 36, 5

PAIRS, DRAWS = (4, 8, 16, 32, 64, 96), 5
"""How many pairs of rows directions are fitted on, and how often each number of pairs is drawn."""

HEADS, ALPHA = 97, 0.9
"""The heads and the strength of the directions for that, chosen with all pairs on the requests to choose on."""


class Measuring:
    """The repo's model, and the requests that it was neither fitted nor chosen on."""

    def __init__(self):
        self.model = ITILlamaForCausalLM.from_pretrained(REPO, base_model_name_or_path=smollm2(), dtype="auto").eval()
        self.tokenizer = AutoTokenizer.from_pretrained(REPO)
        self.parts = split_requests(read_requests(), 0, 80, 120)  # as `run` split them
        used = {request.group for request in (*self.parts.fit, *self.parts.validation)}
        fresh = [request.written for request in read_requests() if request.group not in used]
        self.fresh = [fresh[at] for at in np.random.default_rng(0).permutation(len(fresh))]  # the file is by kind

    def shares(self, prompts: Sequence, alphas: Sequence[float]) -> dict:
        """{strength: shares of answers that are brief, and intact, and the answers}."""
        asked = [chat_prompt(self.tokenizer, prompt) for prompt in prompts]
        rows = [alpha for alpha in alphas for _ in asked]
        texts = complete(self.model, self.tokenizer, asked * len(alphas), rows, TOKENS, batch_size=40)
        groups = list(map(str, range(len(asked))))
        shares = {}
        for i, alpha in enumerate(alphas):
            answers = texts[i * len(asked) : (i + 1) * len(asked)]
            kept = {"brief": [brief("", text) for text in answers], "intact": [not degenerate(t) for t in answers]}
            shares[alpha] = {name: asdict(estimate(flags, groups)) for name, flags in kept.items()} | {
                "texts": answers
            }
        return shares

    def kinds(self, data: Path) -> dict:
        """Plain and steered on prompts of other kinds than those that it was fitted on."""
        questions = read_requests(data / "chat" / "alpaca_eval_600.jsonl", {"prompt": "instruction"})
        spanish = read_requests(Path(__file__).with_name("spanish_questions.txt"))
        code = gzip.decompress((data / "code" / "HumanEval.jsonl.gz").read_bytes()).decode().splitlines()
        asked = {
            "everyday requests, as it was fitted on": self.fresh,
            "AlpacaEval's questions": [request.written for request in questions],
            "HumanEval's functions": [f"Complete this function.\n\n{json.loads(line)['prompt']}" for line in code],
            "questions in Spanish": [request.written for request in spanish],
        }
        measured = {}
        for kind, prompts in asked.items():
            plain, steered = self.shares(prompts[:N], (0.0, self.model.iti_alpha)).values()
            measured[kind] = {"plain": plain, "steered": steered}
            print(kind, steered["brief"]["mean"], flush=True)
        return measured

    def turns(self) -> list[dict]:
        """Plain and steered at each turn of conversations, each of which goes on from its own answers."""
        single = [request for request in self.fresh if isinstance(request, str)]  # others are conversations themselves
        asked = [single[i * TURNS : (i + 1) * TURNS] for i in range(CONVERSATIONS)]
        talks = {alpha: [[] for _ in asked] for alpha in (0.0, self.model.iti_alpha)}
        measured = []
        for turn in range(TURNS):
            row = {}
            for name, alpha in zip(("plain", "steered"), talks, strict=True):
                for talk, requests in zip(talks[alpha], asked, strict=True):
                    talk.append({"role": "user", "content": requests[turn]})
                shares = self.shares(talks[alpha], [alpha])[alpha]
                for talk, text in zip(talks[alpha], shares["texts"], strict=True):
                    talk.append({"role": "assistant", "content": text})
                row[name] = shares
            measured.append(row)
            print("turn", turn + 1, row["steered"]["brief"]["mean"], flush=True)
        return measured

    def few(self) -> dict:
        """The share under mean differences, as `fit` takes them, of fewer pairs, on requests that none was fitted or
        chosen on."""
        said, rows = read_object(REPO / "iti_report.json")["instruction"], []
        prompts, policy = Prompts(self.tokenizer), Policy.parse("fraction 0")
        for request in self.parts.fit:
            told, bare = prompts.told(request, said["text"], said["place"]), prompts.bare(request)
            rows += [Example(told.prompt, " ", 1, request.group), Example(bare.prompt, " ", 0, request.group)]
        activations = capture(self.model, self.tokenizer, rows, policy)
        groups = np.array([request.group for request in self.parts.fit])
        settings = FitSettings(top_k=HEADS, folds=2, permutations=0)
        shares = {}
        for pairs in PAIRS:
            shares[pairs] = []
            for draw in range(DRAWS):
                chosen = set(np.random.default_rng(draw).permutation(groups)[:pairs])
                split = [replace(row, meta={"split": "fit" if row.group in chosen else "test"}) for row in rows]
                fitted = fit(activations, split, policy, settings)
                self.model.set_iti_directions(to_directions(fitted, activations, split, policy, "", ""))
                steered = self.shares(self.fresh[:40], [ALPHA])[ALPHA]
                shares[pairs].append(steered["brief"]["mean"])
            print(pairs, shares[pairs], flush=True)
        return shares


def table(measured: dict) -> str:
    """Kinds of prompts, then turns."""
    lines, heads = [], ("prompts", "n", "plain", "steered", "intact, plain / steered")
    rows = dict(measured["kinds"]) | {f"turn {i} of a conversation": row for i, row in enumerate(measured["turns"], 1)}
    for name, row in rows.items():
        shares = {way: Estimate(**row[way]["brief"]) for way in ("plain", "steered")}
        intact = " / ".join(f"{100 * row[way]['intact']['mean']:.0f}" for way in shares)
        cells = (share.percent() for share in shares.values())
        lines.append([name, str(shares["plain"].n), *cells, f"{intact}%"])
    return markdown_table(heads, lines)


def draw(measured: dict, path: Path) -> None:
    """The share against the number of pairs, a dot for each draw, the line through their means."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    few = {int(pairs): shares for pairs, shares in measured["few"].items()}
    for pairs, shares in few.items():
        axes.scatter([pairs] * len(shares), [100 * share for share in shares], color="#4477aa", s=22, alpha=0.7)
    axes.plot(list(few), [100 * np.mean(shares) for shares in few.values()], color="#4477aa")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(few), list(map(str, few)))
    axes.set(xlabel="pairs that the direction was fitted on", ylabel="answers of at most 25 words, %", ylim=(0, 104))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/reach"))
    parser.add_argument("--markdown", type=Path, help="document whose part is written again")
    given = parser.parse_args()
    measuring, measured = None, {}
    for name in ("kinds", "turns", "few"):
        path = given.out / f"{name}.json"
        if not path.is_file():
            measuring = measuring or Measuring()
            part = measuring.kinds(given.data) if name == "kinds" else getattr(measuring, name)()
            write_text(path, json.dumps(part, indent=1) + "\n")
        measured[name] = json.loads(path.read_text())
    print(table(measured))
    print({pairs: [round(share, 2) for share in shares] for pairs, shares in measured["few"].items()})
    if given.markdown is not None:
        replace_section(given.markdown, "reach", table(measured))
        draw(measured, given.markdown.parent / "figures" / "few-pairs.png")


if __name__ == "__main__":
    main()
