"""The model card of a steered repo: what the Hub reads (YAML) and what people read.

A card is written from the files beside it, and its parts between `<!-- iti-NAME: begin -->` and `end` are written
again by every command that changes one of those files: what it says of alpha, heads, scope, form and results is what
they hold. The rest is its owner's, and is kept.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..fit.report_table import report_table
from ..foundation.files import write_text
from ..foundation.intervals import Estimate
from ..measure.summary import Summary, checks_table, summary_table
from .kept_lines import kept_lines
from .licence import base_license, link_of
from .replace_parts import marked_parts, one_line, read_card, replaced, section
from .steered_repo import SteeredRepo


if TYPE_CHECKING:
    from ..measure.evaluate import ConditionResult


TAGS = ["inference-time-intervention", "iti", "activation-steering", "llama"]

LIVE = ("what", "example", "start", "receipt", "made", "limits", "licence")
"""The parts of a card that are written from the files beside it, by the names that published cards have them under."""

NOT_MEASURED = (
    "Not measured: alpha was not chosen on any data. `iti-llama sweep` chooses it, `iti-llama evaluate` measures it."
)

CITATION = """```bibtex
@inproceedings{li2023inference,
  title     = {Inference-Time Intervention: Eliciting Truthful Answers from a Language Model},
  author    = {Li, Kenneth and Patel, Oam and Vi{\\'e}gas, Fernanda and Pfister, Hanspeter and Wattenberg, Martin},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023}
}
```"""


def replace_section(path: Path, name: str, text: str) -> None:
    """Replace a part that `section` marked.

    Raises:
        ValueError: if the file has no such part.
    """
    new = replaced(path.read_text(encoding="utf-8"), {name: text})
    if new is None:
        raise ValueError(f"{path}: has no part between '<!-- {name}: begin -->' and '<!-- {name}: end -->'")
    write_text(path, new)


def write_card(folder: Path, base: str | None = None, origin: str = "") -> Path:
    """Write a folder's card anew. `base`: see `SteeredRepo.open`; `origin`: a part of its own on where the directions
    come from."""
    return write_text(folder / "README.md", new_card(SteeredRepo.open(folder, base=base), origin=origin))


def new_card(repo: SteeredRepo, hub_name: str = "", origin: str = "") -> str:
    """A card from the first line to the last, its quick start loading `hub_name`."""
    parts = {name: section(f"iti-{name}", text) for name, text in live_parts(repo, hub_name).items()}
    return f"""---
{_metadata(repo).to_yaml()}
---

{parts["what"]}

{parts["example"]}

## Use it

{parts["start"]}

## What the steering does

{parts["receipt"]}

## How it was made

{origin}{parts["made"]}

## Limits and intended use

{parts["limits"]}

## Licence

{parts["licence"]}

## Citation

