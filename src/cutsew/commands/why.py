"""Tool why: what an artifact was made from."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cutsew.errors import UserError
from cutsew.provenance.lineage import ProvenanceIndex, shown
from cutsew.provenance.tree import explain, lines


def why(
    artifact: Annotated[Path, typer.Argument(help="A file of a run's folder, a Zarr or a chunk file of one.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole tree, settings in full, as JSON.")] = False,
) -> None:
    """Show an artifact's provenance and settings, back to the input images."""
    if not artifact.exists():
        raise UserError(f"{artifact}: no such file; name an artifact of a run, such as results/demo/default/fused.zarr")
    cause = explain(artifact, ProvenanceIndex())
    if cause.kind == "given":
        raise UserError(f"{artifact}: has no record of how it was made; name an artifact of a run")
    if as_json:
        typer.echo(json.dumps(cause.as_dict(), indent=1, ensure_ascii=False))
        return
    for line in lines(cause, shown):
        typer.echo(line)
