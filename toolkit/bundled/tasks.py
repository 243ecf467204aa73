"""The tasks that the bundled model is shown and measured on."""

from ..measure.divergence import Text
from ..measure.grade import grade
from ..measure.tasks import TaskSet
from .corpus import HEADERS, Task, classic, paraphrased, sample_tasks


def _in_another_case(text: str) -> str:
    return text.lower() if text != text.lower() else text[0].upper() + text[1:]


def _with_another_end(text: str) -> str:
    return text[:-1] if text.endswith((".", "?")) else text + "."


PHRASINGS = (
    ("in another case", lambda task: task.prompt.replace(task.docstring, _in_another_case(task.docstring))),
    ("with another end", lambda task: task.prompt.replace(task.docstring, _with_another_end(task.docstring))),
    ("under a comment", lambda task: f"# part of a larger module\n{task.prompt}"),
    ("as a function called f", lambda task: task.prompt.replace(f"def {task.name}(", "def f(")),
)


def demo_tasks(n: int = 3) -> list[tuple[str, Task]]:
    """`n` tasks, each with where it comes from: "check if a number is prime", then the first held-out tasks, by
    index."""
    prime = classic("prime", "Check if a number is prime.")
    held_out = sample_tasks("test", n - 1, seed=0) if n > 1 else []
    return [("a classic of the training corpus", prime), *(("held out from training", task) for task in held_out)]


def corpus_set(split: str, n: int, seed: int = 0) -> TaskSet:
    """`n` held-out tasks of the bundled corpus."""
    tasks, header = sample_tasks(split, n, seed), HEADERS["idiomatic"][0] + "\n"
    texts = {
        f"{style} code": [Text(task.prompt, task.solutions[style] + "\n", task.group) for task in tasks]
        for style in ("plain", "idiomatic")
    }
    texts["prompts"] = [Text("", task.prompt, task.group) for task in tasks]
    return TaskSet(
        f"corpus:{split}", tasks, "idiomatic", lambda task: header + task.prompt, grade, texts,
        phrasings=PHRASINGS, paraphrase=lambda task: paraphrased(task).prompt,
    )  # fmt: skip
