"""Tasks from a labelled set: held-out prompts to complete, or held-out pairs to choose from."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.labelled_set import Example, read_examples
from ..data.written_prompt import AsPrompt
from ..foundation.sandbox import Sandbox
from .divergence import Text
from .grade import Grade
from .tasks import TaskSet, asks, grade_intact, paraphrases


PREFERS = "prefers label 1"

LOG_ODDS = "log-odds"
"""The measure of a pair: log-probability of the completion of label 1 minus that of label 0, in nats."""


@dataclass(frozen=True)
class LabelledTask:
    """completions: (of label 1, of label 0), if the prompt has both. For the other fields see `FileTask`."""

    prompt: str
    group: str
    shown: str = ""
    completions: tuple[str, str] | None = None
    shown_at: int = 0
    paraphrase: str = ""
    messages: tuple[dict, ...] = ()


def labelled_set(name: str, examples: Sequence[Example], header: str | None = None, pairs: bool = False) -> TaskSet:
    """The prompts of these examples, each once; with `pairs`, a task for each completion of label 1 with one of label
    0 of the same prompt, in their order. Divergence is measured on the completions of label 0. `meta["paraphrase"]` is
    the prompt in other words.

    Raises:
        ValueError: if `pairs` is set and no prompt has completions of both labels; if it is not set and every prompt
            is empty; if some prompts have a paraphrase and others do not.
    """
    by_prompt: dict[tuple[str, str], dict[int, list[Example]]] = defaultdict(lambda: {0: [], 1: []})
    for example in examples:
        by_prompt[example.prompt, example.group][example.label].append(example)
    texts = {"label 0 texts": [Text(e.prompt, e.completion, e.group) for e in examples if e.label == 0]}
    prompts = [Text("", prompt, group) for prompt, group in by_prompt if prompt]
    if prompts:
        texts["prompts"] = prompts
    tasks = []
    for (prompt, group), of_label in by_prompt.items():
        meta = (of_label[0] + of_label[1])[0].meta
        about = {key: meta[key] for key in ("shown", "shown_at", "paraphrase") if key in meta}
        task = LabelledTask(prompt, group, **about, messages=tuple(meta.get("messages", ())))
        if not pairs:
            tasks.append(task)
            continue
        for wanted, other in zip(of_label[1], of_label[0], strict=False):
            tasks.append(replace(task, completions=(wanted.completion, other.completion)))
    if not tasks:
        raise ValueError(
            f"{name}: no prompt has completions of both labels, so there is no pair to choose from; pass a --target: "
            "a regular expression, FILE.py:function or probe"
        )
    if not pairs and not any(task.prompt.strip() for task in tasks):
        raise ValueError(
            f"{name}: every prompt is empty, so there is nothing to complete; pass --tasks FILE.jsonl with prompts"
        )
    other = paraphrases(tasks, name)
    if pairs:
        return TaskSet(name, tasks, PREFERS, asks(header), _grade_pairs, texts, sound="", pairs=True, paraphrase=other)
    return TaskSet(name, tasks, "", asks(header), grade_intact, texts, sound="intact", paraphrase=other)


def damage_set(path: str, as_prompt: AsPrompt | None = None) -> TaskSet:
    """Pairs that have nothing to do with a behaviour, see `MeasureSettings`. Without `as_prompt` a file is checked.

    Raises:
        ValueError, OSError: as `read_examples` and `labelled_set`.
    """
    examples = read_examples(path, as_prompt or (lambda written, where: str(written)))
    return labelled_set(Path(path).name, examples, pairs=True)


def _grade_pairs(tasks: Sequence[LabelledTask], completions: Sequence[str], sandbox: Sandbox) -> list[Grade]:
    return [Grade(True, "", odds > 0, {LOG_ODDS: odds}) for odds in map(float, completions)]
