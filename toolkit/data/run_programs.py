"""Take the program out of a model's answer, and run programs on the samples of their problems."""

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..foundation.sandbox import Sandbox


def parse(program: str) -> ast.Module:
    """The syntax tree of a program, without Python's warnings about its style.

    Raises:
        ValueError: if it is not Python 3.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"not Python 3: {error}") from None


def extract_code(text: str) -> str:
    """The program in a model's answer: the first fenced block, even without its closing fence; else everything from
    the first import or definition on."""
    fence = re.search(r"```(?:python3?|py)?[ \t]*\n(.*?)(?:\n```|\Z)", text, re.DOTALL | re.IGNORECASE)
    if fence:
        return fence[1] + "\n"
    start = re.search(r"^(?:import|from|def|class|for|while|n\b|t\b)", text, re.MULTILINE)
    return (text[start.start() :] if start else text).rstrip() + "\n"


def runnable(program: str) -> str:
    """The program, with a call of `solve()` at the end if it defines `solve` and never calls it."""
    try:
        tree = parse(program)
    except ValueError:
        return program
    defined = any(isinstance(n, ast.FunctionDef) and n.name == "solve" and not n.args.args for n in tree.body)
    called = any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "solve" for n in ast.walk(tree)
    )
    return program + "\nsolve()\n" if defined and not called else program


@dataclass(frozen=True)
class Outcome:
    """How a program did on the samples. ran: it reached its end without an error."""

    passed: bool
    ran: bool


def run_samples(
    programs: Sequence[str],
    samples: Sequence[Sequence[tuple[str, str]]],
    sandbox: Sandbox,
    progress: Callable[[int], None] = lambda programs: None,
) -> list[Outcome]:
    """Run each program on its samples. Answers are compared by tokens, whatever their case. The sandbox gets only the
    input."""
    jobs = [(runnable(p), stdin, stdout) for p, own in zip(programs, samples, strict=True) for stdin, stdout in own]
    unique = {(program, stdin): None for program, stdin, _ in jobs}
    done = {}
    keys = list(unique)
    for at in range(0, len(keys), 64):
        part = keys[at : at + 64]
        done.update(zip(part, sandbox.run_all(part), strict=True))
        progress(len(part))
    outcomes, at = [], 0
    for own in samples:
        mine = jobs[at : at + len(own)]
        at += len(own)
        runs = [(done[program, stdin], stdout) for program, stdin, stdout in mine]
        ran = bool(runs) and all(run.returncode == 0 and not run.stopped for run, _ in runs)
        passed = ran and all(run.stdout.lower().split() == stdout.lower().split() for run, stdout in runs)
        outcomes.append(Outcome(passed, ran))
    return outcomes
