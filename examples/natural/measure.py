"""Whether ITI steers a model of natural code: fit on the training packages, choose on the validation packages, measure
once on the held-out ones.

`python -m iti_llama.examples.natural.measure` prints what README.md shows. Rows and tasks are drawn by the seed; of
every behaviour half of the prompts are places where its author did it, half where not, as far as there are such.
"""

import ast
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedTokenizerBase

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.data.text_baseline import text_baseline
from iti_llama.toolkit.fit.fit_directions import fit, to_directions
from iti_llama.toolkit.fit.positions import Policy, fits
from iti_llama.toolkit.fit.probes import auc
from iti_llama.toolkit.fit.rank_heads import solve_probes
from iti_llama.toolkit.fit.record_activations import Activations, capture
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.files import write_text
from iti_llama.toolkit.foundation.hashing import fingerprint_of
from iti_llama.toolkit.foundation.intervals import Estimate, estimate, paired
from iti_llama.toolkit.foundation.sandbox import LateSandbox
from iti_llama.toolkit.foundation.tokenize import prompt_ids
from iti_llama.toolkit.measure.divergence import Text
from iti_llama.toolkit.measure.evaluate import sweep_settings_of
from iti_llama.toolkit.measure.measure_steering import receipt
from iti_llama.toolkit.measure.saved_completions import SavedCompletions
from iti_llama.toolkit.measure.sweep import Point, choose, sweep, worse
from iti_llama.toolkit.measure.tasks import TaskSet
from iti_llama.toolkit.repo.fit_repo import load_base

from .behaviours import BEHAVIOURS, Behaviour, rows_of, task_set
from .corpus import Source, differences, sources
from .ngrams import NGrams
from .show import show
from .train import windows


@dataclass(frozen=True)
class Plan:
    """rows: of each label, that directions are fitted on; read: of each label, of held-out packages, that they are
    read on. validation, test: prompts. sampled: of the test prompts, two samples each at temperature 0.8. texts:
    held-out files that perplexity is measured on. free: modules sampled from nothing. guard: share of answers that
    parse that may be lost."""

    rows: int = 800
    read: int = 300
    validation: int = 60
    test: int = 200
    sampled: int = 100
    texts: int = 60
    free: int = 200
    top_ks: tuple[int, ...] = (12, 36)
    alphas: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
    guard: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Variant:
    """How directions are made, and where they act."""

    method: str = "mean-difference"
    policy: str = "fraction 0"
    scope: str = "all"
    site: str = "head"

    def __str__(self) -> str:
        where = {"fraction 0": "last prompt token", "completion-mean": "mean of the completion"}[self.policy]
        site = "" if self.site == "head" else ", after the output projection"
        return f"{self.method}, {where}, scope {self.scope}{site}"

    @property
    def read(self) -> tuple[str, str, str]:
        """What its directions depend on."""
        return self.policy, self.site, self.method


VARIANTS = (
    Variant(),
    Variant(scope="generated"),
    Variant(method="probe-weights"),
    Variant(policy="completion-mean"),
    Variant(site="residual"),
)
"""The paper's own choices, one changed at a time: positions that are shifted, probe directions, where it is read, and
whether a head's output is shifted or its slice of the attention output, after W_O, as older code did."""


def balanced(rows: Sequence[Example], n: int, seed: int) -> list[Example]:
    """At most `n` rows of each label, drawn."""
    drawn = random.Random(seed).sample(list(rows), len(rows))
    return [row for label in (0, 1) for row in [row for row in drawn if row.label == label][:n]]


