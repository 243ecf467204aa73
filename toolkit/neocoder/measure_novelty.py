"""Answers to Python tasks, plain and steered, judged by tests and by syntax trees.

Finished answers and numbers are kept in a folder, and are left alone when the same command runs again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..data.run_programs import extract_code
from ..foundation.files import write_text
from ..foundation.intervals import Estimate, estimate, paired
from ..foundation.sandbox import Sandbox
from ..foundation.tokenize import completion_ids, prompt_ids
from ..measure.conditions import Condition, random_directions, standard_conditions, under
from ..measure.divergence import Text
from ..measure.evaluate import Answers, answer, divergence_of, sweep_settings_of
from ..measure.saved_completions import SavedCompletions
from ..measure.sweep import alpha_of_kl
from ..measure.tasks import TaskSet
from .code_tasks import kinds


INSTRUCTIONS = ("Use an unusual approach.", "Write it as one expression.")
"""What the prompt says in words. The first is also said to the steered model."""

AUTHOR = "the author's solution"
"""Not a condition of the model: what the tests and the sandbox let pass at most."""

TEXTS, TOLERANCE = 12, 0.05
"""How many plain answers KL is measured on; how near to the budget's strength the search ends, relatively."""


@dataclass(frozen=True)
class Row:
    """One condition on one set. new: the share of answers whose syntax tree has a kind of node that the plain answer
    lacks, if both parse. both: the share that is new and correct. characters: length of the program. kl: nats a token,
    on plain answers; None where the prompt differs."""

    tasks: str
    condition: str
    alpha: float
    correct: Estimate
    correct_change: Estimate
    new: Estimate
    both: Estimate
    parses: Estimate
    characters: Estimate
    kl: Estimate | None


def kept(path: Path, settings: dict, make: Callable[[], object]):
    """What `make` returns, as JSON types: from the file if it is there, else made and written.

    Raises:
        ValueError: if the file holds what other settings made.
    """
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["settings"] != settings:
            found = f"was made with {held['settings']}; this run's settings are {settings}"
            raise ValueError(f"{path}: {found}. Choose another --out, or delete the file")
        return held["result"]
    write_text(path, json.dumps({"settings": settings, "result": make()}) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))["result"]


