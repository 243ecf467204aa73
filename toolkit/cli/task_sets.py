"""The task sets and targets that words on the command line stand for."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..bundled.tasks import corpus_set
from ..data.labelled_set import is_labelled, read_examples
from ..data.read_table import SUFFIXES
from ..data.splits import halves
from ..foundation.package import BUNDLED
from ..foundation.sandbox import Sandbox
from ..foundation.tokenize import chat_prompt
from ..measure.keep_labelled_set import FILE, read_part
from ..measure.labelled_tasks import labelled_set
from ..measure.target import matches, predicate, probe, with_target
from ..measure.tasks import TaskSet, asks, file_set
from ..neocoder.neocoder_tasks import calibrated, neocoder_set, strengthened
from ..neocoder.problems import load as load_neocoder


NAMES = "corpus:PART, held-out:PART, neocoder:STATE, neocoder158:STATE, or a .jsonl, .json or .csv file"


@dataclass(frozen=True)
class Asked:
    """What a command was told: the options `--tasks`, `--target`, `--header`, `--n`, `--seed`, `--source`,
    `--stronger` and `--max-new-tokens`, and the folder of the repo, "" for one on the Hub. halved: of the tasks of a
    file, each part has half the groups, so that none is chosen and measured on."""

    tasks: str | None
    target: str | None
    header: str | None
    n: int
    seed: int
    folder: str = ""
    source: str = "neocoder"
    stronger: bool = False
    max_new_tokens: int | None = None
    halved: bool = False

    @property
    def labelled(self) -> Path | None:
        """The labelled set that the repo keeps."""
        path = Path(self.folder, FILE)
        return path if self.folder and path.is_file() else None

    def name(self, part: str) -> str:
        """The tasks: those asked for, or the held-out part of the repo's own labelled set."""
        if self.tasks is not None:
            return self.tasks
        if self.labelled is not None:
            return f"held-out:{part}"
        if self.folder and _is_bundled(Path(self.folder)):
            return f"corpus:{part}"
        raise ValueError(f"no --tasks, and the repo keeps no {FILE} as `fit` writes it; expected {NAMES}")


def task_set_of(asked: Asked, part: str, tokenizer, sandbox: Sandbox, advance) -> TaskSet:
    """The tasks of a part ("validation" or "test"), with the target that was asked for, or else their own.

    Raises:
        ValueError: naming the option.
    """
    found = _tasks_of(asked, asked.name(part), tokenizer, sandbox, advance)
    if found.sound == "correct":
        sandbox.prove()  # before the answers, which take longer
    if asked.halved and asked.tasks is not None:
        groups = halves([task.group for task in found.tasks], asked.seed)[part == "test"]
        found = replace(found, tasks=[task for task in found.tasks if task.group in groups])
    found = replace(found, tasks=found.tasks[: asked.n])
    if found.pairs or not found.target:
        prompts = {task.prompt for task in found.tasks}
        texts = {name: [t for t in own if t.prompt in prompts] or own for name, own in found.texts.items()}
        found = replace(found, texts=texts)
    if asked.header is not None:
        found = replace(found, asked=asks(asked.header))
    if asked.max_new_tokens is not None:
        found = replace(found, max_new_tokens=asked.max_new_tokens)
    if asked.target in (None, "labels"):
        return found
    if asked.target == "probe":
        if asked.labelled is None:
            raise ValueError(f"--target is 'probe', but the repo keeps no {FILE} to fit it on")
        target = probe(read_part(asked.labelled.parent, "fit"), read_part(asked.labelled.parent, "validation", "test"))
    else:
        file, _, function = asked.target.rpartition(":")
        is_predicate = file.endswith(".py") and function.isidentifier()
        if is_predicate:
            sandbox.prove()
        target = predicate(asked.target, sandbox) if is_predicate else matches(asked.target)
    return with_target(found, target)


def _tasks_of(asked: Asked, name: str, tokenizer, sandbox: Sandbox, advance) -> TaskSet:
    kind, _, part = name.partition(":")
    pairs = asked.target in (None, "labels")
    if kind == "held-out" and part in ("validation", "test"):
        if asked.labelled is None:
            raise ValueError(f"--tasks is {name!r}, but the repo keeps no {FILE}; expected {NAMES}")
        return labelled_set(name, read_part(asked.labelled.parent, part), asked.header, pairs)
    if name.endswith(SUFFIXES):
        path, as_prompt = Path(name), partial(chat_prompt, tokenizer)
        if is_labelled(path):
            return labelled_set(path.stem, read_examples(path, as_prompt), asked.header, pairs)
        if asked.target == "labels":
            raise ValueError(f"--target is 'labels', but {name} has no labels; expected rows of completion and label")
        return file_set(path, asked.header, as_prompt)
    if asked.target == "labels":
        raise ValueError(f"--target is 'labels', but {name} is no labelled set")
    if kind == "corpus" and part in ("test", "validation"):
        return corpus_set(part, asked.n, asked.seed)
    if kind in ("neocoder", "neocoder158") and part.isdecimal():
        problems = load_neocoder(Path(asked.source))
        if kind == "neocoder158":
            problems = calibrated(problems, sandbox, partial(advance, "calibrate"))
        problems = problems[: asked.n]
        if asked.stronger:
            more = partial(advance, "make tests")
            problems = strengthened(problems, sandbox, seed=asked.seed, progress=more)
        return neocoder_set(problems, int(part), tokenizer, kind)
    raise ValueError(f"--tasks is {name!r}; expected {NAMES}")


def _is_bundled(folder: Path) -> bool:
    """Whether a repo is of the bundled model: its directions were made for it."""
    path = folder / "iti_directions.safetensors"
    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("base_model") == BUNDLED
    except (OSError, SafetensorError):
        return False
