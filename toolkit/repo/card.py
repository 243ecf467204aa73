"""The model card of a steered repo: what the Hub reads (YAML) and what people read.

A card is written from the files beside it. Every command that changes one of those files writes the parts between
`<!-- iti-NAME: begin -->` and `end` again, so alpha, heads, scope, form and results on the card are those of the
files. The rest belongs to the owner, and is kept. The words are in `model_card_template.md`.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..fit.report_table import report_table
from ..foundation.files import write_text
from ..measure.summary import BOTH, TOLD, Summary, checks_table, summary_table
from .fill_template import fill_template
from .kept_line import WHERE, together_cells
from .licence import base_license, link_of
from .replace_parts import marked_parts, read_card, replaced
from .steered_repo import SteeredRepo


TAGS = ["inference-time-intervention", "iti", "activation-steering", "llama"]

LIVE = ("what", "example", "start", "receipt", "made", "limits", "licence")
"""The parts of a card that are written from the files beside it, by their names in published cards."""

BASES = "license-of-the-base-model"
"""The name of a licence that only the base knows."""

TEMPLATE = Path(__file__).with_name("model_card_template.md")

MOST_SHOWN = 400
"""How many characters of an answer a card shows at most."""


def replace_section(path: Path, name: str, text: str) -> None:
    """Replace a part that `section` marked.

    Raises:
        ValueError: if the file has no such part.
    """
    new = replaced(path.read_text(encoding="utf-8"), {name: text})
    if new is None:
        raise ValueError(f"{path}: has no part between '<!-- {name}: begin -->' and '<!-- {name}: end -->'")
    write_text(path, new)


def write_card(folder: Path, base: str | None = None, converted_from: str = "", decisions: Sequence[str] = ()) -> Path:
    """Write a folder's card anew. `base`: see `SteeredRepo.open`. `converted_from`: the folder or Hub repo that
    `convert` read. `decisions`: what it decided."""
    repo = SteeredRepo.open(folder, base=base)
    return write_text(folder / "README.md", new_card(repo, converted_from=converted_from, decisions=decisions))


def new_card(repo: SteeredRepo, hub_name: str = "", converted_from: str = "", decisions: Sequence[str] = ()) -> str:
    """A whole new card, whose quick start loads `hub_name`."""
    evaluation = repo.evaluation if repo.is_measured else {}
    summary = {row.name: row for row in map(Summary.from_dict, evaluation.get("summary", ()))}
    chosen = repo.sweep.get("chosen") or {}
    records = (repo.report, repo.sweep, repo.evaluation)
    card = fill_template(
        TEMPLATE,
        card_data=_metadata(repo),
        repo=repo,
        on_hub=re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo.base or ""),
        instruction=evaluation.get("instruction"),
        where=WHERE,
        both=BOTH,
        plain=summary.get("plain"),
        steered=summary.get("steered"),
        told=summary.get(TOLD),
        moved=_moved(evaluation) if evaluation else None,
        **_examples(evaluation),
        hub_name=hub_name,
        **_first_prompt(repo),
        summary_table=evaluation and summary_table(list(summary.values()), evaluation["target"], evaluation["sound"]),
        chosen=chosen and (chosen["alpha"], chosen["top_k"], chosen["scope"]) == repo.shipped,
        together_cells=repo.together and together_cells(repo.together),
        checks_table=checks_table(evaluation.get("checks", ())),
        converted_from=Path(converted_from).name if Path(converted_from).exists() else converted_from,
        decisions=decisions,
        commands=[record["command"] for record in records if record.get("command")],
        report_table=repo.report.get("heads") and report_table(repo.report),
    )
    return replaced(card, _live_parts(card))  # without blank lines at their ends


def renewed_card(folder: Path, hub_name: str = "") -> str | None:
    """The text of a folder's card, with live parts and metadata renewed from the files beside it and a quick start
    that loads `hub_name`. None if there is no card with live parts. Raises as `check_card` does."""
    text = check_card(folder)
    if text is None:
        return None
    repo = SteeredRepo.open(folder)
    new = new_card(repo, hub_name)
    card, fresh = ModelCard(replaced(text, _live_parts(new))), ModelCard(new).data
    given = card.data.license, card.data.get("license_name")
    if repo.license is None and given not in ((None, None), ("other", BASES)):
        fresh.license, fresh["license_name"] = given  # its owner knows
    for key in ("base_model", "base_model_relation", "license", "license_name", "license_link"):
        card.data[key] = fresh.get(key) or (None if key == "license_name" else card.data.get(key))
    foreign = [one for one in card.data.eval_results or () if not one.dataset_type.startswith("iti-llama/")]
    card.data.model_name, card.data.eval_results = fresh.model_name, [*(fresh.eval_results or ()), *foreign] or None
    return str(card)


def check_card(folder: Path) -> str | None:
    """The text of a folder's card, None if there is none with live parts. Call it before a command changes what such
    a card says, since the card is written again afterwards.

    Raises:
        ValueError: naming the file and what is wrong, if it cannot be read, or a mark of a part has no partner.
    """
    path = folder / "README.md"
    if not path.is_file():
        return None
    text = read_card(path)
    try:
        return text if marked_parts(text, [f"iti-{name}" for name in LIVE]) else None
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None


def renew_card(folder: str | os.PathLike) -> bool:
    """Write the live parts of a folder's card again. If there is no card with such parts, it returns False and
    changes nothing.

    >>> from iti_llama import renew_card
    >>> renew_card("steered-llama")
    True
    """
    text = renewed_card(Path(folder))
    if text is not None:
        write_text(Path(folder, "README.md"), text)
    return text is not None


def _live_parts(card: str) -> dict[str, str]:
    """The live parts of a new card by the names of their marks, without the marks."""
    parts = marked_parts(card, [f"iti-{name}" for name in LIVE])
    return {name: "\n".join(card[start:end].split("\n")[1:-1]) for name, start, end in parts}


def _metadata(repo: SteeredRepo) -> ModelCardData:
    """The YAML that the Hub reads."""
    license_, made = repo.license, repo.provenance
    other = {} if license_ else {"license_name": BASES}
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
        eval_results=eval_results(repo.evaluation) if repo.is_measured else None,
    )


def _title(repo: SteeredRepo) -> str:
    return f"{repo.base_title}, steered: {repo.does}" if repo.does else f"{repo.base_title}, steered"


def _moved(evaluation: dict) -> dict:
    """How far the steering moves the perplexity, and on which texts: those that the checks use."""
    text, conditions = list(evaluation["divergence"].items())[-1]
    return {"text": text, "perplexity": math.exp(conditions["steered"]["nll_change"]["mean"])}


def _examples(evaluation: dict) -> dict:
    """Two prompts with their answers: the first ones that are answered differently, if there are any."""
    examples = evaluation.get("examples") or []
    changed = [example for example in examples if example["plain"] != example["steered"]]
    shown = (changed or examples)[:2]
    texts = [str(text) for example in shown for text in example.values()]
    return {
        "examples": [_example(**example) for example in shown],
        "changed": len(changed),
        "most_shown": MOST_SHOWN,
        "fence": "`" * max(3, 1 + max(map(len, re.findall("`+", "".join(texts))), default=0)),
    }


def _example(shown: str, plain: str, steered: str, **_) -> dict[str, str]:
    prompt = shown.rstrip(" ")
    indent = shown[len(prompt) :]  # an answer goes on where the prompt ends
    return {"shown": prompt.strip("\n"), "plain": indent + _cut(plain), "steered": indent + _cut(steered)}


def _cut(answer: str) -> str:
    return answer.rstrip() if len(answer) <= MOST_SHOWN else f"{answer[:MOST_SHOWN].rsplit(maxsplit=1)[0]} ..."


def _first_prompt(repo: SteeredRepo) -> dict:
    """The prompt of the quick start, and whether it is a chat message."""
    prompts = [(e["prompt"], e["shown"]) for e in repo.evaluation.get("examples", ())] or list(repo.prompts)
    prompts = sorted(prompts, key=lambda pair: len(pair[1]) > 300)[:1] or [("Once upon a time", "Once upon a time")]
    given, shown = prompts[0]
    return {"prompt": shown, "chat": given != shown}


def name_repo(text: str, hub_name: str) -> str:
    """A card whose quick start loads `hub_name`."""
    text = re.sub(r'^repo = "[^"\n]*".*$', f'repo = "{hub_name}"', text, count=1, flags=re.MULTILINE)
    return text.replace("`iti-llama verify REPO`", f"`iti-llama verify {hub_name}`")


def with_base(text: str, base: str | None) -> str:
    """A card that names the base of an adapter and its licence, if it did not name a base before."""
    parsed = ModelCard(text)
    if base is None or parsed.data.base_model:
        return text
    parsed.data.base_model, parsed.data["base_model_relation"] = base, "adapter"
    license_ = base_license(base)
    if license_ and parsed.data.license in (None, "other"):
        parsed.data.license = license_
        parsed.data["license_name"] = None
    return str(parsed)


def write_results(path: Path, evaluation: dict) -> None:
    """Put the results of an evaluation into the `model-index` of a card."""
    card = ModelCard(read_card(path))
    card.data.model_name = card.data.model_name or re.search(r"^# (.+)$", card.text, re.MULTILINE)[1]
    card.data.eval_results = eval_results(evaluation)
    write_text(path, str(card))


def eval_results(evaluation: dict) -> list[EvalResult]:
    """For `model-index`: the shares of the plain and the steered answers. `evaluation` is `evaluation.json`."""
    tasks, sound, target = evaluation["tasks"], evaluation["sound"], evaluation["target"]
    metrics = {
        "sound": ("pass@1", "pass@1") if sound == "correct" else (sound, f"share: {sound}"),
        "target": ("target-share", f"share: {target}"),
    }
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"iti-llama/{tasks}",
            dataset_name=f"{tasks}, {share.n} answers",
            metric_type=kind,
            metric_name=f"{name}, {row.name} (alpha {row.alpha:g})",
            metric_value=round(share.mean, 4),
        )
        for row in map(Summary.from_dict, evaluation["summary"])
        for field, (kind, name) in metrics.items()
        if row.name in ("plain", "steered") and (share := getattr(row, field)) is not None
    ]
