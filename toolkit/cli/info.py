"""`iti-llama info`"""

import json

from rich.markup import escape
from rich.table import Table

from ..foundation.package import ROOT
from .options import Json, RepoArgument, RepoOption, Revision, console, one_repo


MUCH = 0.5
"""The overlap of two behaviours from which on there is a warning."""


def info(
    repo: RepoArgument = None,
    model: RepoOption = None,
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """Show what is in a steered repo.

    Example: iti-llama info me/brief-llama

    Prints base, heads by layer, strength, scope and where the directions come from. Loads no model and runs no code.
    Without a name it describes the bundled model.
    """
    from ..repo.info import inspect

    facts = inspect(one_repo(repo, model, str(ROOT)), revision)
    if json_:
        print(json.dumps(facts.to_dict(), indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "repo": facts.repo,
        "form": facts.form,
        "base": " ".join(part for part in (facts.base, facts.base_revision) if part) or "not recorded",
        "geometry": facts.geometry,
        "alpha": f"{facts.alpha:g}" + (" sigma" if facts.site == "head" else ""),
        "scope": facts.scope,
        "site": facts.site,
        "heads": f"{facts.heads_in_use} of {facts.heads_in_file} in the file ({facts.directions_bytes:,} bytes)",
        "best head": facts.top_head,
    }
    rows |= {f"layer {layer}": f"heads {', '.join(map(str, heads))}" for layer, heads in facts.heads_by_layer.items()}
    for name, entry in facts.behaviours.items():
        rows[f"behaviour {name}"] = f"alpha {entry['alpha']:g}, {entry['heads']} heads, {entry['file']}"
    rows |= {"gate": facts.gate} if facts.gate else {}
    for pair, cosines in facts.overlap.items():
        by_layer = ", ".join(f"layer {layer}: {cosine:.2f}" for layer, cosine in cosines.items())
        rows[f"overlap of {pair}"] = (
            f"cosine of the {facts.overlap_of}, {by_layer}" if by_layer else "no layer in common"
        )
    rows |= facts.provenance
    for name, value in rows.items():
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(str(value)))
    console.print(table)
    for pair, cosines in facts.overlap.items():
        most = max(cosines.values(), key=abs, default=0.0)
        if abs(most) > MUCH:
            warning = f"{pair} overlap (cosine {most:.2f}): the strength of one changes what the other does"
            console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
