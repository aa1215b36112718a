"""Class activation maps of teacher and student over photos (paper, Figures 8 and 11), and features before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

from cutsew.artefacts.reading import array_of, labels_of, open_group, read
from cutsew.numerics.score import sigmoid
from cutsew.reporting.chart import Chart
from cutsew.reporting.photos import data_uri, thumbnail
from cutsew.reporting.run import Run
from cutsew.reporting.tsne import MOST as MOST_FEATURES
from cutsew.reporting.tsne import tsne

Floats = npt.NDArray[np.floating[Any]]

MOST = 12
"""Pairs of photo and class whose maps are shown."""

SIDE = 260
"""Longest side of the photos, in pixels."""

FAINT, STRONG = 0.15, 0.75
"""How much of a map's colour covers the photo where it is 0 and where it is 1."""


@dataclass(frozen=True)
class Maps:
    """Where teacher and student look for a class in a photo; each picture is a data URI."""

    photo: str
    name: str
    plain: str
    teacher: str
    student: str


def overlaid(photo: Image.Image, activation: Floats) -> Image.Image:
    """Lay a map over a photo.

    Args:
        photo: RGB.
        activation: (g, g) in [0, 1], of the whole photo, its first row at the top.

    """
    wide = Image.fromarray(np.nan_to_num(activation).astype(np.float32)).resize(photo.size, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(wide), 0, 1)
    colours = mpl.colormaps["inferno"](strength)[..., :3] * 255
    share = (FAINT + (STRONG - FAINT) * strength)[..., None]
    mixed = (1 - share) * np.asarray(photo, dtype=np.float32) + share * colours
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def spread(classes: Sequence[str], count: int) -> list[int]:
    """Choose up to `count` pairs so that many classes have one: the first of every class, then the second, ..."""
    met: dict[str, int] = {}
    rounds = []
    for i, name in enumerate(classes):
        rounds.append((met.get(name, 0), i))
        met[name] = met.get(name, 0) + 1
    return sorted(i for _, i in sorted(rounds)[:count])


def activation_maps(path: Path, run: Run) -> list[Maps]:
    """Lay the maps of some pairs over their photos; photos that cannot be read are left out.

    Args:
        path: maps.zarr: `teacher` (n, g, g) and `student` (n, h, h) in [0, 1], coordinates `image` (n), `class` (n).
        run: that it was made from.

    Raises:
        UserError: not such a Zarr.

    """
    group = open_group(path)
    teacher, student = array_of(group, "teacher"), array_of(group, "student")
    ids, classes = labels_of(group, "image"), labels_of(group, "class")
    paths = dict(zip(run.images["id"], run.images["path"], strict=True))
    found = []
    for i in spread(classes, MOST):
        photo = thumbnail(Path(str(paths[ids[i]])), SIDE) if ids[i] in paths else None
        if photo is not None:
            shown = [overlaid(photo, read(array, i)) for array in (teacher, student)]
            found.append(Maps(ids[i], classes[i], *(data_uri(picture) for picture in (photo, *shown))))
    return found


def features(path: Path, run: Run) -> Chart | None:
    """Draw the features of the photos of maps.zarr: `before` (m, D), `after` (m, W), coordinate `sample` (m ids).

    Raises:
        UserError: not such a Zarr.

    """
    group = open_group(path)
    sample = labels_of(group, "sample")[:MOST_FEATURES]
    before, after = (read(array_of(group, name), slice(len(sample))) for name in ("before", "after"))
    first = first_classes(run, sample)
    kept = [i for i, name in enumerate(sample) if name in first]
    return tsne(before[kept], after[kept], [first[sample[i]] for i in kept])


def first_classes(run: Run, ids: Sequence[str]) -> dict[str, str]:
    """Name the most likely class of photos at their last stage; photos that the run does not hold are left out."""
    found: dict[str, str] = {}
    images = run.images[run.images["id"].isin(list(ids))]
    for split, rows in images.groupby("split", sort=False):
        stages = run.stages.get(str(split), ())
        if stages:
            names = list(rows["id"])
            best = sigmoid(run.read(stages[-1], names)).argmax(axis=1)
            found |= {name: run.classes[int(c)] for name, c in zip(names, best, strict=True)}
    return found
