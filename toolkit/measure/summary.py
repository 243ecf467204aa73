"""The part of an evaluation that a card shows: four rows. A card is written without scikit-learn and matplotlib, so
they are not imported here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..foundation.intervals import Estimate
from ..foundation.markdown_table import markdown_table


TOLD, BOTH = "asked in words", "asked in words, steered"
"""The names of the conditions in which the prompt asks in words, without steering and with it."""


@dataclass(frozen=True)
class Summary:
    """One row. sound: see `TaskSet`; None where every answer is sound. kl: nats a token, None for plain. odds_change:
    for labelled pairs, the gain of the log-odds of label 1 on plain, pair by pair, in nats."""

    name: str
    alpha: float
    sound: Estimate | None
    target: Estimate
    kl: float | None
    odds_change: Estimate | None = None

    def to_dict(self) -> dict:
        """As JSON types. The divergence has three digits: further ones differ between machines."""
        return asdict(self) | {"kl": None if self.kl is None else float(f"{self.kl:.3g}")}

    @classmethod
    def from_dict(cls, row: dict) -> "Summary":
        read = {name: row[name] and Estimate(**row[name]) for name in ("sound", "target", "odds_change")}
        return cls(**row | read)


def summary_table(rows: Sequence[Summary], target: str, sound: str) -> str:
    """The rows as a table for a card."""
    odds = ["change of its log-odds, nats"] if rows[0].odds_change else []
    heads = ["", *([sound] if sound else []), target, *odds, "KL from plain, nats a token", "n"]
    lines = []
    for row in rows:
        cells = [f"{row.name} (alpha {row.alpha:g})", *([row.sound.percent()] if sound else []), row.target.percent()]
        cells += [row.odds_change.plain() if row.name != "plain" else ""] if odds else []
        cells += ["" if row.kl is None else f"{row.kl:.3f}", str(row.target.n)]
        lines.append(cells)
    return markdown_table(heads, lines)


def checks_table(checks: Sequence[dict]) -> str:
    """The checks of an evaluation, as `evaluation.json` holds them, as a table for a card; "" if there are none."""
    rows = [f"| {check['name']} | {'pass' if check['passed'] else '**fail**'} | {check['why']} |" for check in checks]
    return "\n".join(["| check | | |", "|---|---|---|", *rows]) if rows else ""
