"""Tool why: what an artefact was made from."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cutsew.errors import UserError
from cutsew.provenance.lineage import Traces, shown
from cutsew.provenance.tree import explain, lines


def why(
    artefact: Annotated[Path, typer.Argument(help="A file of a run's folder, a Zarr or a chunk file of one.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole tree, settings in full, as JSON.")] = False,
) -> None:
    """Show an artefact's provenance and settings, back to the input photos."""
    if not artefact.exists():
        raise UserError(f"{artefact}: no such file; name an artefact of a run, such as results/demo/default/fused.zarr")
    cause = explain(artefact, Traces())
    if cause.kind == "given":
        raise UserError(f"{artefact}: has no record of how it was made; name an artefact of a run")
    if as_json:
        typer.echo(json.dumps(cause.as_dict(), indent=1, ensure_ascii=False))
        return
    for line in lines(cause, shown):
        typer.echo(line)
