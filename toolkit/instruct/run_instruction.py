"""From a sentence to a measured repo: the model answers requests with the instruction and without, the instruction is
distilled into a shift of the heads, a strength is chosen, and what is kept of its effect is measured once."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from iti_llama import ITIDirections, ITILlamaForCausalLM

from ..data.labelled_row import parse_mapping
from ..data.labelled_set import Example, checksum
from ..data.splits import fold_ids
from ..fit.distil import STEPS, TaughtAnswer, distil
from ..fit.report import versions
from ..foundation.files import write_text
from ..foundation.intervals import Estimate, estimate, paired
from ..foundation.package import __version__
from ..foundation.sandbox import LateSandbox, Sandbox
from ..foundation.tokenize import completion_ids, prompt_ids
from ..measure.conditions import told_conditions
from ..measure.degenerate import degenerate
from ..measure.divergence import Text
from ..measure.keep_labelled_set import write_parts
from ..measure.kept import MOST_ERROR, AnswerClassifier, kept_share
from ..measure.labelled_tasks import LabelledTask, damage_set
from ..measure.likeness import Likeness, ToldAnswers
from ..measure.measure_steering import measure_steering
from ..measure.request_tasks import read_target
from ..measure.saved_completions import SavedCompletions
from ..measure.summary import TOLD
from ..measure.target import Target, with_target
from ..measure.tasks import TaskSet, grade_intact
from ..repo.card import check_card, renew_card
from ..repo.fit_repo import about_repo, base_tokenizer, check_base, load_base, name_of_base, write_repo
from ..repo.folder import check_out
from ..repo.kept_line import WHERE, kept_line
from ..repo.open_repo import read_object
from ..repo.run_pipeline import RunResult, hash_base, hash_files, no_progress
from ..repo.settings import RunSettings
from ..repo.steered_repo import SteeredRepo
from .choose_steering import ALPHAS, Steering, Validation, choose_steering
from .own_answers import OwnAnswers
from .read_requests import Parts, Request, read_requests, split_requests
from .say_instruction import Prompts, places_of
from .settings import Instruction


NEW_TOKENS = 64
"""Tokens of an answer, unless another number is given."""

MOST = 80
"""Most requests to choose on and to measure on, unless another number is given."""

FITTED_ON = 120
"""Most requests to fit on: each is answered twice."""

PLACED_ON = 32
"""How many requests are answered to find the place of the instruction."""

REPHRASED = 32
"""How many requests robustness is measured on, in each phrasing."""

LIKENED = 16
"""How many of the told model's answers likeness is measured on."""

TEXTS = 40
"""How many plain answers, and how many requests, the divergence of every condition is measured on."""


@dataclass(frozen=True)
class InstructionResult(RunResult):
    """measured_on: the requests of the evaluation, with their answers. classifier: the one of what is kept."""

    measured_on: "Answered"
    classifier: AnswerClassifier


