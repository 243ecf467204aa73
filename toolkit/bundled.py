"""The model that the repo itself is: where it lies, and the tasks it is shown on."""

from pathlib import Path

from .corpus import Task, classics, sample_tasks


ROOT = Path(__file__).resolve().parent.parent
"""The folder of the bundled model: the root of the repo, or of the installed package."""


def classic(name: str, docstring: str) -> Task:
    """A named classic in one of its wordings."""
    return next(task for task in classics() if task.group == f"classic:{name}" and task.docstring == docstring)


def demo_tasks(n: int = 3) -> list[tuple[str, Task]]:
    """`n` tasks, each with where it comes from: "check if a number is prime", then the first held-out tasks, by index."""
    prime = classic("prime", "Check if a number is prime.")
    held_out = sample_tasks("test", n - 1, seed=0) if n > 1 else []
    return [("a classic of the training corpus", prime), *(("held out from training", task) for task in held_out)]
