"""The strengths that a visitor or a client may ask for. Light: a server reads it in each of its processes."""

import os
from dataclasses import dataclass


ANY_STRENGTH = "ITI_ANY_STRENGTH"


def any_strength() -> bool:
    """Whether who runs the server allows every strength: `ITI_ANY_STRENGTH=1`."""
    return os.environ.get(ANY_STRENGTH) == "1"


@dataclass(frozen=True)
class StrengthRange:
    """low, high: the ends, which may be asked for too. measured: whether a sweep measured a strength of that size, and
    found it inside its guards; else the shipped strength is as strong."""

    low: float
    high: float
    measured: bool

    def __str__(self) -> str:
        ends = f"from {self.low:g} to {self.high:g}"
        if self.measured:
            return f"{ends}, no stronger than what the repo's sweep measured inside its guards"
        return f"{ends}, which was not measured, and is no stronger than the shipped strength"

    def check(self, strength: float, what: str) -> None:
        """Raises `ValueError`, which names `what`, for a strength outside."""
        if not self.low <= strength <= self.high:
            raise ValueError(f"{what} is {strength!r}; expected {self} ({ANY_STRENGTH}=1 of the server allows others)")
