"""What a first look at a folder of images and at this machine shows, and how fast the machine works.

`cutsew init` prints it and estimates a run's time from it. Images are listed by name; only a few are decoded.
"""

import csv
import http.client
import os
import platform
import shutil
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np
import torch
from pydantic import TypeAdapter

from cutsew.config import Config
from cutsew.data import folder
from cutsew.data.containers import Containers, list_members
from cutsew.data.csv_file import ImageNames
from cutsew.data.images import BadImage, read_image
from cutsew.data.truth_csv import check_csv
from cutsew.errors import UserError, counted
from cutsew.method.crops import whole_box
from cutsew.method.resample import crop_resize_all
from cutsew.models import teachers
from cutsew.pipeline.network_work import assumed_gflops, gflop_per_view
from cutsew.pipeline.run_estimate import Speed
from cutsew.runtime.device import mps_available
from cutsew.runtime.gpus import list_visible_gpus
from cutsew.runtime.machine import usable_cores
from cutsew.storage.label_table import MODEL_LABELS

PACKED = ("tar", "parquet")
"""Kinds of datasets, and suffixes, of files that hold many images; next to tars, img2dataset's Parquet has metadata."""

parse_packed = TypeAdapter[Containers](Containers).validate_python

SAMPLE = 8
"""Images that are decoded."""

VIEWS = 16
"""Views that the teacher is timed on."""

TRUTH_NAMES = ("truth", "ground_truth", "annotations", "labels")
"""Names of CSVs that are tried first."""

MOST_CSV_BYTES = 500_000_000

HUB_TIMEOUT = 5
"""Seconds that the model hub may take to answer."""


@dataclass(frozen=True)
class FolderSurvey:
    """A folder of images.

    Attributes:
        dataset: settings of `dataset` by which the images are found: kind, and the pattern of tars or Parquet files.
        ids: of the images: their paths below the folder, or names in tars and Parquet files.
        bytes: of all files that hold images.
        suffixes: how many image files have which suffix, the most frequent first.
        others: how many files are not images by their suffix.
        sides: width and height of the decoded images, in pixels.
        unreadable: those of the sample that cannot be decoded, and why.
        seconds: to decode one image on one core and resize it to the teacher's side; 0 where none could be.

    """

    dataset: dict[str, str]
    ids: list[str]
    bytes: int
    suffixes: list[tuple[str, int]]
    others: int
    sides: list[tuple[int, int]]
    unreadable: list[BadImage]
    seconds: float


@dataclass(frozen=True)
class Machine:
    """The machine that this process runs on.

    Attributes:
        cores: that this process may use.
        gpu: cuda or mps; None for a CPU alone.
        gpus: how many.
        free: bytes free on the disk of the working folder.
        hub: whether the model hub answers; None where it was not asked.

    """

    cores: int
    gpu: str | None
    gpus: int
    free: int
    hub: bool | None


class TimedTeacher(Protocol):
    """What is timed: see `models.teachers.Teacher`."""

    image_size: int

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Embed views."""


def survey_folder(root: Path, side: int) -> FolderSurvey:
    """List a folder's images, and decode a few that are spread over it.

    A folder without image files is searched for tars, then for Parquet files, that hold images.

    Args:
        root: the folder.
        side: of the views that images are resized to, in pixels.

    Raises:
        UserError: the folder is missing or unreadable, or holds no images, or a tar or Parquet file of it is damaged.

    """
    if not root.is_dir():
        raise UserError(f"{root}: is not a folder; name the folder of your images")
    leftovers: list[folder.Leftover] = []
    ids = folder.list_images(root, leftovers, tolerant=True)
    others = [leftover for leftover in leftovers if leftover.kind == "other"]
    dataset, files, addresses = {"kind": "folder"}, ids, [str(root / name) for name in ids]
    kind = next((kind for kind in PACKED if any(one.suffix == f".{kind}" for one in others)), None)
    if not ids and kind is not None:
        files = [os.path.relpath(one.path, root) for one in others if one.suffix == f".{kind}"]
        others = [one for one in others if one.suffix != f".{kind}"]
        dataset = {"kind": kind, "files": f"**/*.{kind}" if any("/" in name for name in files) else f"*.{kind}"}
        members = list_members(parse_packed(dataset | {"root": str(root), "on_bad_image": "skip"}), root)
        ids, addresses = [member[0] for member in members], [member[1] for member in members]
    if not ids:
        found = Counter(leftover.suffix for leftover in others).most_common(1)
        instead = f", only {len(others)} other files ({found[0][0]})" if found else ""
        raise UserError(f"{root}: holds no images{instead}; name the folder that does")
    sides, unreadable = [], []
    start = time.perf_counter()
    for address in addresses[:: max(1, len(ids) // SAMPLE)][:SAMPLE]:
        try:
            image = read_image(address)
        except BadImage as error:
            unreadable.append(error)
            continue
        crop_resize_all(image, whole_box(*image.size)[None], side)
        sides.append(image.size)
    seconds = (time.perf_counter() - start) / len(sides) if sides else 0.0
    size = sum(os.stat(root / name).st_size for name in files if (root / name).exists())  # noqa: PTH116
    suffixes = Counter(folder.suffix_of(name) for name in files).most_common()
    return FolderSurvey(dataset, ids, size, suffixes, len(others), sides, unreadable, seconds)


def find_truth(root: Path, ids: Sequence[str], classes: Sequence[str]) -> Path | None:
    """Find a CSV of true labels in a folder of images or next to it: one that names some of the images and classes.

    Tables of predictions, such as those of `cutsew predict`, are passed over.
    """
    names = ImageNames(list(ids), [str(root / name) for name in ids], root)
    found = [path for place in (root, root.resolve().parent) for path in sorted(place.glob("*.csv"))]
    here = Path.cwd()
    for path in sorted(found, key=lambda path: path.stem.lower() not in (*TRUTH_NAMES, root.resolve().name.lower())):
        try:
            if path.stat().st_size > MOST_CSV_BYTES or _holds_predictions(path, classes):
                continue
            check_csv(path, classes, names)
        except (UserError, OSError, ValueError):  # a broken link, not text, or another table
            continue
        return path.relative_to(here) if path.is_relative_to(here) else path
    return None


def _holds_predictions(path: Path, classes: Sequence[str]) -> bool:
    """Check whether a table has probabilities, a column of that name or one per class beside the labels, or is ours."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        columns = {name.strip() for name in next(csv.reader(stream), [])}
    named = {"probability", MODEL_LABELS, *(classes if "labels" in columns else ())}
    return not columns.isdisjoint(named)


