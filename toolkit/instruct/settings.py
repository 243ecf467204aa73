"""The settings for steering from a sentence. Imports are light: the command line builds its options from it."""

from dataclasses import dataclass
from pathlib import Path

from ..foundation.settings import setting


PLACES = ("system", "before", "after", "comment")
"""Where an instruction stands: in the system turn, before or after the user's words, or as a comment above them."""


@dataclass(frozen=True)
class Instruction:
    """A sentence in place of a labelled file; without one, `instruction` is None."""

    instruction: str | None = setting(
        None, 'a sentence to steer towards, instead of a labelled file, as in "Answer in one short sentence."'
    )
    against: str | None = setting(
        None, "with --instruction: an opposite sentence, to compare with; by default no sentence"
    )
    place: str | None = setting(
        None,
        f"with --instruction: its place, {', '.join(PLACES)}; by default the place where the base follows it best",
    )
    prompts: Path | None = setting(
        None,
        "with --instruction: requests to answer, in a text file (one on each line), JSON Lines, a JSON list or CSV; "
        "by default 400 everyday ones",
    )

    def __post_init__(self):
        for name in ("instruction", "against"):
            text = getattr(self, name)
            if text is not None and (not text.strip() or "\n" in text):
                raise ValueError(f"--{name} is {text!r}; expected some words on one line")
        if self.place not in (None, *PLACES):
            raise ValueError(f"--place is {self.place!r}; expected one of {', '.join(PLACES)}")
        lone = next((name for name in ("against", "place", "prompts") if getattr(self, name) is not None), None)
        if lone and self.instruction is None:
            raise ValueError(f"--{lone} is given without --instruction; expected both")