def perplexity(
    model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, found: Sequence[Source], seed: int, order: int = 4
) -> dict:
    """Of the held-out packages, the model's and the n-grams' that have read all of the training packages, on the same
    tokens: those of 200 windows with at least `order - 1` tokens before them."""
    parts = {
        part: windows([source.text for source in found if source.part == part], tokenizer, 512)
        for part in ("train", "test")
    }
    counted = NGrams(parts["train"].flatten().numpy(), len(tokenizer), order)
    chosen = torch.randperm(len(parts["test"]), generator=torch.Generator().manual_seed(seed))[:200]
    ours, theirs = [], []
    for row in parts["test"][chosen].long():
        with torch.no_grad():
            logits = model(input_ids=row[None, :-1]).logits[0].float()
        losses = F.cross_entropy(logits, row[1:], reduction="none")[order - 2 :]
        ours.append(losses.double().mean().item())
        theirs.append(-np.log(counted.probabilities(row.numpy())).mean())
    groups = range(len(ours))
    change = paired(ours, theirs, groups)
    return {
        "model": np.exp(np.mean(ours)),
        "n-grams": np.exp(np.mean(theirs)),
        "order": order,
        "change of log-likelihood": asdict(replace(change, mean=-change.mean, low=-change.high, high=-change.low)),
        "tokens": len(ours) * (512 - order + 1),
    }


def parses(text: str) -> bool:
    """Whether a module that was cut off is Python up to its last statement, and has one before it."""
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if line[:1].strip() and not line.startswith((")", "]", "}"))]
    if len(starts) < 2:
        return False
    try:
        return bool(ast.parse("\n".join(lines[: starts[-1]])).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def free_samples(model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, n: int, seed: int) -> Estimate:
    """The share of modules, sampled at temperature 0.8 from nothing, that are Python up to where they were cut off."""
    torch.manual_seed(seed)
    texts = complete(model, tokenizer, [""] * n, max_new_tokens=256, do_sample=True, temperature=0.8)
    return estimate([parses(text) for text in texts], range(n))


def auc_of(scores: np.ndarray, y: np.ndarray, groups: Sequence[str], baseline: np.ndarray | None = None) -> Estimate:
    """The AUC with its interval, bootstrapped by group; with `baseline`, how much it is above that one's."""

    def value(rows: np.ndarray) -> float:
        own = auc(columns[rows], y[rows])
        return float(own[0] - own[1] if baseline is not None else own[0])

    columns = np.column_stack([scores] if baseline is None else [scores, baseline])
    members = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    rng, names, drawn = np.random.default_rng(0), list(members), []
    while len(drawn) < 1000:
        rows = np.concatenate([members[names[i]] for i in rng.integers(0, len(names), len(names))])
        if 0 < y[rows].sum() < len(rows):
            drawn.append(value(rows))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value(np.arange(len(y))), float(low), float(high), len(y), len(names))


def reading(
    fitted: Sequence[Example],
    activations: Activations,
    best: int,
    held_out: Sequence[Example],
    held_out_activations: Activations,
    settings: FitSettings,
) -> dict[str, dict]:
    """AUC on rows of held-out packages, of what was trained on the training packages: the words of the prompt, the
    best head, all heads together. {} where the held-out rows have one label."""
    y, truth = (np.array([row.label for row in rows]) for rows in (fitted, held_out))
    if len(set(truth)) < 2:
        return {}
    folds = np.array([0] * len(fitted) + [1] * len(held_out))
    texts = [row.prompt for row in (*fitted, *held_out)]
    words = text_baseline(texts, np.concatenate([y, truth]), folds)[len(fitted) :]
    x, new = (found.heads.flatten(1, 2).double() for found in (activations, held_out_activations))
    head = solve_probes(x[:, [best]], y, settings).decision(new[:, [best]]).numpy()[:, 0]
    joint = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=2000))
    every = joint.fit(x.flatten(1).numpy(), y).decision_function(new.flatten(1).numpy())
    groups = [row.group for row in held_out]
    return {
        "words": asdict(auc_of(words, truth, groups)),
        "best head": asdict(auc_of(head, truth, groups)),
        "all heads": asdict(auc_of(every, truth, groups)),
        "all heads above words": asdict(auc_of(every, truth, groups, words)),
    }