{CITATION}
"""


def renewed_card(folder: Path, hub_name: str = "") -> str | None:
    """The text of a folder's card with its live parts and metadata as the files beside it have them now, the quick
    start loading `hub_name`. None if there is no card with live parts. Raises as `check_card`."""
    text = check_card(folder)
    if text is None:
        return None
    repo = SteeredRepo.open(folder)
    parts = {f"iti-{name}": part for name, part in live_parts(repo, hub_name).items()}
    card, fresh = ModelCard(replaced(text, parts)), _metadata(repo)
    if repo.license is None and card.data.license not in (None, "other"):
        fresh.license, fresh["license_name"] = card.data.license, None  # its owner knows
    for key in ("base_model", "base_model_relation", "license", "license_name", "license_link"):
        card.data[key] = fresh.get(key) or (None if key == "license_name" else card.data.get(key))
    card.data.model_name, card.data.eval_results = fresh.model_name, fresh.eval_results
    return str(card)


def check_card(folder: Path) -> str | None:
    """The text of a folder's card with live parts, None if there is none. To be called before a command writes what
    such a card says, since the card is written again after it.

    Raises:
        ValueError: naming the file and what is wrong, if it cannot be read, or where a part ends is not known.
    """
    path = folder / "README.md"
    if not path.is_file():
        return None
    text = read_card(path)
    try:
        return text if marked_parts(text, [f"iti-{name}" for name in LIVE]) else None
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None


def renew_card(folder: Path) -> bool:
    """Write the live parts of a folder's card again. False if there is none with such parts; nothing is changed
    then."""
    text = renewed_card(folder)
    if text is not None:
        write_text(folder / "README.md", text)
    return text is not None


def live_parts(repo: SteeredRepo, hub_name: str) -> dict[str, str]:
    return {
        "what": _what(repo),
        "example": _example(repo),
        "start": _start(repo, hub_name),
        "receipt": _effects(repo),
        "made": _made(repo),
        "limits": _limits(repo),
        "licence": _licence(repo),
    }


def _metadata(repo: SteeredRepo) -> ModelCardData:
    """The YAML that the Hub reads."""
    license_, made = repo.license, repo.provenance
    other = {} if license_ else {"license_name": "license-of-the-base-model"}
    results = []
    if repo.is_measured:
        tasks, sound = repo.evaluation["tasks"], repo.evaluation["sound"]
        shares = [("target-share", repo.evaluation["target"], "target"), (sound, sound, "sound")]
        results = [
            _result(tasks, kind, f"share: {name}", row.name, row.alpha, value)
            for row in _summary(repo)
            for kind, name, field in shares
            if row.name in ("plain", "steered") and (value := getattr(row, field)) is not None
        ]
    return ModelCardData(
        license=license_ or "other",
        **other,
        license_link=link_of(license_, repo.base),
        language=made.get("language") or None,
        base_model=repo.base,
        **({"base_model_relation": "adapter" if repo.weights_from else "finetune"} if repo.base else {}),
        datasets=[made["hub_dataset"]] if made.get("hub_dataset") else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=TAGS,
        model_name=_title(repo),
        eval_results=results or None,
    )


def _title(repo: SteeredRepo) -> str:
    return f"{repo.base_title}, steered: {repo.does}" if repo.does else f"{repo.base_title}, steered"


def _code(text: str) -> str:
    """A value as code, in a line of text."""
    return f"`{one_line(text).replace('`', chr(39))}`"


def _strength(repo: SteeredRepo) -> str:
    """As "12 attention heads are shifted by alpha = 0.8 standard deviations, at every position"."""
    alpha, site = f"alpha = {repo.alpha:g}", repo.default_directions.site
    by = f"{alpha} standard deviations" if site == "head" else f"{alpha} times their recorded length"
    where = "every position" if repo.scope == "all" else "the last token of the prompt and all after it"
    place = "attention heads are" if site == "head" else "slices of the attention output are"
    return f"{repo.heads} {place} shifted by {by} along fixed directions, at {where}"


def _what(repo: SteeredRepo) -> str:
    on_hub = repo.base and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo.base)
    base = f"[{repo.base}](https://huggingface.co/{repo.base})" if on_hub else _code(repo.base or repo.base_title)
    does = f", steered so that it **{repo.does}**" if repo.does else ", steered"
    rows = repo.provenance.get("rows")
    fitted_on = f" Directions from {rows} labelled texts." if rows else ""
    weights = (
        f"The weights come from {base}; this repo holds the directions and the code that adds them."
        if repo.weights_from is not None
        else "The weights are in this repo."
    )
    gate, others, plain = "", "", "`model.iti_alpha = 0` is the base model, bit by bit"
    if repo.default_directions.gate is not None:
        gate = (
            " A gate reads each prompt's last token and lets the steering act where it should; "
            "`generate(iti_gate=False)` leaves it out."
        )
    if repo.others:
        named = ", ".join(f"`{other.name}` (alpha {other.alpha:g})" for other in repo.others)
        name = repo.others[0].name
        plain = "`with model.disable_iti():` it is the base model, bit by bit"
        others = f"\n\nFurther behaviours in this repo: {named}. `model.set_iti({{{name!r}: 0.5}})` sets a strength."
    failed = f"**It did not pass when it was measured: {', '.join(repo.failed_checks)} (see below).**\n\n"
    kept = f"{kept_lines(repo.evaluation)}\n\n" if repo.is_measured and "instruction" in repo.evaluation else ""
    return f"""# {_title(repo)}

