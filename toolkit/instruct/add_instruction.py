"""A second sentence for a repo that was made from one: its behaviour is made in a folder of its own, measured beside
the first one, and then joined to the repo."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from transformers import AutoTokenizer

from iti_llama import ITILlamaForCausalLM

from ..fit.report import write_report
from ..foundation.files import write_text
from ..foundation.hashing import fingerprint, fingerprint_of
from ..foundation.intervals import estimate
from ..measure.degenerate import degenerate
from ..measure.divergence import Text, measure_divergence
from ..measure.keep_labelled_set import FILE, read_parts
from ..measure.kept import AnswerClassifier, kept_share
from ..measure.saved_completions import SavedCompletions
from ..repo.card import check_card, renew_card
from ..repo.folder import only_run
from ..repo.open_repo import read_object
from ..repo.run_pipeline import RunResult, no_progress
from ..repo.settings import RunSettings
from ..repo.steered_repo import SteeredRepo
from .own_answers import OwnAnswers
from .run_instruction import TEXTS, InstructionResult, hash_run, requests_for, run_instruction
from .say_instruction import Prompts
from .settings import Instruction


def add_instruction(
    settings: RunSettings,
    wanted: Instruction,
    name: str,
    progress: Callable = no_progress,
    say: Callable[[str], None] = lambda line: None,
    command: str = "",
) -> RunResult:
    """Like `run_instruction`, but the sentence becomes a second behaviour, called `name`, of the repo `settings.out`.
    The folder `OUT-NAME` gets a repo of the second behaviour alone. The first one's repo changes at the end, when both
    are measured. Returns the report and the sweep of the second behaviour, and the evaluation of the repo.

    Raises:
        ValueError, OSError: as `run_instruction`; if the repo is not a finished one of one sentence, has another base,
            or was measured with another number of tokens; if no strength can be chosen.
        FileExistsError: if it has a behaviour of this name that was made from something else.
    """
    out = Path(settings.out)
    repo = _first_repo(out)
    repo.check_addition(name, overwrite=True)
    tokens = repo.evaluation["max_new_tokens"]
    if settings.max_new_tokens not in (None, tokens):
        given = settings.max_new_tokens
        raise ValueError(f"--max-new-tokens is {given}; expected {tokens}, with which {out} was measured")
    held = repo.default_directions.base_model
    if settings.base_name not in (None, held):
        raise ValueError(f"--base-name is {settings.base_name!r}; expected {held!r}, the base of {out}")
    alone = out.with_name(f"{out.name}-{name}")
    own = replace(settings, out=alone, base_name=held, max_new_tokens=tokens, scope=repo.scope)  # a config has one
    requests = requests_for(settings, wanted)
    report_path, sweep_path = (out / f"{record}.{name}.json" for record in ("iti_report", "sweep"))
    if name in repo.behaviours:
        report = read_object(report_path) if report_path.is_file() else {}
        made_of = hash_run(own, wanted, requests, tokens)
        if report.get("instruction", {}).get("made_of") != made_of:
            raise FileExistsError(f"{out}: has a behaviour {name!r} that was made otherwise; choose another --name")
        renew_card(out)  # a kill may have come before it
        say(f"{out} has {name} already, and nothing is left to do")
        return RunResult(out, report, read_object(sweep_path), repo.evaluation)
    if repo.others:
        raise ValueError(f"{out}: has {', '.join(repo.behaviours)}; --name adds a second behaviour, and expected one")

    def check_base(model, tokenizer) -> None:
        if (weights := fingerprint(model)[:16]) != repo.evaluation["model"]:
            measured = repo.evaluation["model"]
            raise ValueError(
                f"--base {settings.base}: its weights are {weights}; expected {measured}, on which {out} was "
                "measured: the same base in the same --dtype"
            )

    with only_run(alone):
        result = run_instruction(own, wanted, progress, say, command, check_base)
    if result.sweep["why"]:
        raise ValueError(f"{name} is not added: no strength was chosen, see {alone}: {result.sweep['why']}")
    second = SteeredRepo.open(alone, framework="pt")
    with progress() as advance:
        together = measure_together(settings, repo, second, name, result, advance)
    evaluation = repo.evaluation | {"together": together}
    write_text(out / "evaluation.json", json.dumps(evaluation, indent=1) + "\n")
    write_report(result.report, report_path)
    write_text(sweep_path, json.dumps(result.sweep, indent=1) + "\n")
    repo.add(name, second.default_directions, second.alpha, second.default.top_k)
    renew_card(out)
    say(f"{name} is in {out} now, and measured together with the first behaviour; {alone} holds it alone")
    return RunResult(out, result.report, result.sweep, evaluation)


def _first_repo(out: Path) -> SteeredRepo:
    """The repo to add to. Raises `FileNotFoundError` or `ValueError` unless `run --instruction` has finished it."""
    if not (out / "config.json").is_file():
        raise FileNotFoundError(f"{out}: no steered repo, and --name adds to one; make it first, without --name")
    check_card(out)
    repo = SteeredRepo.open(out)
    if "instruction" not in repo.report:
        raise ValueError(f"{out}: was not made from a sentence; expected a repo of run --instruction")
    if not repo.is_measured or "instruction" not in repo.evaluation:
        raise ValueError(f"{out}: is not finished, or was changed since; expected a repo that is measured as it is")
    if not (out / FILE).is_file():
        raise FileNotFoundError(f"{out / FILE}: no such file; expected the folder that run wrote, with its answers")
    return repo


def measure_together(
    settings: RunSettings,
    first: SteeredRepo,
    second: SteeredRepo,
    name: str,
    result: InstructionResult,
    progress: Callable[[str, int], None],
) -> dict:
    """What `evaluation.json` says of both behaviours: on the requests that the second one was measured on, how much of
    each sentence's effect is kept by each alone, by both and under the words of each; and what both cost."""
    own, default, said = result.measured_on, first.default.name, first.report["instruction"]
    alphas = {default: first.alpha, name: second.alpha}
    now = {
        "strengths": alphas,
        "directions": {default: fingerprint_of(first.used())[:16], name: fingerprint_of(second.used())[:16]},
        "scope": first.scope,
    }
    fitted = read_parts(first.folder, "fit")
    of_label = [[row.completion for row in fitted if row.label == label] for label in (0, 1)]
    classifiers = {default: AnswerClassifier.fit(*of_label, first.sweep["seed"]), name: result.classifier}

    model = ITILlamaForCausalLM.from_pretrained(first.folder, **settings.placement.kwargs).eval()
    model.set_iti_behaviour(name, second.default_directions, second.alpha, second.default.top_k)
    tokenizer = AutoTokenizer.from_pretrained(first.folder, trust_remote_code=False)
    made_from = now | {"made_of": [report["instruction"]["made_of"] for report in (first.report, second.report)]}
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:12]
    store = SavedCompletions(second.folder / f"completions_{digest}.jsonl", made_from)
    answers = OwnAnswers(model, tokenizer, store, first.evaluation["max_new_tokens"], progress)
    bare = [prompt.prompt for prompt in own.bare]
    told = [Prompts(tokenizer).told(request, said["text"], said["place"]).prompt for request in own.requests]

    def answered(condition: str, prompts: list[str], **strengths: float) -> list[str]:
        model.set_iti(dict.fromkeys(alphas, 0.0) | strengths)
        return answers.to(condition, prompts)

    texts = {
        "plain": own.plain,
        f"{default} alone": answered(f"{default} alone", bare, **{default: first.alpha}),
        f"{name} alone": answered(f"{name} alone", bare, **{name: second.alpha}),
        "both": answered("both", bare, **alphas),
        f"told {default}": answered(f"told {default}", told),
        f"told {name}": own.told,
    }
    kept = {}
    for behaviour, classifier in classifiers.items():
        odds = {condition: classifier.log_odds(given) for condition, given in texts.items()}
        ends = odds["plain"], odds[f"told {behaviour}"], own.groups
        kept[behaviour] = {condition: asdict(kept_share(odds[condition], *ends)) for condition in texts}
    model.set_iti(alphas)
    few = list(zip(bare, own.plain, own.groups, strict=True))[:TEXTS]
    prompts, plain_answers = [Text("", prompt, group) for prompt, _, group in few], [Text(*row) for row in few]
    (cost,) = measure_divergence(model, tokenizer, prompts, [first.alpha])  # and the second at its own strength
    (moved,) = measure_divergence(model, tokenizer, plain_answers, [first.alpha])
    return now | {
        "name": name,
        "n": len(bare),
        "sentences": {default: said["text"], name: second.report["instruction"]["text"]},
        "rows": [
            {
                "condition": condition,
                "intact": asdict(estimate([not degenerate(text) for text in given], own.groups)),
                "kept": {behaviour: kept[behaviour][condition] for behaviour in classifiers},
            }
            for condition, given in texts.items()
        ],
        "perplexity": round(math.exp(cost.nll_change.mean), 3),
        "kl": float(f"{moved.kl.mean:.3g}"),
        "failed": second.failed_checks,
    }
