"""Draw the HTML of the page: answers with coloured and compared tokens, the scale of strengths, the heads."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from html import escape

import torch

from ..repo.steered_repo import SteeredRepo, strengths_inside
from .steered import Answer


def differing(answer: Answer, plain: Answer) -> set[int]:
    """The places of tokens that differ from the plain answer."""
    blocks = SequenceMatcher(None, plain.tokens, answer.tokens, autojunk=False).get_opcodes()
    return {place for kind, _, _, start, end in blocks if kind != "equal" for place in range(start, end)}


def answer_html(
    answer: Answer,
    plain: Answer,
    heads: Sequence[tuple[int, int]] = (),
    projections: torch.Tensor | None = None,
    full: float = 1.0,
    verdict: str = "",
) -> str:
    """One answer. heads: the (layer, head) of each row of projections [heads, tokens]. full: the sigmas at which a
    token's colour is full."""
    differs, spans = differing(answer, plain), []
    for place, token in enumerate(answer.tokens):
        style, title = "", ""
        if projections is not None and len(heads):
            values = projections[:, place]
            mean, most = float(values.mean()), int(values.abs().argmax())
            strength = min(abs(mean) / full, 1.0)
            colour = "224, 122, 32" if mean > 0 else "40, 120, 210"
            style = f' style="background: rgba({colour}, {0.55 * strength:.2f})"'
            layer, head = heads[most]
            said = f"mean of {len(heads)} heads {mean:+.2f} sigmas"
            said += f"; most: layer {layer} head {head} {values[most]:+.2f}"
            title = f' title="{said}"'
        kind = ' class="iti-differs"' if place in differs else ""
        spans.append(f"<span{kind}{style}{title}>{escape(token)}</span>")
    name = {True: "plain, alpha 0"}.get(answer.alpha == 0, f"alpha {answer.alpha:+g}")
    text = "".join(spans) or '<span class="iti-waiting">&hellip;</span>'
    below = f'<p class="iti-verdict">{escape(verdict)}</p>' if verdict else ""
    label = f"Answer at {name}"
    return (
        f'<section class="iti-answer" aria-label="{label}"><h3>{name}</h3>'
        f'<pre tabindex="0" aria-label="{label}">{text}</pre>{below}</section>'
    )


def safe_strengths(repo: SteeredRepo) -> list[float]:
    """`strengths_inside` of the repo's sweep, with the shipped heads and scope; [] if there was no sweep."""
    return strengths_inside(repo.sweep, repo.heads, repo.scope)


def scale_html(repo: SteeredRepo, largest: float) -> str:
    """A strip under the slider, from 0 to `largest`. It is shaded up to the largest strength that the sweep allows,
    and has a mark at the repo's strength."""
    inside, alpha = safe_strengths(repo), abs(repo.alpha)
    share = 100 * min(max(inside, default=0.0) / largest, 1.0)
    legend = f"Mark: the shipped strength, {repo.alpha:g}. "
    if inside:
        legend += (
            f"Shaded: up to {max(inside):g}, inside the guard on {repo.sweep['n']} validation tasks "
            f"({repo.sweep['tasks']})."
        )
    else:
        legend += "No sweep says which strengths are safe."
    if repo.is_measured and repo.evaluation.get("checks"):
        checks = [f"{c['name']} {'pass' if c['passed'] else 'FAIL'}" for c in repo.evaluation["checks"]]
        legend += f" At the mark, checks: {', '.join(checks)}."
    return (
        f'<div class="iti-scale" role="img" aria-label="{escape(legend)}">'
        f'<div class="iti-safe" style="width: {share:.1f}%"></div>'
        f'<div class="iti-mark" style="left: {100 * min(alpha / largest, 1.0):.1f}%"></div></div>'
        f'<p class="iti-note">{escape(legend)}</p>'
    )


CSS = """
.iti-answer pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85rem; line-height: 1.5;
    padding: 0.6rem; border: 1px solid var(--border-color-primary); border-radius: 6px; min-height: 6rem;
    background: var(--background-fill-secondary); color: var(--body-text-color); }
.iti-answer h3 { margin: 0 0 0.3rem 0; font-size: 1rem; }
.iti-differs { text-decoration: underline; text-decoration-thickness: 2px; font-weight: 600; }
.iti-verdict, .iti-note { font-size: 0.85rem; color: var(--body-text-color); margin: 0.2rem 0; }
.iti-scale { position: relative; height: 10px; border-radius: 5px; background: var(--border-color-primary); }
.iti-safe { position: absolute; height: 100%; border-radius: 5px; background: rgba(60, 160, 90, 0.75); }
.iti-mark { position: absolute; top: -4px; width: 3px; height: 18px; margin-left: -1px;
    background: var(--body-text-color); }
#iti-heads .wrap { display: grid; gap: 3px; overflow-x: auto; }
#iti-heads label { margin: 0; padding: 2px 4px; min-width: 3.4rem; font-size: 0.75rem; justify-content: center; }
footer { display: none !important; }
"""


def heads_css(heads: Sequence[tuple[int, int]]) -> str:
    """CSS that lays out the heads' checkboxes as a picture: a row for each layer, a column for each head."""
    layers, columns = sorted({layer for layer, _ in heads}), sorted({head for _, head in heads})
    lines = [
        f"#iti-heads .wrap label:nth-of-type({place}) {{ grid-row: {layers.index(layer) + 1}; "
        f"grid-column: {columns.index(head) + 1}; }}"
        for place, (layer, head) in enumerate(heads, 1)
    ]
    return "\n".join(lines)
