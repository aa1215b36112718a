"""Tool labels: a run's labels for the tools that people have."""

import logging
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cutsew.audit.label_export import Labels, choose
from cutsew.audit.label_formats import write_cleanlab, write_coco, write_fiftyone
from cutsew.audit.run import Run
from cutsew.errors import UserError

log = logging.getLogger(__name__)


class Format(StrEnum):
    """What opens the file."""

    fiftyone = "fiftyone"
    coco = "coco"
    cleanlab = "cleanlab"


class Split(StrEnum):
    """Which photos."""

    train = "train"
    test = "test"


WRITERS: dict[Format, Callable[[Path, Labels], int]] = {
    Format.fiftyone: write_fiftyone,
    Format.coco: write_coco,
    Format.cleanlab: write_cleanlab,
}


def labels(
    run: Annotated[Path, typer.Argument(help="A run's folder, results/<dataset>/<run>.")],
    file: Annotated[Path, typer.Argument(help="File to write: .json, for cleanlab .npz.")],
    *,
    form: Annotated[Format, typer.Option("--format", help="What is to open it.")],
    stage: Annotated[
        str | None, typer.Option(help="Whose labels; default: those of the last stage, refined and student.")
    ] = None,
    split: Annotated[Split | None, typer.Option(help="Only training or only held-out photos.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability from which a class is a label; default: evaluate's.")
    ] = None,
    probabilities: Annotated[
        str | None, typer.Option(help="cleanlab: the stage that pred_probs come from; default: the labels' own.")
    ] = None,
    corrections: Annotated[
        bool, typer.Option("--corrections/--no-corrections", help="A human's corrections win over the stage's labels.")
    ] = True,
) -> None:
    """Write a run's labels for FiftyOne, COCO's tools or cleanlab. A human's corrections win, and are marked."""
    if probabilities is not None and form is not Format.cleanlab:
        raise UserError(f"--probabilities: not for {form}, which shows a label with its own; leave it out")
    suffix = ".npz" if form is Format.cleanlab else ".json"
    if file.is_dir() or file.suffix != suffix:
        raise UserError(f"{file}: not a file's name in {suffix}; what opens {form} files looks at it")
    found = Run(run)
    found.warn_of_edited_corrections()
    chosen = choose(found, stage, split, threshold, probabilities, by_hand=corrections)
    count = WRITERS[form](file, chosen)
    if chosen.left_out:
        log.warning("%d photos without finite labels are left out", chosen.left_out)
        if chosen.corrections is not None:
            lost = {name for part in chosen.stages for name in found.ids(part)} - set(chosen.photos["id"])
            unwritten = int(chosen.corrections.table["image"].isin(lost).sum())
            log.warning("%d corrections of those photos are left out with them", unwritten)
    stages = ", ".join(f"{name}: {given}" for name, given in chosen.stages.items())
    corrected = f"; {len(chosen.corrected)} set or crossed out by a human" if chosen.corrected is not None else ""
    typer.echo(f"{file}: {len(chosen.photos)} photos, {count} labels ({stages}){corrected}")
