"""`iti-llama info`"""

import json

from rich.markup import escape
from rich.table import Table

from ..foundation.package import ROOT
from .options import Json, RepoArgument, RepoOption, Revision, console, one_repo


MUCH = 0.5
"""Overlap of two behaviours that is warned of."""


def info(
    repo: RepoArgument = None,
    model: RepoOption = None,
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """What is in a steered repo (the bundled one by default): base, heads by layer, alpha, scope, site, provenance.
    Loads no model, runs no code."""
    from ..repo.info import inspect

    found = inspect(one_repo(repo, model, str(ROOT)), revision)
    if json_:
        print(json.dumps(found.to_dict(), indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "repo": found.repo,
        "form": found.form,
        "base": " ".join(part for part in (found.base, found.base_revision) if part) or "not recorded",
        "geometry": found.geometry,
        "alpha": f"{found.alpha:g}" + (" sigma" if found.site == "head" else ""),
        "scope": found.scope,
        "site": found.site,
        "heads": f"{found.heads_in_use} of {found.heads_in_file} in the file ({found.directions_bytes:,} bytes)",
        "best head": found.top_head,
    }
    rows |= {f"layer {layer}": f"heads {', '.join(map(str, heads))}" for layer, heads in found.heads_by_layer.items()}
    for name, entry in found.behaviours.items():
        rows[f"behaviour {name}"] = f"alpha {entry['alpha']:g}, {entry['heads']} heads, {entry['file']}"
    rows |= {"gate": found.gate} if found.gate else {}
    for pair, cosines in found.overlap.items():
        told = ", ".join(f"layer {layer}: {cosine:.2f}" for layer, cosine in cosines.items())
        rows[f"overlap of {pair}"] = f"cosine of the {found.overlap_of}, {told}" if told else "no layer in common"
    rows |= found.provenance
    for name, value in rows.items():
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(str(value)))
    console.print(table)
    for pair, cosines in found.overlap.items():
        most = max(cosines.values(), key=abs, default=0.0)
        if abs(most) > MUCH:
            said = f"{pair} overlap (cosine {most:.2f}): the strength of one changes what the other does"
            console.print(f"[yellow]warning:[/yellow] {escape(said)}", soft_wrap=True)
