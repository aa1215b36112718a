"""Compare a run's numbers with published ones."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from cutsew.errors import UserError
from cutsew.reporting.literature import join_published as beside
from cutsew.reporting.literature import protocol_of, published


def compare_published(run: Annotated[Path, typer.Argument(help="A run's folder, results/<dataset>/<run>.")]) -> None:
    """Compare a run's mAP with published numbers of the same benchmark and protocol.

    Published numbers of other protocols, or whose source does not state it, are listed separately and not compared.
    A run that is not the benchmark as published (a reduced copy, other rules for difficult objects or for images
    without labels) is refused.
    """
    measured = protocol_of(run)
    try:
        metrics = pd.read_csv(run / "metrics.csv")
    except (OSError, ValueError):
        raise UserError(f"{run / 'metrics.csv'}: cannot be read; name the folder of a finished run") from None
    table, others = beside(metrics, published(), measured)
    typer.echo(f"{measured.benchmark}, protocol {measured.protocol}, mAP in %")
    typer.echo(_as_text(table))
    for caveat in measured.caveats:
        typer.echo(f"note: {caveat}")
    if len(others):
        typer.echo("\nnot compared, since their protocol is another or not known:")
        typer.echo(_as_text(others[["protocol", "split", "stage", "mAP", "method", "source", "labels", "note"]]))


def _as_text(table: pd.DataFrame) -> str:
    return table.fillna({name: "" for name in table.columns if table[name].dtype == object}).to_string(
        index=False, na_rep="-", float_format=lambda x: f"{x:.1f}"
    )