def run_instruction(
    settings: RunSettings,
    wanted: Instruction,
    progress: Callable = no_progress,
    say: Callable[[str], None] = lambda line: None,
    command: str = "",
    loaded: Callable[[ITILlamaForCausalLM, PreTrainedTokenizerBase], None] = lambda model, tokenizer: None,
) -> InstructionResult:
    """Like `run_pipeline.run`, but from a sentence. loaded: called with the base before the work.

    Raises:
        ValueError, OSError: for a base, requests or settings that cannot be used, before long work starts; if the base
            does not follow the instruction, as far as its answers say.
        FileExistsError: if `settings.out` holds something else, or was made from another sentence or settings.
    """
    out, sandbox = Path(settings.out), LateSandbox(allow_unsandboxed=settings.allow_unsandboxed)
    check_card(out)
    if settings.damage:
        damage_set(settings.damage)  # refuses a file that is wrong, before the work
    given = settings.target and read_target(settings.target, sandbox)
    requests = requests_for(settings, wanted)
    parts = split_requests(requests, settings.seed, settings.n, FITTED_ON)
    tokens = settings.max_new_tokens or NEW_TOKENS
    made_of = hash_run(settings, wanted, requests, tokens)
    report = _report_of(out, made_of)
    model, tokenizer = _load_base(settings)
    loaded(model, tokenizer)
    prompts = Prompts(tokenizer)
    if wanted.place is not None:
        prompts.told(requests[0], wanted.instruction, wanted.place)  # refuses a place that the base does not have
    cache = out.with_name(f"{out.name}.cache")
    kept = out / "own_completions.jsonl"
    path = kept if report is not None else cache / f"answers_{made_of[:12]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    store = SavedCompletions(path, {"made_of": made_of})
    count = _count(parts, wanted, tokenizer)
    say(f"{len(requests)} requests: {len(parts.fit)} to fit on, {len(parts.validation)} to choose on, "
        f"{len(parts.test)} to measure on")  # fmt: skip
    with progress(count) as advance:
        answers = OwnAnswers(model, tokenizer, store, tokens, advance)
        place, places = wanted.place, {}
        if place is None:
            place, places = choose_place(answers, prompts, parts.fit[:PLACED_ON], wanted.instruction)
        say(f"1 of 4, the instruction stands {WHERE[place]}{_told_of(places)}")
        answered = {
            part: answer_part(answers, prompts, part, requests, wanted, place)
            for part, requests in (("fit", parts.fit), ("validation", parts.validation))
        }
        fitted, held = answered.values()
        classifier = AnswerClassifier.fit(fitted.against, fitted.told, settings.seed)
        error = classifier.error(held.against, held.told, held.groups)
        if why := not_followed(wanted, classifier, error, held, given):
            if report is None:
                shutil.rmtree(cache)
            raise ValueError(
                f"the base does not follow {wanted.instruction!r}: {why}. What helps: an instruction that it follows; "
                "--against with its opposite; texts that show the behaviour, as a labelled file"
            )
        say(f"2 of 4, the base follows it: a classifier gets {error.percent()} of {error.n} other answers wrong")
        answered["test"] = answer_part(answers, prompts, "test", parts.test, wanted, place)
        if report is None:
            path_of_shift = cache / f"distilled_{made_of[:12]}"
            model.set_iti_directions(distil_once(settings, answers, answered["fit"], path_of_shift, advance))
            steering = choose(settings, answers, answered["validation"], classifier, advance)
    if report is None:
        record = {
            "command": command,
            "instruction": {
                "text": wanted.instruction,
                "against": wanted.against,
                "place": place,
                "places": places,
                "made_of": made_of,
            },
        }
        write_choice(settings, wanted, answers, answered, steering, record)
        del model, answers.model
        shutil.move(path, kept)
        shutil.rmtree(cache, ignore_errors=True)
    report, sweep = read_object(out / "iti_report.json"), read_object(out / "sweep.json")
    if sweep["why"]:
        say(f"3 of 4, no strength chosen: {sweep['why']}")
    else:
        best = sweep["chosen"]
        say(
            f"3 of 4, chosen on {sweep['n']} requests: alpha {best['alpha']:g}, scope {best['scope']}; kept "
            f"{best['kept']['mean']:.2f}"
        )
    with progress() as advance:
        evaluation = measure_once(settings, wanted, answered["test"], classifier, error, given, sandbox, advance)
    say(f"4 of 4, measured on {evaluation['n']} other requests: {kept_line(evaluation)}")
    return InstructionResult(out, report, sweep, evaluation, answered["test"], classifier)


def requests_for(settings: RunSettings, wanted: Instruction) -> list[Request]:
    """The requests that are asked for. Raises as `read_requests` and `base_tokenizer`."""
    chats = bool(base_tokenizer(settings.base, settings.repo.hub).chat_template)
    return read_requests(wanted.prompts, parse_mapping(settings.mapping), chats)


@dataclass(frozen=True)
class Answered:
    """Requests of a part: prompts without the instruction, with it, and with its opposite, and the answers to each.
    Without an opposite, the prompts without the instruction take its place."""

    requests: Sequence[Request]
    bare: Sequence
    told_prompts: Sequence
    against_prompts: Sequence
    plain: Sequence[str]
    told: Sequence[str]
    against: Sequence[str]

    @property
    def groups(self) -> list[str]:
        return [request.group for request in self.requests]

    def first(self, n: int) -> "Answered":
        """The first requests of these."""
        return Answered(*(value[:n] for value in vars(self).values()))


