"""The task sets that the command line can name, including those of the bundled model and of NeoCoder."""

from functools import partial
from pathlib import Path

from iti_llama.iti_directions import FIELDS, ITIDirections

from ..foundation.package import BUNDLED
from ..foundation.sandbox import Sandbox
from ..measure.bundled_tasks import corpus_set
from ..measure.keep_labelled_set import FILE
from ..measure.request_tasks import check_own_prompts, finish_tasks, kept_set, read_tasks
from ..measure.settings import TaskRequest
from ..measure.tasks import TaskSet
from ..neocoder.neocoder_tasks import calibrated, neocoder_set, strengthened
from ..neocoder.problems import load as load_neocoder


NAMES = "corpus:PART, held-out:PART, neocoder:STATE, neocoder158:STATE, or a .jsonl, .json or .csv file"


def name_tasks(request: TaskRequest, part: str) -> str:
    """The name of the tasks: those asked for, or the held-out part of the repo's labelled set.

    Raises:
        ValueError: if there are no such tasks.
    """
    if request.tasks is not None:
        return request.tasks
    if kept_set(request) is not None:
        return f"held-out:{part}"
    if request.folder and _is_bundled(Path(request.folder)):
        return f"corpus:{part}"
    raise ValueError(f"no --tasks, and the repo keeps no {FILE} as `fit` writes it; expected {NAMES}")


def find_tasks(
    request: TaskRequest, part: str, tokenizer, sandbox: Sandbox, advance, source: str = "", stronger: bool = False
) -> TaskSet:
    """The tasks of a part ("validation" or "test"), with the target that was asked for, or else their own. source:
    NeoCoder's folder. stronger: whether tests are added to NeoCoder.

    Raises:
        ValueError: naming the option.
    """
    name = name_tasks(request, part)
    kind, _, which = name.partition(":")
    is_corpus = kind == "corpus" and which in ("test", "validation")
    is_neocoder = kind in ("neocoder", "neocoder158") and which.isdecimal()
    if is_corpus or is_neocoder:
        check_own_prompts(request, name)
    if not (is_corpus or is_neocoder):
        tasks = read_tasks(request, name, tokenizer, NAMES)
    elif request.target == "labels":
        raise ValueError(f"--target is 'labels', but {name} is not a labelled set")
    elif is_corpus:
        tasks = corpus_set(which, request.n, request.seed)
    else:
        problems = load_neocoder(Path(source))
        if kind == "neocoder158":
            problems = calibrated(problems, sandbox, partial(advance, "calibrate"))
        problems = problems[: request.n]
        if stronger:
            more = partial(advance, "make tests")
            problems = strengthened(problems, sandbox, seed=request.seed, progress=more)
        tasks = neocoder_set(problems, int(which), tokenizer, kind)
    return finish_tasks(request, part, tasks, sandbox)


def _is_bundled(folder: Path) -> bool:
    """Whether a repo belongs to the bundled model: its directions were made for that model."""
    try:
        directions = ITIDirections.load(folder / FIELDS["iti_directions_file"], framework="np")
    except (OSError, ValueError):
        return False
    return directions.base_model == BUNDLED
