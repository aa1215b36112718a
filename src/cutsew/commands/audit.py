"""Tool audit: where each label of a run comes from."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cutsew.audit.photo import photo_audit
from cutsew.audit.run import Run
from cutsew.audit.summary import class_audit, summary
from cutsew.audit.text import class_lines, photo_lines, summary_lines


def audit(
    run: Annotated[Path, typer.Argument(help="A run's folder, results/<dataset>/<run>.")],
    *,
    image: Annotated[str | None, typer.Option(help="Id of a photo: its whole story.")] = None,
    name: Annotated[
        str | None, typer.Option("--class", help="A class: its strongest and weakest photos; with --image, it alone.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Photos in each list of --class (10), classes of each view of --image (3)."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="--image: look for it in the sewn photos of so many epochs only.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON, numbers in full.")] = False,
) -> None:
    """Show where the labels of a run come from: per stage, per photo or per class.

    Reads only the requested rows and writes nothing. Ground-truth labels, if any, are shown and marked.
    """
    found = Run(run)
    found.warn_of_edited_corrections()
    if image is not None:
        told, lines = photo_audit(found, image, name, top or 3, epochs), photo_lines
    elif name is not None:
        told, lines = class_audit(found, name, top or 10), class_lines
    else:
        told, lines = summary(found), summary_lines
    if as_json:
        typer.echo(json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False))
        return
    for line in lines(told):
        typer.echo(line)
