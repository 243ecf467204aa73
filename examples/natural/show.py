"""The results of `measure.py` as tables for README.md, and the validation curves as a figure."""

import io
import math
from pathlib import Path

from matplotlib.figure import Figure

from iti_llama.toolkit.foundation.files import write_whole
from iti_llama.toolkit.foundation.intervals import Estimate
from iti_llama.toolkit.measure.summary import gates_table
from iti_llama.toolkit.repo.card import replace_section


CONDITIONS = {
    "plain": "plain",
    "steered": "steered",
    "minus alpha": "minus alpha",
    "asked in words": "asked by example",
    "asked in words, minus alpha": "asked by example, minus alpha",
}


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def percent(found: dict) -> str:
    return Estimate(**found).percent()


def number(found: dict) -> str:
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def base_table(results: dict) -> str:
    own = results["perplexity"]
    return table(
        ["the plain model, on held-out packages", ""],
        [
            ["perplexity a token", f"{own['model']:.1f}"],
            [f"{own['order']}-grams that read all training packages", f"{own['n-grams']:.1f}"],
            ["log-likelihood above theirs, nats a token", number(own["change of log-likelihood"])],
            ["modules sampled at temperature 0.8 that are Python", percent(results["free samples that parse"])],
        ],
    )


def reading_table(results: dict) -> str:
    rows = []
    for name, one in results["behaviours"].items():
        read, new = one["reading"], one["reading"]["held out"]
        layer, head = read["best head"]
        cells = [f"{name} ({read['rows']} rows)", f"{read['words, out-of-fold AUC']:.3f}"]
        cells += [f"{read['out-of-fold AUC']:.3f} (layer {layer}, head {head})"]
        names = ("words", "best head", "all heads", "all heads above words")
        cells += [number(new[key]) for key in names] if new else ["one label only", "", "", ""]
        rows.append(cells)
    heads = ["label", "words, in training packages", "best head, there", "words, in held-out packages"]
    return table([*heads, "best head", "all heads", "all heads above words"], rows)


def steering_table(results: dict, how: str) -> str:
    """One row a condition: share of the behaviour, and what it costs."""
    rows = []
    for name, one in results["behaviours"].items():
        if one["chosen"] is None:
            rows.append([name, "nothing chosen: no point beat plain inside the guard", "", "", "", "", ""])
            continue
        found = one[how]
        for row in found["conditions"]:
            shown = CONDITIONS.get(row["condition"], row["condition"])
            change = Estimate(**row["target_change"]).points() if row["condition"] != "plain" else ""
            damage = found["divergence"]["code"].get(row["condition"])
            ratio = f"{math.exp(damage['nll_change']['mean']):.3f}" if damage else ""
            cells = [name, f"{shown} ({row['alpha']:g})", percent(row["target"]), change, percent(row["correct"])]
            rows.append([*cells, percent(row["degenerate"]), ratio])
            name = ""
    heads = ["behaviour", "condition (alpha)", "does it", "change, points", "parses", "degenerate"]
    return table([*heads, "perplexity of code, times plain's"], rows)


def chosen_table(results: dict) -> str:
    rows = []
    for name, one in results["behaviours"].items():
        own = one["chosen"]
        if own is None:
            rows.append([name, "nothing", "", "", ""])
            continue
        wrong = next(row for row in one["greedy"]["conditions"] if row["condition"] == "steered")["wrong_way"]
        share = f"{100 * len(wrong) / one['greedy']['n']:.1f}%"
        rows.append([name, own["variant"], str(own["top_k"]), f"{own['alpha']:g}", share])
    return table(["behaviour", "directions", "heads", "alpha", "answers steered the wrong way"], rows)


def variants_table(results: dict) -> str:
    """Of each variant the point of its curve with the largest share, whatever it costs, on the validation packages."""
    rows = []
    for name, one in results["behaviours"].items():
        for variant in dict.fromkeys(point["variant"] for point in one["curve"]):
            own = [point for point in one["curve"] if point["variant"] == variant and point["alpha"] != 0]
            best = max(own, key=lambda point: point["at"]["both"]["mean"])
            where = f"{best['top_k']} heads, alpha {best['alpha']:g}"
            rates = [percent(best["at"]["both"]), percent(best["at"]["correct"]), f"{best['perplexity']:.3f}"]
            rows.append([name, variant, where, *rates])
            name = ""
    heads = ["behaviour", "directions", "most at", "parses and does it", "parses"]
    return table([*heads, "perplexity of code, times plain's"], rows)