def choose_place(
    answers: OwnAnswers, prompts: Prompts, requests: Sequence[Request], instruction: str
) -> tuple[str, dict[str, float]]:
    """The place where the base follows the instruction best, and for each place how far its answers differ from plain
    ones: the accuracy of a classifier on folds that it was not fitted on. Ties go to the larger difference of
    log-odds."""
    places = places_of(prompts.tokenizer)
    if len(places) == 1:
        return places[0], {}
    plain = answers.to("plain, fit", [prompts.bare(request).prompt for request in requests])
    scores = {}
    for place in places:
        given = [prompts.told(request, instruction, place).prompt for request in requests]
        scores[place] = _separation(plain, answers.to(f"told {place}, fit", given), requests)
    best = max(places, key=lambda place: scores[place])
    return best, {place: round(accuracy, 3) for place, (accuracy, _) in scores.items()}


def _separation(plain: Sequence[str], told: Sequence[str], requests: Sequence[Request]) -> tuple[float, float]:
    """(accuracy, difference of log-odds), out of fold."""
    y = np.array([0] * len(plain) + [1] * len(told))
    groups = np.array([request.group for request in requests] * 2)
    texts, odds = [*plain, *told], np.zeros(len(y))
    folds = fold_ids(y, groups, 4, 0)
    for fold in np.unique(folds):
        rows = [np.flatnonzero((folds != fold) & (y == label)) for label in (0, 1)]
        classifier = AnswerClassifier.fit(*([texts[i] for i in of_label] for of_label in rows))
        odds[folds == fold] = classifier.log_odds([texts[i] for i in np.flatnonzero(folds == fold)])
    return float(((odds > 0) == (y == 1)).mean()), float(odds[y == 1].mean() - odds[y == 0].mean())


def answer_part(
    answers: OwnAnswers, prompts: Prompts, part: str, requests: Sequence[Request], wanted: Instruction, place: str
) -> Answered:
    """The answers to the requests of a part; requests to measure on are not answered under an opposite. Requests with
    an empty answer are left out, since they have nothing to read."""
    bare = [prompts.bare(request) for request in requests]
    told = [prompts.told(request, wanted.instruction, place) for request in requests]
    texts = [
        answers.to(f"plain, {part}", [one.prompt for one in bare]),
        answers.to(f"told {place}, {part}", [one.prompt for one in told]),
    ]
    against, opposite = bare, texts[0]
    if wanted.against is not None and part != "test":
        against = [prompts.told(request, wanted.against, place) for request in requests]
        opposite = answers.to(f"against {place}, {part}", [one.prompt for one in against])
    rows = zip(requests, bare, told, against, *texts, opposite, strict=True)
    whole = [row for row in rows if all(text.strip() for text in row[4:])]
    if len(whole) < 4:
        raise ValueError(
            f"{len(requests) - len(whole)} of {len(requests)} requests to {part} have an empty answer; expected few: "
            "is the base a chat model, and does its tokenizer have its chat template?"
        )
    return Answered(*map(list, zip(*whole, strict=True)))


def not_followed(
    wanted: Instruction, classifier: AnswerClassifier, error: Estimate, held: Answered, target: Target | None
) -> str:
    """Why the instruction has no effect that could be kept, in words; "" if it has one. held: answers that the
    classifier was not fitted on. target: what the instruction asks for; a classifier sees any difference, and *kept*
    measures it."""
    if error.mean > MOST_ERROR:
        return (
            f"a classifier of its answers takes {error.percent()} of {error.n} for those of the other kind; expected "
            f"at most {100 * MOST_ERROR:g}%"
        )
    if classifier.log_odds(held.told).mean() <= classifier.log_odds(held.plain).mean():
        return f"its answers are not further from those under {wanted.against!r} than plain ones are"
    if target is None:
        return ""
    asked = [prompt.prompt for prompt in held.bare]
    told, plain = (target.score(asked, texts) for texts in (held.told, held.plain))
    if paired(told, plain, held.groups).low <= 0:
        shares = " and ".join(estimate(scores, held.groups).percent() for scores in (told, plain))
        return f"with and without it, {shares} of {len(asked)} answers pass --target; expected clearly more with it"
    return ""