@dataclass
class Measuring:
    """A model whose answers are measured, and the folder that keeps them. prompts, written: tokens of the prompts and
    of the answers so far."""

    model: ITILlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    sandbox: Sandbox
    out: Path
    batch_size: int
    progress: Callable[[str, int | None], None]
    prompts: int = 0
    written: int = 0

    def answer(self, task_set: TaskSet, condition: Condition, samples: int = 1) -> Answers:
        """The answers of a condition, whose name holds what is said in words. Those that the folder holds are not
        given again."""
        settings = sweep_settings_of(self.model, replace(task_set, asked=None)) | {"samples": samples}
        store = SavedCompletions(self.out / f"answers-{task_set.name.replace(':', '-')}.jsonl", settings)
        named = replace(condition, name=f"{condition.name}, alpha {condition.alpha:g}")
        answers = answer(
            self.model, self.tokenizer, task_set, named, self.sandbox, samples, store=store,
            batch_size=self.batch_size, progress=lambda n: self.progress("answers", n),
        )  # fmt: skip
        ask = task_set.asked if condition.asked else task_set.prompt_of
        self.prompts += samples * sum(len(prompt_ids(self.tokenizer, ask(task))) for task in task_set.tasks)
        self.written += sum(len(completion_ids(self.tokenizer, text)) for text in answers.completions)
        return answers

    def measure(self, sets: Sequence[Sequence[TaskSet]], budget: float) -> tuple[float, list[Row]]:
        """The strength that meets the KL budget, and the rows. `sets`: those of each instruction."""
        plain = [self.answer(task_set, Condition("plain")) for task_set in sets[0]]
        texts = _texts(sets[0], plain)
        held = {"kl_budget": budget, "sets": [sweep_settings_of(self.model, task_set) for task_set in sets[0]]}
        alpha, of_random = kept(self.out / "alpha.json", held, lambda: self._strengths(texts, budget))
        conditions = standard_conditions(self.model, alpha, asked=False)
        conditions.append(replace(self._random(of_random), name="random 1 at the same KL"))
        costs = kept(self.out / "divergence.json", held, lambda: self._costs(texts, conditions))
        told = [(Condition(f'told "{words}"', asked=True), i) for i, words in enumerate(INSTRUCTIONS)]
        both = Condition(f"steered, {told[0][0].name}", alpha, asked=True), 0
        rows = []
        for at, before in enumerate(plain):
            for condition, instruction in [*((condition, 0) for condition in conditions), *told, both]:
                task_set, is_plain = sets[instruction][at], condition.name == "plain"
                answers = before if is_plain else self.answer(task_set, condition)
                cost = Estimate(**costs[condition.name]) if condition.name in costs else None
                rows.append(row_of(task_set, condition, answers, before, cost))
            rows.append(row_of(sets[0][at], Condition(AUTHOR), self._of_authors(sets[0][at]), before, None))
        return alpha, rows

    def _random(self, alpha: float) -> Condition:
        """The first random draw."""
        return Condition("random 1", alpha, random_directions(self.model.iti_directions, 1))

    def _of_authors(self, task_set: TaskSet) -> Answers:
        texts = [f"```python\n{task.solution}\n```" for task in task_set.tasks]
        return Answers(AUTHOR, 1, texts, task_set.grade(task_set.tasks, texts, self.sandbox))

    def _strengths(self, texts: Sequence[Text], budget: float) -> list[float]:
        """Those that meet the budget: along the directions, and along the first random draw."""
        self.progress("the strength of the budget", None)
        strengths = []
        for condition in (Condition("steered"), self._random(1.0)):
            with under(self.model, condition):
                alpha, _ = alpha_of_kl(self.model, self.tokenizer, texts, budget, tolerance=TOLERANCE)
            strengths.append(float(f"{alpha:.3g}"))
        return strengths

    def _costs(self, texts: Sequence[Text], conditions: Sequence[Condition]) -> dict[str, dict]:
        costs = divergence_of(self.model, self.tokenizer, texts, conditions, lambda n: self.progress("KL", n))
        return {name: asdict(cost.kl) for name, cost in costs.items()}


def _texts(sets: Sequence[TaskSet], plain: Sequence[Answers]) -> list[Text]:
    """The first plain answers of each set, in turn."""
    texts = []
    for at in range(max(map(len, sets))):
        for task_set, answers in zip(sets, plain, strict=True):
            if at < len(task_set) and answers.completions[at].strip():
                task = task_set.tasks[at]
                texts.append(Text(task.prompt, answers.completions[at], f"{task_set.name}, {task.group}"))
    return texts[:TEXTS]


def row_of(task_set: TaskSet, condition: Condition, answers: Answers, plain: Answers, kl: Estimate | None) -> Row:
    """A condition's answers beside the plain ones to the same tasks."""
    groups = [task.group for task in task_set.tasks]
    programs, before = ([extract_code(text) for text in held.completions] for held in (answers, plain))
    parsed = [(kinds(program), kinds(other)) for program, other in zip(programs, before, strict=True)]
    new = [own is not None and other is not None and bool(own - other) for own, other in parsed]
    return Row(
        tasks=task_set.name,
        condition=condition.name,
        alpha=condition.alpha,
        correct=estimate(answers.correct, groups),
        correct_change=paired(answers.correct, plain.correct, groups),
        new=estimate(new, groups),
        both=estimate([a and b for a, b in zip(new, answers.correct, strict=True)], groups),
        parses=estimate([own is not None for own, _ in parsed], groups),
        characters=estimate([len(program.strip()) for program in programs], groups),
        kl=kl,
    )