def short_table(results: dict) -> str:
    """One row a behaviour: what greedy answers do, on the held-out packages."""
    rows = []
    for name, one in results["behaviours"].items():
        if one["chosen"] is None:
            rows.append([name, "", "nothing chosen", "", "", "", "", ""])
            continue
        own = {row["condition"]: row for row in one["greedy"]["conditions"]}
        randoms = [own[condition] for condition in own if condition.startswith("random")]
        best = max(randoms, key=lambda row: row["target"]["mean"])
        cells = [own["plain"], own["steered"], own["minus alpha"], best, own["asked in words"]]
        sound = f"{percent(own['plain']['correct'])} to {percent(own['steered']['correct'])}"
        rows.append([name, *(percent(row["target"]) for row in cells), sound, str(one["greedy"]["n"])])
    heads = ["behaviour", "plain", "steered", "minus alpha", "best of 3 random directions", "asked by example"]
    return table([*heads, "parses, plain to steered", "n"], rows)


def show(results: dict, readme: Path | None = None, figure: Path | None = None, summary: Path | None = None) -> str:
    """All tables, which also replace the part "natural" of `readme`; the short one that of `summary`."""
    plan, behaviours = results["plan"], results["behaviours"]
    chosen = {name: one for name, one in behaviours.items() if one["chosen"] is not None}
    sizes = {
        name: (one["greedy"]["n"], one["sampled"]["n"] * one["sampled"]["samples"]) for name, one in chosen.items()
    }
    parts = [base_table(results), "Who knows the label before it is written (AUC):", reading_table(results)]
    parts += [f"Chosen on {plan['validation']} prompts of the validation packages:", chosen_table(results)]
    parts += ["What each kind of directions does at most, there, whatever it costs:", variants_table(results)]
    told = ", ".join(f"{name} {greedy} and {sampled}" for name, (greedy, sampled) in sizes.items())
    parts += [f"Greedily, once, on the held-out packages (answers, greedily and sampled: {told}):"]
    parts += [steering_table(results, "greedy"), "Sampled at temperature 0.8:", steering_table(results, "sampled")]
    for name, one in chosen.items():
        parts += [f"Gates, {name}:", gates_table(one["greedy"]["gates"])]
    parts.append("In brackets 95% intervals, bootstrapped by file.")
    text = "\n\n".join(parts)
    if readme is not None:
        replace_section(readme, "natural", text)
    if summary is not None:
        replace_section(summary, "natural", short_table(results))
    if figure is not None:
        curves(results, figure)
    return text


def curves(results: dict, path: Path) -> Path:
    """Share of answers that parse and do it, against alpha on the validation packages: of each variant at the number
    of heads where it is largest."""
    drawing = Figure(figsize=(11, 3.2))
    panels = drawing.subplots(1, len(results["behaviours"]), sharey=True, squeeze=False)[0]
    for axes, (name, one) in zip(panels, results["behaviours"].items(), strict=True):
        for variant in dict.fromkeys(row["variant"] for row in one["curve"]):
            own = [row for row in one["curve"] if row["variant"] == variant]
            k = max(own[1:], key=lambda row: row["at"]["both"]["mean"])["top_k"]
            line = sorted((row for row in own if row["top_k"] == k or row["alpha"] == 0), key=lambda row: row["alpha"])
            means = [row["at"]["both"]["mean"] for row in line]
            errors = [[row["at"]["both"][end] for row in line] for end in ("low", "high")]
            xs = [row["alpha"] for row in line]
            (drawn,) = axes.plot(xs, means, marker="o", markersize=3, label=f"{variant} ({k} heads)")
            axes.fill_between(xs, *errors, alpha=0.12, color=drawn.get_color())
        axes.set(title=name, xlabel="alpha, in sigmas")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="parses and does it", ylim=(-0.03, 1.03))
    handles, labels = panels[0].get_legend_handles_labels()
    labels = [label.rpartition(" (")[0] for label in labels]
    drawing.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, -0.26), ncols=2, frameon=False)
    picture = io.BytesIO()
    drawing.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return write_whole(path, picture.getvalue())
