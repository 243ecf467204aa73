"""NeoCoder (Lu et al., NAACL 2025): its problems.

NeoCoder's files are read as they are: `NeoCoder.json`, `human_solutions.json`, `human_solution_techniques.json`,
`test_cases_annotated.json`, from a folder or from its repository. Tests are the samples in the problem statements.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pooch

from .techniques import techniques


FILES = ("NeoCoder.json", "human_solutions.json", "human_solution_techniques.json", "test_cases_annotated.json")


REPOSITORY = "https://raw.githubusercontent.com/JHU-CLSP/NeoCoder/main/datasets/CodeForce/NeoCoder"


LICENSE = "Apache-2.0"


@dataclass(frozen=True)
class Problem:
    """statements[t], constraints[t]: the text and the forbidden techniques at state t. samples: (stdin, stdout) pairs.
    humans: solutions in any language; human_labels: the techniques that NeoCoder's files list for each."""

    id: str
    title: str
    statements: tuple[str, ...]
    constraints: tuple[frozenset[str], ...]
    samples: tuple[tuple[str, str], ...]
    humans: tuple[str, ...]
    human_labels: tuple[frozenset[str], ...]


def fetch(url: str, folder: Path, sha256: dict[str, str] | None = None) -> dict[str, str]:
    """Download NeoCoder's files into `folder`, unless they are there; returns {name: SHA-256}.

    Raises:
        ValueError: if a file is not the one that `sha256` names. It is not kept.
    """
    sums = {}
    for name in FILES:
        there = (folder / name).exists()
        path = Path(pooch.retrieve(f"{url.rstrip('/')}/{name}", known_hash=None, fname=name, path=folder))
        sums[name] = pooch.file_hash(path)
        wanted = (sha256 or {}).get(name, sums[name])
        if sums[name] != wanted:
            if not there:
                path.unlink()
            raise ValueError(f"{name}: SHA-256 is {sums[name]}; expected {wanted}")
    return sums


def load(folder: Path) -> list[Problem]:
    """Read NeoCoder's files.

    Raises:
        FileNotFoundError: if one is missing. ValueError: if one is not in NeoCoder's schema; the message names it.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: no {name}; expected NeoCoder's files {', '.join(FILES)}")
    try:
        problems, humans, labels, cases = (json.loads((folder / name).read_text(encoding="utf-8")) for name in FILES)
        raw = {case["problem_id"]: case["problem_statement"] for case in cases}
        return [
            _problem(
                entry,
                raw[entry["problem_id"]],
                humans.get(entry["problem_id"], []),
                labels.get(entry["problem_id"], []),
            )
            for entry in problems
            if entry["problem_id"] in raw
        ]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: not NeoCoder's files ({type(error).__name__}: {error})") from error


def _problem(entry: dict, raw: str, humans: list[str], labels: list[list[str]]) -> Problem:
    statements = entry["problem_statements"]
    constraints = [frozenset(part) for part in entry["constraints_list"]]
    constraints[0] = frozenset()  # the files say 'this is the og problem' there
    kept = [0]  # a state that adds nothing repeats the one before
    for state in range(1, len(constraints)):
        if constraints[state] != constraints[kept[-1]]:
            kept.append(state)
    return Problem(
        id=entry["problem_id"],
        title=statements[0].split("\n", 1)[0].strip(),
        statements=tuple(re.sub(r"^- *\n", "", statements[state], flags=re.MULTILINE) for state in kept),
        constraints=tuple(constraints[state] for state in kept),
        samples=parse_samples(raw),
        humans=tuple(text.replace("\r\n", "\n") for text in humans),
        human_labels=tuple(frozenset(part) for part in labels),
    )


def parse_samples(statement: str) -> tuple[tuple[str, str], ...]:
    """(stdin, stdout) of every sample in a raw problem statement."""
    examples = re.search(r"\nExamples?\s*\n(.*)", statement, re.DOTALL)
    if examples is None:
        return ()
    text = re.split(r"\nNote\n", examples[1])[0]
    parts = re.findall(r"(?:^|\n)Input\n(.*?)\nOutput\n(.*?)(?=\nInput\n|\Z)", text, re.DOTALL)
    return tuple((stdin.strip("\n") + "\n", stdout.strip()) for stdin, stdout in parts)


def python_solutions(problem: Problem) -> list[str]:
    """A problem's human solutions in Python 3. Solutions that differ only in white space count once."""
    seen, kept = set(), []
    for text in problem.humans:
        try:
            techniques(text)
        except ValueError:
            continue
        if without_spaces(text) not in seen:
            seen.add(without_spaces(text))
            kept.append(text)
    return kept


def without_spaces(program: str) -> str:
    return "".join(program.split())
