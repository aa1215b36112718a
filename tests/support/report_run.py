"""The made-up run with all that a report can show: crops' logits, class activation maps, suggested thresholds."""

import numpy as np
from synthetic_run import SETTINGS, make_run

from cutsew.method.random import keyed_rng
from cutsew.stages.evaluate import evaluate
from cutsew.stages.report import report
from cutsew.storage.result_tables import StageThresholds, Thresholds
from cutsew.storage.result_tables import write_thresholds as write_table
from cutsew.storage.zarr_layout import ArraySpec, logit_specs
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read
from cutsew.storage.zarr_writer import new_group

PASSES = 3


def add_crops(folder):
    """Rewrite logits.zarr with crops: pass k says k for every class of every image."""
    group = open_group(folder / "logits.zarr")
    zero_shot, ids, classes = read(array_of(group, "zero_shot")), labels_of(group, "image"), labels_of(group, "class")
    coordinates = {"image": ids, "class": classes, "pass": list(range(PASSES))}
    with new_group(folder / "logits.zarr", logit_specs(len(ids), len(classes), PASSES), coordinates) as logits:
        logits["zero_shot"][...] = zero_shot
        logits["crops"][...] = np.arange(PASSES, dtype=np.float32)[:, None, None]


def write_maps(path, ids, classes, sample, g=4, h=7):
    """Write class activation maps of some pairs of image and class, and features of a sample of images."""
    rng = keyed_rng("maps", len(ids))
    arrays = {
        "teacher": (rng.random((len(ids), g, g)), ("pair", "y", "x")),
        "student": (rng.random((len(ids), h, h)), ("pair", "v", "u")),
        "before": (rng.normal(size=(len(sample), 6)), ("sample", "d")),
        "after": (rng.normal(size=(len(sample), 5)), ("sample", "w")),
    }
    specs = {name: ArraySpec(values.shape, "float16", dims, values.shape) for name, (values, dims) in arrays.items()}
    with new_group(path, specs, {"image": list(ids), "class": list(classes), "sample": list(sample)}) as group:
        for name, (values, _) in arrays.items():
            group[name][...] = values.astype(np.float16)
    return path


def write_thresholds(path, classes):
    """Write decision thresholds of rule count for some stages."""
    rows = []
    for stage, value in (("zero_shot", 0.125), ("refined", 0.375), ("student", 0.25)):
        chosen = Thresholds("count", {"fixed": [0.5] * len(classes), "count": [value] * len(classes)})
        rows.append(
            StageThresholds.of_logits(stage, chosen, np.zeros((1, len(classes)), np.float32), [0.5] * len(classes))
        )
    write_table(path, list(classes), rows)
    return path


def write_report(folder, labels=True, views=True, crops=False, more=None, **options):
    """Make up a run and report on it; return the page."""
    given = make_run(folder, **options)
    if crops:
        add_crops(folder)
    if not labels:
        given.pop("labels")
    metrics, images = folder / "metrics.csv", given.pop("images")
    evaluate(images, metrics, settings=SETTINGS, **given)
    shown = {"views": folder / "views.zarr"} if views else {}
    if (folder / "history.csv").is_file():
        shown["history"] = folder / "history.csv"
    report(folder / "report.html", metrics=metrics, images=images, **given, **shown, **(more(folder) if more else {}))
    return folder / "report.html"