@dataclass
class Bench:
    """What the behaviours share. found: the files of the corpus; out: where results go; say: told as it goes."""

    model: ITILlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    found: Sequence[Source]
    plan: Plan
    out: Path
    say: Callable[[str], None]

    def rows(self, behaviour: Behaviour, part: str) -> list[Example]:
        """The rows of a part that leave room for an answer, with and without the example above."""
        rows = rows_of(behaviour, [source for source in self.found if source.part == part])
        tasks = task_set(behaviour, part, rows, {})
        room = self.model.config.max_position_embeddings - behaviour.max_new_tokens
        return [
            row
            for row, task in zip(rows, tasks.tasks, strict=True)
            if len(prompt_ids(self.tokenizer, tasks.asked(task))) <= room
        ]

    def texts(self, part: str) -> dict[str, list[Text]]:
        """Code that steering should leave alone: the beginnings of files."""
        files = [source for source in self.found if source.part == part]
        drawn = random.Random(self.plan.seed).sample(files, min(self.plan.texts, len(files)))
        return {"code": [Text("", source.text[:900], f"{source.package}/{source.name}") for source in drawn]}

    def tasks(self, behaviour: Behaviour, part: str, n: int) -> TaskSet:
        """`n` prompts in an order by chance, half of each label; where there are fewer of one, more of the other."""
        rows, seed = self.rows(behaviour, part), self.plan.seed
        fewer = min(sum(row.label == label for row in rows) for label in (0, 1))
        found = balanced(rows, max(n // 2, n - fewer), seed)
        return task_set(behaviour, part, random.Random(seed).sample(found, len(found)), self.texts(part))


def fitted_variants(
    bench: Bench, behaviour: Behaviour
) -> tuple[dict[tuple[str, str, str], ITIDirections], dict[str, object]]:
    """({`Variant.read`: directions of all heads, best first}, what is read where)."""
    plan, model, tokenizer = bench.plan, bench.model, bench.tokenizer
    whole, longest = Policy.parse("completion-mean"), model.config.max_position_embeddings
    drawn = balanced(bench.rows(behaviour, "train"), plan.rows, plan.seed)
    rows = [row for row in drawn if fits(row, whole, tokenizer, longest)]
    held_out = balanced(bench.rows(behaviour, "test"), plan.read, plan.seed)
    heads, found, said = model.config.num_hidden_layers * model.config.num_attention_heads, {}, {}
    captured = {
        policy: capture(model, tokenizer, rows, Policy.parse(policy)) for policy in {v.policy for v in VARIANTS}
    }
    for policy, site, method in dict.fromkeys(variant.read for variant in VARIANTS):
        read, activations = Policy.parse(policy), captured[policy]
        if site == "residual":
            activations = replace(activations, heads=after_projection(model, activations.heads))
        settings = FitSettings(method=method, top_k=heads, permutations=0, seed=plan.seed)
        one = fit(activations, rows, read, settings)
        own = to_directions(one, activations, rows, read, "natural", behaviour.name)
        own = replace(own, site=site, provenance=own.provenance | {"behaviour": behaviour.phrase})
        found[policy, site, method] = own
        if not said:
            new = capture(model, tokenizer, held_out, read)
            said = {
                "rows": len(rows),
                "best head": divmod(int(one.ranking[0]), model.config.num_attention_heads),
                "out-of-fold AUC": float(one.out_of_fold_auc[one.ranking[0]]),
                "words, out-of-fold AUC": one.text_auc,
                "held out": reading(rows, activations, int(one.ranking[0]), held_out, new, settings),
            }
    return found, said


def after_projection(model: ITILlamaForCausalLM, heads: torch.Tensor) -> torch.Tensor:
    """What the output projections make of the heads' outputs, cut into slices as if they were heads': both
    [rows, layers, heads, head_dim]."""
    weights = torch.stack([layer.self_attn.o_proj.weight.detach() for layer in model.model.layers]).to(heads)
    return torch.einsum("rlw,low->rlo", heads.flatten(2), weights).unflatten(2, heads.shape[2:])


def chosen_point(
    bench: Bench, behaviour: Behaviour, directions: dict[tuple[str, str, str], ITIDirections]
) -> tuple[Variant | None, Point | None, list[dict]]:
    """(variant, point, curve): the best by the rule of `sweep` over all variants, on the validation packages."""
    plan, model, curve, best = bench.plan, bench.model, [], []
    tasks = bench.tasks(behaviour, "validation", plan.validation)
    for variant in VARIANTS:
        own = directions[variant.read]
        model.set_iti_directions(own)
        store = SavedCompletions(
            bench.out / f"{behaviour.name}-{fingerprint_of(own)[:8]}-{variant.scope}.jsonl",
            sweep_settings_of(model, tasks),
        )
        points = sweep(
            model, bench.tokenizer, tasks, plan.top_ks, plan.alphas, [variant.scope], LateSandbox(),
            store=store, one_way=True,
        )  # fmt: skip
        curve += [{"variant": str(variant)} | point.to_dict() for point in points]
        point = choose(points, plan.guard)
        best += [(worse(point), variant, point)] if point else []
        bench.say(f"{behaviour.name}, {variant}: {_told(point, points)}")
    _, variant, point = min(best, key=lambda one: one[0], default=(None, None, None))
    return variant, point, curve


def _told(point: Point | None, points: Sequence[Point]) -> str:
    plain = f"plain {points[0].at.both.percent()}"
    if point is None:
        return f"no point beats {plain} inside the guard"
    return f"alpha {point.alpha:g}, {point.top_k} heads: {point.at.both.percent()}, {plain}"


def measured(bench: Bench, behaviour: Behaviour) -> dict:
    """Everything of one behaviour, as JSON types."""
    model, tokenizer, plan = bench.model, bench.tokenizer, bench.plan
    model.iti_alpha = 0.0  # directions are read in the plain model
    directions, read = fitted_variants(bench, behaviour)
    variant, point, curve = chosen_point(bench, behaviour, directions)
    found = {"behaviour": behaviour.phrase, "reading": read, "curve": curve, "chosen": None}
    if point is None:
        return found
    found["chosen"] = {"variant": str(variant), "alpha": point.alpha, "top_k": point.top_k, "scope": point.scope}
    own = directions[variant.read].top(point.top_k)
    own.save(bench.out / f"{behaviour.name}.safetensors")
    model.set_iti_directions(own)
    model.iti_alpha, model.iti_scope, model.iti_top_k = point.alpha, point.scope, None
    tasks = bench.tasks(behaviour, "test", plan.test)
    few = replace(tasks, tasks=random.Random(plan.seed).sample(tasks.tasks, min(plan.sampled, len(tasks))))
    ask = partial(receipt, model, tokenizer, sandbox=LateSandbox(), guard=plan.guard, seed=plan.seed)
    greedy = ask(tasks, gates=True, completions=bench.out / f"{behaviour.name}-greedy.jsonl")
    sampled = ask(few, samples=2, temperature=0.8, completions=bench.out / f"{behaviour.name}-sampled.jsonl")
    return found | {"greedy": greedy.found, "sampled": sampled.found}


def main(
    model: Annotated[Path, typer.Option(help="folder that `train` wrote")] = Path("build/natural"),
    out: Annotated[Path, typer.Option(help="folder for results, directions and answers")] = Path("build/natural-out"),
    readme: Annotated[Path | None, typer.Option(help="document whose part 'natural' is replaced")] = None,
    figure: Annotated[Path | None, typer.Option(help="PNG of the validation curves")] = None,
    summary: Annotated[Path | None, typer.Option(help="document whose part 'natural' gets the short table")] = None,
) -> None:
    """Fit, choose, and measure once, every behaviour; a killed run does not answer again what it answered."""
    out.mkdir(parents=True, exist_ok=True)
    found, plan = sources(), Plan()
    typer.echo(differences(found))
    llama, tokenizer = load_base(model, dtype="float32")
    bench = Bench(llama, tokenizer, found, plan, out, typer.echo)
    results = {
        "parameters": sum(p.numel() for p in llama.parameters()),
        "files": {part: sum(source.part == part for source in found) for part in ("train", "validation", "test")},
        "perplexity": perplexity(llama, tokenizer, found, plan.seed),
        "free samples that parse": asdict(free_samples(llama, tokenizer, plan.free, plan.seed)),
        "plan": asdict(plan),
        "behaviours": {},
    }
    for behaviour in BEHAVIOURS:
        results["behaviours"][behaviour.name] = measured(bench, behaviour)
        write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    typer.echo(show(results, readme, figure, summary))


if __name__ == "__main__":
    typer.run(main)