def contrast_rows(own: Answered, bare: bool = False) -> list[Example]:
    """For every request a row with the instruction (label 1), and one without it or with its opposite (label 0).
    bare: answers come after the prompts without it."""
    rows = []
    for i, request in enumerate(own.requests):
        for label, prompts, texts in ((1, own.told_prompts, own.told), (0, own.against_prompts, own.against)):
            prompt = own.bare[i] if bare else prompts[i]
            meta = {}
            if prompt.templated:
                meta |= {"shown": prompt.shown, "shown_at": prompt.shown_at}
                meta |= {"messages": list(prompt.messages)} if prompt.messages else {}
            rows.append(Example(prompt.prompt, texts[i], label, request.group, meta=meta))
    return rows


def distil_once(
    settings: RunSettings, answers: OwnAnswers, fitted: Answered, path: Path, progress: Callable[[str, int], None]
) -> ITIDirections:
    """The directions that are distilled from the answers to fit on, without loops; read from `path` if a run that was
    killed has made them.

    Raises:
        ValueError: if every answer under the instruction is a loop.
    """
    if path.is_file():
        progress("distil", STEPS)
        return ITIDirections.load(path)
    model, tokenizer, taught = answers.model, answers.tokenizer, []
    ended = with_ends(model, tokenizer, fitted.told_prompts, fitted.told, answers.max_new_tokens)
    for told, bare, text, whole in zip(fitted.told_prompts, fitted.bare, fitted.told, ended, strict=True):
        if not degenerate(text):
            prompts = (prompt_ids(tokenizer, prompt.prompt) for prompt in (told, bare))
            taught.append(TaughtAnswer(*prompts, completion_ids(tokenizer, whole)))
    if not taught:
        raise ValueError(f"all {len(fitted.told)} answers under the instruction are loops; expected some that are not")
    directions = distil(model, taught, settings.scope, settings.seed, lambda steps: progress("distil", steps))
    made = {"method": "distilled", "rows": str(len(taught)), "steps": str(STEPS), "seed": str(settings.seed)}
    directions = replace(directions, provenance=made)
    directions.save(path)
    return directions


def choose(
    settings: RunSettings,
    answers: OwnAnswers,
    held: Answered,
    classifier: AnswerClassifier,
    progress: Callable[[str, int], None],
) -> Steering:
    """Choose a strength for the directions of the model."""
    answers.model.iti_scope = settings.scope
    asked, bare = [prompt.shown for prompt in held.bare], [prompt.prompt for prompt in held.bare]
    validation = Validation(asked, bare, held.plain, held.told, held.groups)
    guards = settings.guard, settings.perplexity_guard
    return choose_steering(answers, settings.alphas, validation, classifier, *guards, progress)


def with_ends(
    model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence, texts: Sequence[str], most: int
) -> list[str]:
    """Answers with the token that ended each, except for those that were cut off: at `most` tokens, or where the model
    reads no further."""
    rooms = [model.config.max_position_embeddings - len(prompt_ids(tokenizer, prompt.prompt)) for prompt in prompts]
    whole = [len(completion_ids(tokenizer, text)) < min(most, room) for text, room in zip(texts, rooms, strict=True)]
    end = tokenizer.eos_token or ""
    return [text + end if ended else text for text, ended in zip(texts, whole, strict=True)]


def told_answers(
    model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, own: Answered, most: int
) -> ToldAnswers:
    """The answers for likeness: the first ones, each with its end."""
    few = own.first(LIKENED)
    bare, told = ([prompt.prompt for prompt in prompts] for prompts in (few.bare, few.told_prompts))
    return ToldAnswers(bare, told, with_ends(model, tokenizer, few.told_prompts, few.told, most))