def survey_machine(*, ask_hub: bool) -> Machine:
    """Look at cores, GPU and disk, and see whether the model hub answers."""
    gpus = len(list_visible_gpus())
    gpu = "cuda" if gpus and torch.cuda.is_available() else "mps" if mps_available() else None
    return Machine(
        usable_cores(),
        gpu,
        gpus or int(gpu is not None),
        shutil.disk_usage(Path()).free,
        hub_answers() if ask_hub else None,
    )


def hub_answers() -> bool:
    """Ask the model hub (HF_ENDPOINT) for its start page, through the proxies of the environment."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not address.startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_TIMEOUT):  # noqa: S310
            return True
    except (OSError, ValueError, http.client.HTTPException):  # HF_ENDPOINT may be no address at all
        return False


def measure_speed(config: Config, seen: FolderSurvey, machine: Machine) -> tuple[Speed, bool]:
    """Measure how fast this machine is.

    A teacher whose weights come as packages is timed. One whose weights would have to be downloaded is not: its
    published GFLOP and a cautious figure for the device are taken.

    Args:
        config: of the run, with `cut.layout` resolved.
        seen: the folder, some of whose images were decoded.
        machine: this one.

    Returns:
        The speed, and whether the network was timed.

    Raises:
        UserError: the packages of the teacher are missing.

    """
    reading = machine.cores / seen.seconds if seen.seconds else float("inf")
    if config.teacher.kind != "conse":
        return Speed(reading, assumed_gflops(machine.cores, gpu=machine.gpu == "cuda")), False
    teacher: TimedTeacher = teachers.build(config.teacher, "cpu")
    return Speed(reading, gflop_per_view(config) / seconds_per_view(teacher)), True


def seconds_per_view(teacher: TimedTeacher) -> float:
    """Time a teacher on random views, after one batch that is not counted."""
    shape = (VIEWS, 3, teacher.image_size, teacher.image_size)
    views = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    teacher.embed_images(views)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        teacher.embed_images(views)
        times.append(time.perf_counter() - start)
    return median(times) / VIEWS


def machine_in_words(machine: Machine) -> str:
    """Describe the machine on one line."""
    nvidia = f"{machine.gpus} NVIDIA GPU{'s' if machine.gpus > 1 else ''}"
    gpu = {"cuda": nvidia, "mps": "an Apple GPU (compute.device: mps uses it)"}
    hub = {True: "; model hub reachable", False: "; model hub NOT reachable", None: ""}[machine.hub]
    cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}"
    return (
        f"{platform.system()}, {cores}, {gpu.get(machine.gpu or '', 'no GPU')}; {size_in_words(machine.free)} free{hub}"
    )


def folder_in_words(seen: FolderSurvey) -> str:
    """Describe the folder on one line."""
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in seen.suffixes[:4])
    kinds = kinds if seen.dataset["kind"] == "folder" else f"in {kinds}"
    widths = sorted(width for width, _ in seen.sides)
    heights = sorted(height for _, height in seen.sides)
    pixels = f", about {round(median(widths))} x {round(median(heights))} pixels" if widths else ""
    others = "; " + counted(seen.others, "file of another kind", "files of other kinds") if seen.others else ""
    return f"{counted(len(seen.ids), 'image', 'images')} ({kinds}), {size_in_words(seen.bytes)}{pixels}{others}"


def size_in_words(count: float) -> str:
    """Write a number of bytes in kB, MB, GB or TB."""
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"
    return f"{count / 1000:.1f} TB"


def time_in_words(seconds: float) -> str:
    """Write a duration in minutes, hours or days."""
    if seconds < 5400:
        minutes = max(1, round(seconds / 60))
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
