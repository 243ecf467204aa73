"""The model card of a steered repo: what the Hub reads (YAML) and what people read."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from iti_llama import ITIDirections, ITILlamaConfig

from ..fit.report_table import report_table
from ..foundation.files import write_text


if TYPE_CHECKING:
    from ..measure.evaluate import Measured


TAGS = ["inference-time-intervention", "iti", "activation-steering", "llama"]


def section(name: str, text: str) -> str:
    """A part of a card that a command can replace later."""
    return f"<!-- {name}: begin -->\n{text.strip()}\n<!-- {name}: end -->"


def replace_section(path: Path, name: str, text: str) -> None:
    """Replace a part that `section` marked.

    Raises:
        ValueError: if the file has no such part.
    """
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"<!-- {re.escape(name)}: begin -->.*?<!-- {re.escape(name)}: end -->", re.DOTALL)
    if not pattern.search(old):
        raise ValueError(f"{path}: has no part between '<!-- {name}: begin -->' and '<!-- {name}: end -->'")
    write_text(path, pattern.sub(lambda _: section(name, text), old))


NOT_MEASURED = "Not measured yet: alpha was not chosen on any data. `iti-llama sweep` measures and chooses it."

LICENSES = {
    r"llama-?3\.1": "llama3.1",
    r"llama-?3\.2": "llama3.2",
    r"llama-?3\.3": "llama3.3",
    r"llama-?3": "llama3",
    r"llama-?2": "llama2",
}
"""Licences by the name of a base model, where its own card does not say."""


def base_license(base: str | None) -> str | None:
    """The licence that a base model's own card names, or else its name suggests; None if neither does."""
    if base is None:
        return None
    try:
        found = ModelCard.load(base).data.license
    except (OSError, ValueError, HfHubHTTPError):
        found = None
    named = (license_ for pattern, license_ in LICENSES.items() if re.search(pattern, base, re.IGNORECASE))
    return found or next(named, None)


def _front(config: ITILlamaConfig, base: str | None) -> str:
    """The YAML that the Hub reads."""
    license_ = base_license(base)
    adapter = config.base_model_name_or_path is not None
    return ModelCardData(
        license=license_ or "other",
        **({} if license_ else {"license_name": "license-of-the-base-model"}),
        base_model=base,
        **({"base_model_relation": "adapter" if adapter else "finetune"} if base else {}),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=TAGS,
    ).to_yaml()


def _body(config: ITILlamaConfig, directions: ITIDirections, name: str, base: str | None, repo: str) -> str:
    """Title, what this is, and a quick start that names `repo`."""
    adapter = config.base_model_name_or_path is not None
    heads = len(directions.top(config.iti_top_k))
    weights = (
        f"The weights come from `{base or config.base_model_name_or_path}`; this repo holds the directions and the "
        "code."
        if adapter
        else "The weights are in this repo, unchanged from the base."
    )
    license_ = base_license(base)
    terms = f" The base is under the licence `{license_}`, and so is what is made of it." if license_ else ""
    return f"""# {name}, steered

A Llama with Inference-Time Intervention (Li et al. 2023, [arXiv 2306.03341](https://arxiv.org/abs/2306.03341)):
{heads} attention heads are shifted by alpha = {config.iti_alpha:g} sigma along fixed directions, at scope
"{config.iti_scope}". {weights}{terms}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

repo = "{repo}"
model = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, device_map="auto", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(repo)
inputs = tokenizer("Once upon a time", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0], skip_special_tokens=True))

model.iti_alpha = 0.0  # the base model, bit by bit; any other strength works too
```

`trust_remote_code=True` runs the four Python files of this repo. Pin them with
`revision="COMMIT", code_revision="COMMIT"`, or install the package `iti-llama` and leave it out;
`iti-llama verify {repo}` says what would run.
"""


def card(config: ITILlamaConfig, directions: ITIDirections, found: dict, base: str | None, repo: str = "REPO") -> str:
    """The card of a repo that `fit` made. `base` is the base's Hub name, None for one on disk; `repo` the name that
    the quick start loads."""
    return f"""---
{_front(config, base)}
---

{_body(config, directions, found["base_model"], base, repo)}
## How the directions were made

{section("fit", report_table(found))}

![AUC of every head](figures/head_auc.png)

## What the steering does

{section("evaluation", NOT_MEASURED)}
"""


def converted_card(
    config: ITILlamaConfig,
    directions: ITIDirections,
    said: Sequence[str],
    source: str,
    base: str | None,
    repo: str = "REPO",
) -> str:
    """The card of a repo that `convert` made."""
    decisions = "\n".join(f"- {line}" for line in said)
    return f"""---
{_front(config, base)}
---

{_body(config, directions, directions.base_model, base, repo)}
## Where the directions come from

Converted from `{Path(source).name if Path(source).exists() else source}`:

{decisions}

## What the steering does

{section("evaluation", "Not measured here. `iti-llama evaluate` measures it.")}
"""


def name_repo(text: str, repo: str) -> str:
    """A card whose quick start loads `repo`."""
    text = re.sub(r'^repo = "[^"\n]*".*$', f'repo = "{repo}"', text, count=1, flags=re.MULTILINE)
    return text.replace("`iti-llama verify REPO`", f"`iti-llama verify {repo}`")


def with_base(text: str, config: ITILlamaConfig) -> str:
    """A card that names the base of an adapter, and its licence, where it names none yet."""
    base, parsed = config.base_model_name_or_path, ModelCard(text)
    if base is None or parsed.data.base_model:
        return text
    parsed.data.base_model, parsed.data["base_model_relation"] = base, "adapter"
    license_ = base_license(base)
    if license_ and parsed.data.license in (None, "other"):
        parsed.data.license = license_
        parsed.data["license_name"] = None
    return str(parsed)


def write_results(path: Path, tasks: str, target: str, rows: Sequence["Measured"]) -> None:
    """Put pass@1 and the target share of the plain and the steered condition into a card's `model-index`."""
    card = ModelCard.load(path)
    card.data.model_name = card.data.model_name or re.search(r"^# (.+)$", card.text, re.MULTILINE)[1]
    card.data.eval_results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"iti-llama/{tasks}",
            dataset_name=f"{tasks}, {row.correct.n} answers",
            metric_type=kind,
            metric_name=f"{name}, {row.condition} (alpha {row.alpha:g})",
            metric_value=round(getattr(row, field).mean, 4),
        )
        for row in rows
        if row.condition in ("plain", "steered")
        for kind, name, field in (("pass@1", "pass@1", "correct"), ("target-share", f"share of {target}", "target"))
    ]
    write_text(path, str(card))
