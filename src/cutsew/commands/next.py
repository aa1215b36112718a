"""Tool next: the images whose labels a human's look would help most."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from cutsew.audit.review_queue import Reviewed, queue
from cutsew.audit.run import Run
from cutsew.audit.text import table
from cutsew.commands.labels import Split
from cutsew.errors import printable
from cutsew.storage.csv_rows import csv_writer
from cutsew.storage.label_table import joined

SHOWN = ("rank", "id", "split", "score", "labels", "doubtful")
"""Columns of the text."""


class Form(StrEnum):
    """How the list is printed."""

    text = "text"
    csv = "csv"
    json = "json"


def next(  # noqa: A001 - as it is called on the command line
    run: Annotated[Path, typer.Argument(help="A run's folder, results/<dataset>/<run>.")],
    *,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many images.")] = 50,
    split: Annotated[Split | None, typer.Option(help="Only training or only held-out images.")] = None,
    form: Annotated[Form, typer.Option("--format", help="text, csv or json.")] = Form.text,
) -> None:
    """List the images whose labels a human should look at next.

    Prefers images with labels close to their decision threshold or stages that disagree, and among these, images whose
    embeddings differ. True labels are not read. Images that were already corrected are left out.
    """
    result = Run(run)
    result.warn_of_edited_corrections()
    chosen = queue(Reviewed.of(result), number, split)
    if form is Form.json:
        typer.echo(json.dumps(chosen.to_dict("records"), indent=1, ensure_ascii=False, allow_nan=False))
        return
    for name in ("labels", "doubtful"):
        chosen[name] = [joined(names) for names in chosen[name]]
    if form is Form.csv:
        _print_csv(chosen)
        return
    rows = [[printable(v) if isinstance(v, str) else v for v in row] for row in chosen[list(SHOWN)].to_numpy().tolist()]
    for line in table(SHOWN, rows):
        typer.echo(line)


def _print_csv(chosen: pd.DataFrame) -> None:
    rows = csv_writer(sys.stdout)
    rows.writerow(chosen.columns)
    for row in chosen.to_numpy().tolist():
        rows.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])
