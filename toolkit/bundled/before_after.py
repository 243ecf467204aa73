"""The answers of `iti-llama demo` as a document."""

from collections.abc import Sequence


def before_and_after(rows: Sequence[dict]) -> str:
    """The answers of `iti-llama demo` as a document."""
    parts = [
        "# Before and after",
        "",
        f"Made by `iti-llama demo --n {len(rows)} --markdown FILE`: the demo's own prompt, then the first "
        f"{len(rows) - 1} held-out tasks by "
        "index, good and bad alike. Greedy.",
    ]
    for row in rows:
        parts += ["", f"## {row['asked']}", "", f"{row['origin'].capitalize()}; {row['tests']} tests."]
        for name, alpha in (("plain", 0), ("steered", row["alpha"])):
            own = row[name]
            passed = "passes" if own["correct"] else "**fails**"
            parts += ["", f"{name.capitalize()} (alpha {alpha:g}): {own['style']}, {passed} its tests.", ""]
            parts += ["```python", own["program"].rstrip(), "```"]
    return "\n".join(parts) + "\n"
