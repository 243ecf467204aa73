"""A sweep as a figure: target share, correctness and divergence against alpha."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..foundation.files import write_whole
from .sweep import Point, Rates, both_signs


def sweep_figure(
    points: Sequence[Point],
    chosen: Point | None,
    alphas: Sequence[float],
    found: Sequence[Sequence[Rates]],
    target: str,
    path: Path,
    sound: str = "correct",
    site: str = "head",
) -> Path:
    """Target share, pass@1 (or what `TaskSet.sound` names) and KL against alpha, both signs, at the chosen K and
    scope; the random draws are a band. If nothing was chosen, the figure shows the K and scope with the largest share
    in the target. site: that of the directions; alpha is in sigmas only at "head"."""
    target = target.replace("$", r"\$")  # matplotlib takes text between two of them for a formula
    shown = chosen or max(points, key=lambda p: p.at.both.mean)
    own = sorted((p for p in points if (p.top_k, p.scope) == (shown.top_k, shown.scope)), key=lambda p: p.alpha)
    own = [p for p in own if p.alpha != 0]
    zero = next(p for p in points if p.alpha == 0)
    xs = [-p.alpha for p in reversed(own)] + [0.0] + [p.alpha for p in own]
    rates = [p.minus for p in reversed(own)] + [zero.at] + [p.at for p in own]
    kls = [p.kl_minus for p in reversed(own)] + [0.0] + [p.kl for p in own]
    drawing = Figure(figsize=(7, 5.5))
    top, bottom = drawing.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    lines = [("target", target, "tab:orange")]
    if sound:
        lines.append(("correct", {"correct": "pass@1"}.get(sound, sound), "tab:blue"))
    for name, label, colour in lines:
        estimates = [getattr(rate, name) for rate in rates]
        means = [e.mean for e in estimates]
        errors = [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]
        top.errorbar(xs, means, errors, color=colour, marker="o", markersize=4, capsize=2, label=label)
    if found:
        order = sorted(range(2 * len(alphas)), key=lambda i: both_signs(alphas)[i])
        shares = [[draw[i].target.mean for draw in found] for i in order]
        xs_control = [both_signs(alphas)[i] for i in order]
        band = ([min(s) for s in shares], [max(s) for s in shares])
        top.fill_between(xs_control, *band, color="0.6", alpha=0.5, linewidth=2, label=f"{target}, random directions")
    bottom.plot(xs, kls, color="tab:green", marker="o", markersize=4)
    for axes in (top, bottom):
        if chosen is not None:
            axes.axvline(chosen.alpha, color="0.7", linestyle=":")
        axes.grid(alpha=0.3)
    top.set(
        ylabel="share of tasks",
        ylim=(-0.03, 1.05),
        title=f"{shown.top_k} heads, scope {shown.scope}, n = {zero.at.correct.n}",
    )
    top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=3, frameon=False, fontsize="small")
    alpha = "alpha, in sigmas" if site == "head" else "alpha"
    bottom.set(xlabel=f"{alpha} ({'dotted: chosen' if chosen else 'nothing chosen'})", ylabel="KL, nats a token")
    picture = io.BytesIO()
    drawing.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return write_whole(path, picture.getvalue())
