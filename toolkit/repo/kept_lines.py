"""What a card says of a steering that was made from a sentence: what is kept of it, and what that costs."""

from ..foundation.intervals import Estimate
from .replace_parts import one_line


TOLD, BOTH = "asked in words", "asked in words, steered"
"""What the conditions are called in which the sentence is said, without steering and with it."""

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


def kept_line(evaluation: dict) -> str:
    """What is kept, in words, for a line."""
    said = evaluation["instruction"]
    line = f"{share(said['kept']['steered'])} of what saying it does is kept"
    return line if said["beyond_random"] else f"nothing is kept beyond random directions ({line})"


def kept_lines(evaluation: dict) -> str:
    """The sentence, what is kept of its effect, and the costs, in Markdown; `evaluation` is `evaluation.json`."""
    said, rows = evaluation["instruction"], {row["condition"]: row for row in evaluation["conditions"]}
    kept = {name: share(estimate) for name, estimate in said["kept"].items()}
    effect = f"Without being told, the steered model keeps **{kept['steered']}** of what the sentence does."
    if not said["beyond_random"]:
        effect = f"**Nothing is kept beyond random directions of equal norm.** {effect}"
    intact = {name: f"{100 * rows[name]['correct']['mean']:.0f}%" for name in ("plain", "steered", TOLD)}
    first, *_, last = (of_text["steered"] for of_text in evaluation["divergence"].values())
    ratio = last["perplexity_steered"] / last["perplexity_plain"]
    randoms = ", ".join(value for name, value in kept.items() if name.startswith("random"))
    return "\n".join(
        [
            f"> {one_line(said['text'])}",
            "",
            f"{effect} On this scale 0 is the plain model and 1 is the model that is told {WHERE[said['place']]}.",
            "It is the log-odds of a classifier of their answers, which mistakes",
            f"{100 * said['error']['mean']:.0f}% of others. Told and steered: {kept[BOTH]}.",
            f"At minus alpha: {kept['minus alpha']}. Along random directions: {randoms}.",
            "",
            f"It costs this much: {intact['steered']} of the answers are intact (plain {intact['plain']}, told",
            f"{intact[TOLD]}), the perplexity of the requests is {ratio:.3f} times plain's, and KL on plain answers",
            f"is {first['kl']['mean']:.3f} nats a token. It saves {said['tokens_saved']:g} tokens a request,",
            f"{100 * said['prefill_share']:.0f}% of its prompt. *Likeness* to the told model's own answers is",
            f"{said['likeness']:+.2f}.",
        ]
    )
