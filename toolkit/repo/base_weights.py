"""What the weights of a base in a folder are, where they are not the original's: said once beside them, read again for
the report and the card of what is fitted on them."""

import os
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from ..foundation.files import write_text
from .replace_parts import one_line, read_card


FIELD = "weights"
"""Of the metadata of the folder's card."""


def write_base_card(folder: Path, name: str, weights: str, license_: str | None, original: str | None) -> None:
    """The card of a base. weights: what they are, as "dequantised from Q4_1 of FILE"; original: the Hub repo of the
    model that they come from, where that is known."""
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
Where the file is quantised, they differ from the original's, and so may whatever is measured on them.
"""
    write_text(folder / "README.md", text)


def weights_of(base: str | os.PathLike) -> str | None:
    """What the card of a base in a folder says of its weights; None where it says nothing, or cannot be read, and for
    one on the Hub."""
    card = Path(base, "README.md")
    if not card.is_file():
        return None
    try:
        return ModelCard(read_card(card)).data.get(FIELD)
    except ValueError:  # somebody else's: `write_base_card` writes what can be read
        return None
