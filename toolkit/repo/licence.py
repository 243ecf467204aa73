"""The licence of a base model, and where to read it."""

import re
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError


LICENSES = {
    r"llama-?3\.1": "llama3.1",
    r"llama-?3\.2": "llama3.2",
    r"llama-?3\.3": "llama3.3",
    r"llama-?3": "llama3",
    r"llama-?2": "llama2",
}
"""Licences by the name of a base model, for one whose card does not name its licence."""

LINKS = {
    "apache-2.0": "https://choosealicense.com/licenses/apache-2.0/",
    "mit": "https://choosealicense.com/licenses/mit/",
    "bsd-3-clause": "https://choosealicense.com/licenses/bsd-3-clause/",
    "llama3.1": "https://www.llama.com/llama3_1/license/",
    "llama3.2": "https://www.llama.com/llama3_2/license/",
    "llama3.3": "https://www.llama.com/llama3_3/license/",
    "llama3": "https://www.llama.com/llama3/license/",
    "llama2": "https://ai.meta.com/llama/license/",
}


def base_license(base: str | None) -> str | None:
    """The licence that the card of a base model names, on the Hub or in a folder, or else the one that its name
    suggests; None if there is neither."""
    if base is None or (Path(base).is_dir() and not Path(base, "README.md").is_file()):
        return None
    on_card = _on_card(Path(base, "README.md") if Path(base).is_dir() else base)
    named = (license_ for pattern, license_ in LICENSES.items() if re.search(pattern, base, re.IGNORECASE))
    return on_card or next(named, None)


def _on_card(card: str | Path) -> str | None:
    try:
        return ModelCard.load(card).data.license
    except (OSError, ValueError, HfHubHTTPError, yaml.YAMLError):  # somebody else's card
        return None


def link_of(license_: str | None, base: str | None) -> str | None:
    """Where a licence can be read: on its own page if that is known, else on the page of the base on the Hub."""
    if license_ is None:
        return None
    return LINKS.get(license_) or (f"https://huggingface.co/{base}" if base and not Path(base).is_dir() else None)
