"""`iti-llama info`"""

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..foundation.package import ROOT
from .options import Json, Revision, console


def info(
    repo: Annotated[str, typer.Argument(help="Hub repo or folder; the bundled model by default")] = str(ROOT),
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """What is in a steered repo: base, heads by layer, alpha, scope, site, provenance. Loads no weights, runs no
    code."""
    from ..repo.info import inspect

    found = inspect(repo, revision)
    if json_:
        print(json.dumps(found.to_dict(), indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "repo": found.repo,
        "form": found.form,
        "base": " ".join(part for part in (found.base, found.base_revision) if part) or "not recorded",
        "geometry": found.geometry,
        "alpha": f"{found.alpha:g} sigma",
        "scope": found.scope,
        "site": found.site,
        "heads": f"{found.heads_in_use} of {found.heads_in_file} in the file ({found.directions_bytes:,} bytes)",
        "best head": found.top_head,
    }
    rows |= {f"layer {layer}": f"heads {', '.join(map(str, heads))}" for layer, heads in found.heads_by_layer.items()}
    rows |= found.provenance
    for name, value in rows.items():
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(str(value)))
    console.print(table)
