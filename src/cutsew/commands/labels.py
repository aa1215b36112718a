"""Tool labels: a run's labels for the tools that people have."""

import logging
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cutsew.audit.annotation_tools import write_cvat, write_label_studio
from cutsew.audit.image_folders import write_huggingface, write_yolo
from cutsew.audit.label_export import Labels, choose
from cutsew.audit.label_formats import shown, write_cleanlab, write_coco, write_fiftyone, write_table
from cutsew.audit.run import Run
from cutsew.data.csv_file import IMAGE_COLUMNS, ImageNames, find_images, read_csv
from cutsew.errors import UserError, blocked

log = logging.getLogger(__name__)


class Format(StrEnum):
    """What opens the file."""

    fiftyone = "fiftyone"
    coco = "coco"
    cleanlab = "cleanlab"
    labelstudio = "labelstudio"
    cvat = "cvat"
    huggingface = "huggingface"
    yolo = "yolo"
    csv = "csv"
    parquet = "parquet"


class Split(StrEnum):
    """Which images."""

    train = "train"
    test = "test"


class Images(StrEnum):
    """How images get into a folder."""

    link = "link"
    copy = "copy"


SUFFIX = {
    Format.fiftyone: ".json",
    Format.coco: ".json",
    Format.cleanlab: ".npz",
    Format.labelstudio: ".json",
    Format.cvat: ".xml",
    Format.csv: ".csv",
    Format.parquet: ".parquet",
}
"""Of the files; the other formats are folders."""


def labels(
    run: Annotated[Path, typer.Argument(help="A run's folder, results/<dataset>/<run>.")],
    file: Annotated[Path, typer.Argument(help="File to write, or for huggingface and yolo a new folder.")],
    *,
    form: Annotated[Format, typer.Option("--format", help="The tool or format to write for.")],
    stage: Annotated[
        str | None, typer.Option(help="Stage whose labels to write; default: the last, refined and student.")
    ] = None,
    split: Annotated[Split | None, typer.Option(help="Only training or only held-out images.")] = None,
    only: Annotated[Path | None, typer.Option(help="Only the images in this CSV, as cutsew next writes it.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Decision threshold of every class; default: those of thresholds.csv, as in labels.csv.",
        ),
    ] = None,
    probabilities: Annotated[
        str | None, typer.Option(help="cleanlab: the stage that pred_probs come from; default: the labels' own.")
    ] = None,
    corrections: Annotated[
        bool, typer.Option("--corrections/--no-corrections", help="Let manual corrections replace the stage's labels.")
    ] = True,
    images: Annotated[Images | None, typer.Option(help="huggingface, yolo: link (default) or copy the images.")] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            help="labelstudio, cvat: the folder that image paths start from; default: /, and the images' own."
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="labelstudio: URL that serves --root; default: local files.")] = None,
) -> None:
    """Write a run's labels for other tools. Manual corrections take precedence and are marked."""
    _refuse_options(form, probabilities, images, root, url)
    suffix = SUFFIX.get(form)
    if suffix is not None and (line := blocked(file, folder=False)):
        raise UserError(line)
    if suffix is not None and file.suffix != suffix:
        raise UserError(f"{file}: the name must end in {suffix}, as readers of {form} files expect")
    run_read = Run(run)
    run_read.warn_of_edited_corrections()
    chosen = choose(run_read, stage, split, threshold, probabilities, by_hand=corrections)
    if only is not None:
        chosen = replace(chosen, images=chosen.images[chosen.images["id"].isin(_named_in(only, chosen))])
    count = _write(form, file, chosen, root, url, copy=images is Images.copy)
    if chosen.num_excluded:
        log.warning("%d images without finite labels are excluded", chosen.num_excluded)
        if chosen.corrections is not None:
            missing = {name for part in chosen.stages for name in run_read.ids(part)} - set(chosen.images["id"])
            unwritten = int(chosen.corrections.table["image"].isin(missing).sum())
            log.warning("%d corrections of those images are excluded with them", unwritten)
    stages = ", ".join(f"{name}: {stage_of_split}" for name, stage_of_split in chosen.stages.items())
    corrected = f"; {len(chosen.corrected)} set or crossed out by a human" if chosen.corrected is not None else ""
    rule = chosen.thresholds.in_words()
    typer.echo(f"{file}: {len(chosen.images)} images, {count} labels ({stages}; rule {rule}){corrected}")


def _refuse_options(
    form: Format, probabilities: str | None, images: Images | None, root: Path | None, url: str | None
) -> None:
    """Refuse options that a format does not take."""
    if probabilities is not None and form is not Format.cleanlab:
        raise UserError(f"--probabilities: {form} stores each label's own probability; omit it")
    takes = {
        "--images": (images, (Format.huggingface, Format.yolo)),
        "--root": (root, (Format.labelstudio, Format.cvat)),
        "--url": (url, (Format.labelstudio,)),
    }
    for option, (given, forms) in takes.items():
        if given is not None and form not in forms:
            raise UserError(f"{option}: for {' and '.join(forms)} only; leave it out")
    if root is not None and not root.is_dir():
        raise UserError(f"--root: {root}: no such folder; name the one that holds the images")


def _named_in(path: Path, chosen: Labels) -> set[str | None]:
    """Return the images that a CSV names."""
    table = read_csv(path, "--only")
    if not set(IMAGE_COLUMNS) & set(table.columns):
        raise UserError(f"--only: {path} has no column id; name a CSV that has one, such as that of cutsew next")
    names = ImageNames(chosen.images["id"].tolist(), chosen.images["path"].tolist())
    return set(find_images(table, names, path, "--only"))


def _write(form: Format, file: Path, chosen: Labels, root: Path | None, url: str | None, *, copy: bool) -> int:
    writers: dict[Format, Callable[[], int]] = {
        Format.fiftyone: lambda: write_fiftyone(file, chosen),
        Format.coco: lambda: write_coco(file, chosen),
        Format.cleanlab: lambda: write_cleanlab(file, chosen),
        Format.labelstudio: lambda: write_label_studio(file, chosen, root, url),
        Format.cvat: lambda: write_cvat(file, chosen, root),
        Format.huggingface: lambda: write_huggingface(file, chosen, copy=copy),
        Format.yolo: lambda: write_yolo(file, chosen, copy=copy),
        Format.csv: lambda: write_table([file], chosen.classes, shown(chosen)),
        Format.parquet: lambda: write_table([file], chosen.classes, shown(chosen)),
    }
    return writers[form]()
