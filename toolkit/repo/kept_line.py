"""How much of a sentence's effect the steering made from it keeps, in words."""

from ..foundation.intervals import Estimate


WHERE = {
    "system": "in the system turn",
    "before": "before the request",
    "after": "after the request",
    "comment": "as a comment above the request",
}


def share(estimate: dict) -> str:
    """An `Estimate` of `evaluation.json`, as in "0.93 [0.71, 1.12]"."""
    kept = Estimate(**estimate)
    return f"{kept.mean:.2f} [{kept.low:.2f}, {kept.high:.2f}]"


def together_cells(together: dict) -> list[list[str]]:
    """The table for two behaviours, alone and both, row by row; the first row has its heads."""
    names = list(together["sentences"])
    rows = [["", "intact", *(f"kept of {name}" for name in names)]]
    for row in together["rows"]:
        kept = [share(row["kept"][name]) for name in names]
        rows.append([row["condition"], Estimate(**row["intact"]).percent(), *kept])
    return rows


def kept_line(evaluation: dict) -> str:
    """The line at the end of a run; `evaluation` is `evaluation.json`."""
    said = evaluation["instruction"]
    line = f"{share(said['kept']['steered'])} of the sentence's effect is kept"
    return line if said["beyond_random"] else f"nothing is kept beyond random directions ({line})"