{failed if repo.failed_checks else ""}{kept}{base}{does} while it generates, without any training:
{_strength(repo)} (Inference-Time Intervention, Li et al. 2023,
[arXiv 2306.03341](https://arxiv.org/abs/2306.03341)).{fitted_on} {weights}
{plain}.{gate}{others}"""


def _example(repo: SteeredRepo) -> str:
    examples = repo.evaluation.get("examples")
    if not examples or not repo.is_measured:
        return "Plain and steered answers, side by side, are shown here once `iti-llama evaluate` has run."
    changed = [row for row in examples if row["plain"] != row["steered"]]
    example = (changed or examples)[0]
    shown = example["shown"].rstrip(" ")
    indent = example["shown"][len(shown) :]  # an answer goes on where the prompt ends
    which = "this is the first of those" if changed else "this is the first of all"
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", "".join(map(str, example.values())))), default=0))
    blocks = {"plain (alpha 0)": example["plain"], f"steered (alpha {repo.alpha:g})": example["steered"]}
    cells = "\n".join(f"<td>\n\n{fence}\n{indent}{text.rstrip()}\n{fence}\n\n</td>" for text in blocks.values())
    return f"""A held-out prompt:

{fence}
{shown.strip(chr(10))}
{fence}

<table>
<tr>{"".join(f"<th>{name}</th>" for name in blocks)}</tr>
<tr>
{cells}
</tr>
</table>

Greedy, at most {repo.evaluation["example_tokens"]} tokens. Of the first {len(examples)} held-out prompts,
{len(changed)} are answered differently; {which}. Of the {len(examples)} steered answers
{repo.evaluation["intact"]} are intact: neither empty nor going round in a loop."""


def _start(repo: SteeredRepo, hub_name: str) -> str:
    here = 'repo = "."  # this folder; on the Hub, the name at the top of this page'
    line = f'repo = "{hub_name}"' if hub_name else here
    prompts = [(e["prompt"], e["shown"]) for e in repo.evaluation.get("examples", ())] or list(repo.prompts)
    prompts = sorted(prompts, key=lambda pair: len(pair[1]) > 300)[:1] or [("Once upon a time", "Once upon a time")]
    given, shown = prompts[0]
    if given == shown:
        inputs = 'inputs = tokenizer(prompt, return_tensors="pt").to(model.device)'
    else:
        inputs = """messages = [{"role": "user", "content": prompt}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
inputs = inputs.to(model.device)"""
    answered = "" if given == shown else ', inputs["input_ids"].shape[1] :'  # a chat's answer without its prompt
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

{line}
model = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, device_map="auto", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(repo, trust_remote_code=True)

prompt = {shown!r}
{inputs}
answer = model.generate(**inputs, max_new_tokens=100)[0{answered}]
print(tokenizer.decode(answer, skip_special_tokens=True))

model.iti_alpha = 0.0  # the base model, bit by bit; any other strength works too, live
```

`trust_remote_code=True` runs the Python files of this repo and nothing else. Pin them with
`revision="COMMIT", code_revision="COMMIT"`, or install the package `iti-llama`, `import iti_llama`, and leave it out;
`iti-llama verify {hub_name or "REPO"}` says what would run."""


def _summary(repo: SteeredRepo) -> list[Summary]:
    return [Summary.from_dict(row) for row in repo.evaluation["summary"]]


def _effects(repo: SteeredRepo) -> str:
    evaluation = repo.evaluation
    why = repo.sweep.get("why") and f"No strength was chosen: {repo.sweep['why']}."
    if repo.is_measured:
        table = summary_table(_summary(repo), evaluation["target"], evaluation["sound"])
        chosen = repo.sweep.get("chosen") or {}
        how = chosen and (chosen["alpha"], chosen["top_k"], chosen["scope"]) == repo.shipped
        how = how and f"The strength was chosen on {repo.sweep['n']} other tasks, {repo.sweep['tasks']}."
        checks = checks_table(evaluation.get("checks", ()))
        parts = (why, table, evaluation["how"], how, evaluation.get("note", ""), checks)
        return "\n\n".join(part for part in parts if part)
    if repo.is_budgeted:
        budget = repo.sweep["budget"]
        return (
            f"alpha {budget['alpha']:g} is the largest whose mean KL from the plain model stays within "
            f"{budget['budget']:g} nats a token, on {budget['n']} texts. That is a budget, not an effect: what else "
            "the steering does was not measured."
        )
    if "summary" in evaluation:
        then = f"alpha {evaluation['alpha']:g}, {evaluation['heads']} heads, scope {evaluation['scope']}"
        return (
            f"Not measured as it is now (alpha {repo.alpha:g}, {repo.heads} heads, scope {repo.scope}): the last "
            f"evaluation was of {then}. "
            "`iti-llama evaluate` measures it."
        )
    return f"{why} Not measured." if why else NOT_MEASURED


def _made(repo: SteeredRepo) -> str:
    made, report = repo.provenance, repo.report
    lines = []
    if report:
        table, drawn = report_table(report), "![AUC of every head](figures/head_auc.png)"
        if report["top_k"] != repo.heads:
            kept = f"which kept {report['top_k']} heads; {repo.heads} are used now"
            lines += [f"Table and figure are of the fit, {kept}.", ""]
        lines += [table, "", drawn]
    records = (report, repo.sweep, repo.evaluation)
    commands = [record["command"] for record in records if record.get("command")]
    if commands:
        lines += ["", "```", *commands, "```"]
    versions = ", ".join(f"{name} {version}" for name, version in report.get("versions", {}).items())
    data, revision = made.get("dataset"), repo.base_revision
    facts = {
        "Data": data and f"{_code(data)} (SHA-256 `{made.get('dataset_sha256', '')[:16]}...`)",
        "Base": _code(repo.base or repo.base_title) + (f" at {_code(revision)}" if revision else ""),
        "Its weights": report.get("base_weights"),
        "Versions": versions or made.get("tool"),
    }
    return "\n".join([*(f"- {name}: {value}" for name, value in facts.items() if value), "", *lines]).strip()


def _limits(repo: SteeredRepo) -> str:
    base = repo.base or repo.base_title
    does = f'"{repo.does}"' if repo.does else "the behaviour of label 1"
    lines = [
        f"Meant for text like the data that the directions were fitted on, to get {does} more often. On other text "
        "nothing is known until it is measured.",
        "Steering shifts a tendency. It enforces nothing, so do not rely on it for safety.",
        f"The directions belong to {_code(base)}: on another base of the same geometry they are noise.",
        "Engines that run Llama without this repo's code do not steer; `iti-llama export` writes forms for them.",
    ]
    if repo.report.get("supported") is False:
        lines.insert(0, f"**{repo.report['verdict']}**")
    return "\n".join(f"- {line}" for line in lines)


def _licence(repo: SteeredRepo) -> str:
    license_ = repo.license
    if license_ is None:
        return "That of the base model, which holds for what is made of it as well."
    link = link_of(license_, repo.base)
    named = f"[{license_}]({link})" if link else license_
    return f"The base is under {named}, and so is what is made of it, this repo."


def converted_origin(lines: Sequence[str], source: str) -> str:
    """The part of the card of a repo that `convert` made."""
    decisions = "\n".join(f"- {one_line(line)}" for line in lines)
    name = Path(source).name if Path(source).exists() else source
    return f"Converted from {_code(name)}. When it was converted:\n\n{decisions}\n\n"


def name_repo(text: str, hub_name: str) -> str:
    """A card whose quick start loads `hub_name`."""
    text = re.sub(r'^repo = "[^"\n]*".*$', f'repo = "{hub_name}"', text, count=1, flags=re.MULTILINE)
    return text.replace("`iti-llama verify REPO`", f"`iti-llama verify {hub_name}`")


def with_base(text: str, base: str | None) -> str:
    """A card that names the base of an adapter, and its licence, where it names none yet."""
    parsed = ModelCard(text)
    if base is None or parsed.data.base_model:
        return text
    parsed.data.base_model, parsed.data["base_model_relation"] = base, "adapter"
    license_ = base_license(base)
    if license_ and parsed.data.license in (None, "other"):
        parsed.data.license = license_
        parsed.data["license_name"] = None
    return str(parsed)


def write_results(path: Path, tasks: str, target: str, rows: Sequence["ConditionResult"]) -> None:
    """Put pass@1 and the target share of the plain and the steered condition into a card's `model-index`."""
    card = ModelCard(read_card(path))
    card.data.model_name = card.data.model_name or re.search(r"^# (.+)$", card.text, re.MULTILINE)[1]
    card.data.eval_results = [
        _result(tasks, kind, name, row.condition, row.alpha, getattr(row, field))
        for row in rows
        if row.condition in ("plain", "steered")
        for kind, name, field in (("pass@1", "pass@1", "correct"), ("target-share", f"share of {target}", "target"))
    ]
    write_text(path, str(card))


def _result(tasks: str, kind: str, name: str, condition: str, alpha: float, value: Estimate) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type=f"iti-llama/{tasks}",
        dataset_name=f"{tasks}, {value.n} answers",
        metric_type=kind,
        metric_name=f"{name}, {condition} (alpha {alpha:g})",
        metric_value=round(value.mean, 4),
    )
