"""A note beside the weights of a base in a folder says what they are, if they are not the original's. The report and
the card of what is fitted on them repeat it."""

import os
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from ..foundation.files import write_text
from .replace_parts import one_line, read_card


FIELD = "weights"
"""The field of the note in the metadata of the folder's card."""


def write_base_card(folder: Path, name: str, weights: str, license_: str | None, original: str | None) -> None:
    """Write the card of a base. weights: what they are, such as "dequantised from Q4_1 of FILE". original: the Hub
    repo of the model that they come from, if it is known."""
    data = ModelCardData(
        license=license_,
        base_model=original,
        library_name="transformers",
        pipeline_tag="text-generation",
        **{FIELD: weights},
    )
    of = f", that of [{original}](https://huggingface.co/{original})" if original else ""
    text = f"""---
{data.to_yaml()}
---

# {one_line(name)}

A plain Llama{of}. Its weights are {one_line(weights)}.
If the file is quantised, they differ from the original's, and so may everything that is measured on them.
"""
    write_text(folder / "README.md", text)


def weights_of(base: str | os.PathLike) -> str | None:
    """What the card of a base in a folder says about its weights; None if it says nothing or cannot be read, or if the
    base is on the Hub."""
    card = Path(base, "README.md")
    if not card.is_file():
        return None
    try:
        return ModelCard(read_card(card)).data.get(FIELD)
    except ValueError:  # somebody else's card: those of `write_base_card` can be read
        return None