def write_choice(
    settings: RunSettings,
    wanted: Instruction,
    answers: OwnAnswers,
    answered: dict[str, Answered],
    steering: Steering,
    record: dict,
) -> None:
    """Write the repo of the choice, its labelled set and `sweep.json`: all of it, or nothing."""
    model, best = answers.model, steering.best
    does = settings.behaviour or f'answers as if told "{wanted.instruction}"'
    made_from = replace(settings.repo, behaviour=does, alpha=best.alpha)
    dataset = wanted.prompts.name if wanted.prompts else "everyday requests"
    fitted, directions = contrast_rows(answered["fit"]), model.iti_directions
    data = {"dataset": dataset, "dataset_sha256": checksum(fitted), "tool": f"iti-llama {__version__}"}
    made = directions.provenance | data | made_from.about
    model.set_iti_directions(replace(directions, base_model=name_of_base(made_from), provenance=made))
    report = {
        "verdict": f"The shift of {len(directions)} heads was distilled, in {made['steps']} steps, from "
        f"{made['rows']} answers of the base under the instruction.",
        "policy": "distilled",
        "settings": {},
        "data": {"sha256": data["dataset_sha256"]},
        "versions": versions(),
    }
    report |= about_repo(made_from) | record
    of_all = {"top_k": len(directions), "scope": settings.scope}
    sweep = {
        "tasks": "requests:validation",
        "n": best.kept.n if best.kept else len(answered["validation"].requests),
        "seed": settings.seed,
        "target": "as if told",
        "sound": "intact",
        "guard": settings.guard,
        "perplexity_guard": settings.perplexity_guard,
        "points": [of_all | point.to_dict() for point in (steering.plain, *steering.tried)],
        "chosen": None if steering.why else of_all | best.to_dict(),
        "why": steering.why,
    }
    rows = [("fit", row) for row in fitted]
    for part in ("validation", "test"):  # held-out prompts come without the instruction
        held = replace(answered[part], against=answered[part].plain)
        rows += [(part, row) for row in contrast_rows(held, bare=True)]

    def beside(folder: Path) -> None:
        write_parts(rows, folder)
        write_text(folder / "sweep.json", json.dumps(sweep, indent=1) + "\n")

    write_repo(made_from, model, answers.tokenizer, report, settings.out, beside, overwrite=True)


