"""The card of an export: what it is, how to run it, and how to see that it steers. Its words are in the template
beside this file."""

import json
import shlex
from pathlib import Path

from huggingface_hub import ModelCardData

from ..repo.card import TAGS
from ..repo.fill_template import fill_template
from .canary import FILE, Canary
from .source import Source


def export_card(source: Source, to: str, canary: Canary | None, notes: list[str]) -> str:
    """The text of README.md."""
    base = source.hub_base or "BASE"
    return fill_template(
        Path(__file__).with_name("export_card_template.md"),
        card_data=ModelCardData(
            base_model=source.hub_base,
            library_name={"peft": "peft", "gguf": "gguf"}.get(to, "transformers"),
            pipeline_tag="text-generation",
            tags=TAGS,
        ),
        source=source,
        to=to,
        name=Path(source.repo).resolve().name if Path(source.repo).is_dir() else source.repo,
        behaviour=source.steered.directions[source.behaviours[0].name].provenance.get("behaviour", ""),
        base_in_python=json.dumps(base, ensure_ascii=False),
        base_in_shell=shlex.quote(base),
        canary=canary,
        canary_file=FILE,
        notes=notes,
    )
