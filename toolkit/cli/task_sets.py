"""The task sets that a name on the command line stands for."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from ..bundled.corpus import HEADERS
from ..bundled.tasks import corpus_set
from ..data.neocoder import load as load_neocoder
from ..foundation.sandbox import Sandbox
from ..measure.neocoder_tasks import calibrated, neocoder_set, strengthened
from ..measure.tasks import TaskSet, file_set


def task_set_of(
    name: str, n: int, seed: int, tokenizer, source: str, stronger: bool, sandbox: Sandbox, advance
) -> TaskSet:
    """The tasks that a name stands for."""
    kind, _, part = name.partition(":")
    if kind == "corpus" and part in ("test", "validation"):
        return corpus_set(part, n, seed)
    if kind in ("neocoder", "neocoder158") and part.isdecimal():
        problems = load_neocoder(Path(source))
        if kind == "neocoder158":
            problems = calibrated(problems, sandbox, partial(advance, "calibrate"))
        problems = problems[:n]
        if stronger:
            problems = strengthened(problems, sandbox, seed=seed, progress=partial(advance, "make tests"))
        return neocoder_set(problems, int(part), tokenizer, kind)
    if name.endswith(".jsonl"):
        found = file_set(Path(name), HEADERS["idiomatic"][0] + "\n")
        return replace(found, tasks=found.tasks[:n])
    raise ValueError(
        f"--tasks is {name!r}; expected corpus:test, corpus:validation, neocoder:STATE, neocoder158:STATE, or a "
        ".jsonl file"
    )