def measure_once(
    settings: RunSettings,
    wanted: Instruction,
    own: Answered,
    classifier: AnswerClassifier,
    error: Estimate,
    given: Target | None,
    sandbox: Sandbox,
    progress: Callable[[str, int], None],
) -> dict:
    """`evaluation.json`: read if it belongs to this repo and these settings, otherwise made."""
    out, repo = Path(settings.out), SteeredRepo.open(settings.out)
    target = settings.target and hashlib.sha256(settings.target.encode()).hexdigest()[:16]  # it may hold a path
    made_from = {"measuring": asdict(settings.measuring), "target": target, "instruction": wanted.instruction}
    made_from |= {"files": hash_files(settings)}
    if repo.is_measured and repo.evaluation.get("asked") == made_from:
        return repo.evaluation
    model = ITILlamaForCausalLM.from_pretrained(out, **settings.placement.kwargs).eval()
    model.set_iti({other.name: 0.0 for other in repo.others})
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    told_of = {bare.prompt: told.prompt for bare, told in zip(own.bare, own.told_prompts, strict=True)}
    tasks = [
        LabelledTask(
            bare.prompt,
            request.group,
            **({"shown": bare.shown, "shown_at": bare.shown_at, "messages": bare.messages} if bare.templated else {}),
        )
        for request, bare in zip(own.requests, own.bare, strict=True)
    ]
    few = list(zip(tasks, own.plain, strict=True))[:TEXTS]
    texts = {
        "plain answers": [Text(task.prompt, answer, task.group) for task, answer in few],
        "prompts": [Text("", task.prompt, task.group) for task, _ in few],
    }
    asked = lambda task: told_of[task.prompt]  # noqa: E731
    tokens = settings.max_new_tokens or NEW_TOKENS
    task_set = TaskSet("requests:test", tasks, "", asked, grade_intact, texts, tokens, "intact")
    task_set = with_target(task_set, given or classifier.target())
    alpha = model.iti_alpha
    name = hashlib.sha256(json.dumps([*repo.shipped, made_from]).encode()).hexdigest()[:12]
    measured = measure_steering(
        model,
        tokenizer,
        task_set,
        sandbox,
        settings.measuring,
        completions=out / f"completions_{name}.jsonl",
        progress=progress,
        conditions=told_conditions(model),
        known={"plain": own.plain, TOLD: own.told},
        rephrased=REPHRASED,
    )
    groups = [task.group for task in tasks]
    odds = {name: classifier.log_odds(answers.completions) for name, answers in measured.answers.items()}
    kept = {
        name: asdict(kept_share(values, odds["plain"], odds[TOLD], groups))
        for name, values in odds.items()
        if name not in ("plain", TOLD)
    }
    randoms = [name for name in odds if name.startswith("random")]
    beyond = min(paired(odds["steered"], odds[name], groups).low for name in randoms) > 0
    lengths = [
        [len(prompt_ids(tokenizer, prompt)) for prompt in (task.prompt, told_of[task.prompt])] for task in tasks
    ]
    bare_tokens, told_tokens = (sum(column) for column in zip(*lengths, strict=True))
    likeness = Likeness.between(model, tokenizer, told_answers(model, tokenizer, own, tokens))
    said = {
        "text": wanted.instruction,
        "place": repo.report["instruction"]["place"],
        "error": asdict(error),
        "kept": kept,
        "beyond_random": bool(beyond),
        "likeness": round(likeness.of(model, tokenizer, alpha), 3),
        "tokens_saved": round((told_tokens - bare_tokens) / len(tasks), 1),
        "prefill_share": round((told_tokens - bare_tokens) / told_tokens, 3),
    }
    evaluation = measured.record | {"asked": made_from, "instruction": said}
    evaluation |= {"together": repo.together} if repo.together else {}
    write_text(out / "evaluation.json", json.dumps(evaluation, indent=1) + "\n")
    renew_card(out)
    return evaluation


def _told_of(places: dict[str, float]) -> str:
    listed = ", ".join(f"{place} {accuracy:.2f}" for place, accuracy in places.items())
    return f" (told apart from plain: {listed})" if places else ""


def _load_base(settings: RunSettings) -> tuple[ITILlamaForCausalLM, PreTrainedTokenizerBase]:
    model, tokenizer = load_base(settings.base, settings.repo.hub, **settings.placement.kwargs)
    check_base(settings.repo, model)
    return model, tokenizer


def hash_run(settings: RunSettings, wanted: Instruction, requests: Sequence[Request], tokens: int) -> str:
    """A hash of everything that the fit and the choice depend on."""
    parts = [asdict(wanted) | {"prompts": [request.written for request in requests]}, hash_base(settings.repo), tokens]
    parts += [settings.n, settings.seed, settings.alphas, settings.guard, settings.perplexity_guard, settings.scope]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _report_of(out: Path, made_of: str) -> dict | None:
    """The report of a finished fit, with its choice; None if there is none, or a kill left it half done.

    Raises:
        FileExistsError: if the report belongs to another fit.
    """
    if not (out / "iti_report.json").is_file():
        check_out(out, overwrite=False)
        return None
    report = read_object(out / "iti_report.json")
    held = report.get("instruction", {})
    if held.get("made_of") != made_of:
        holds = f"a fit of {held['text']!r} with other settings" if held else "a fit of labelled texts"
        raise FileExistsError(f"{out}: holds {holds}; choose another --out, or delete it")
    return report if (out / "own_completions.jsonl").is_file() else None


def _count(parts: Parts, wanted: Instruction, tokenizer: PreTrainedTokenizerBase) -> int:
    """About how many answers and passes it takes until the fit is written."""
    answered = 2 * sum(map(len, vars(parts).values()))
    answered += len(parts.fit) + len(parts.validation) if wanted.against else 0
    places = 0 if wanted.place else min(PLACED_ON, len(parts.fit)) * (len(places_of(tokenizer)) + 1)
    return answered + places + STEPS + len(ALPHAS) * len(parts.validation)
