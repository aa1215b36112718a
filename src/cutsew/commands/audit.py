"""Tool audit: where each label of a run comes from."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cutsew.audit.image import image_audit
from cutsew.audit.run import Run
from cutsew.audit.summary import class_audit, summary
from cutsew.audit.text import class_lines, image_lines, summary_lines


def audit(
    run: Annotated[Path, typer.Argument(help="A run's folder, results/<dataset>/<run>.")],
    *,
    image: Annotated[str | None, typer.Option(help="Id of an image: show everything recorded about it.")] = None,
    name: Annotated[
        str | None,
        typer.Option("--class", help="A class: its strongest and weakest images; with --image, only this class."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Images in each list of --class (10), classes of each view of --image (3)."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="With --image: search only this many epochs of sewn images.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same content as JSON, with all digits.")] = False,
) -> None:
    """Show where the labels of a run come from: per stage, per image or per class.

    Reads only the requested rows and writes nothing. Ground-truth labels, if any, are shown and marked.
    """
    audited = Run(run)
    audited.warn_of_edited_corrections()
    if image is not None:
        content, lines = image_audit(audited, image, name, top or 3, epochs), image_lines
    elif name is not None:
        content, lines = class_audit(audited, name, top or 10), class_lines
    else:
        content, lines = summary(audited), summary_lines
    if as_json:
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        return
    for line in lines(content):
        typer.echo(line)
