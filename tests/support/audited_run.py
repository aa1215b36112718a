"""A finished run for the audit, made by the stages themselves: 11 training and 3 held-out images, 3 classes, 3 crops.

Image i00's logits are set by hand, so that what alpha does to them can be worked out on paper.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sewing_world import CLASSES, backbone, make_world, settings

from cutsew.provenance.record import Record, input_digest
from cutsew.stages import predict, train
from cutsew.stages.correct import correct
from cutsew.stages.corrections import corrections
from cutsew.stages.evaluate import evaluate
from cutsew.stages.fuse import fuse
from cutsew.stages.select import select
from cutsew.storage.file_digests import file_digest
from cutsew.storage.manifest import read_manifest
from cutsew.storage.text_embeddings import text_spec
from cutsew.storage.zarr_layout import ArraySpec, logit_specs
from cutsew.storage.zarr_writer import new_group, write_group

PASSES, ALPHA, EPOCHS = 3, 0.1, 3
BY_HAND = np.array(
    [  # ant: two crops beat the whole image, and not by alpha; bee: crop 1 wins; cat: no crop is as sure
        [1.0, -3.0, -4.0],
        [1.05, 2.0, -5.0],
        [0.2, 2.5, -5.5],
        [1.08, -1.0, -5.2],
    ],
    dtype=np.float32,
)
"""Image i00: the whole image and three crops, by class."""


def make_logits(folder: Path, seed: int = 3, unscored: bool = False) -> None:
    """Write logits.zarr; with `unscored`, as scores made elsewhere that leave out a held-out image."""
    images = read_manifest(folder / "images.parquet")
    z = np.random.default_rng(seed).normal(-0.5, 2, (1 + PASSES, len(images), len(CLASSES))).astype(np.float32)
    z[:, 0] = BY_HAND
    if unscored:
        z[:, images.index[images["split"] == "test"][0]] = np.nan
    record = Record("import_scores" if unscored else "score", 1, {"score": {"epsilon": 1e-6}})
    coordinates = {"image": list(images["id"]), "class": CLASSES, "pass": np.arange(PASSES)}
    with new_group(folder / "logits.zarr", logit_specs(len(images), len(CLASSES), PASSES, 5), coordinates) as group:
        group["zero_shot"][...], group["crops"][...] = z[0], z[1:]
    record.write_beside(folder / "logits.zarr")


def make_boxes(folder: Path) -> None:
    """Write views.zarr: the box of pass k of row n is k, n, k + 10, n + 10, flipped in odd passes."""
    images = read_manifest(folder / "images.parquet")
    k, n = np.meshgrid(np.arange(PASSES), np.arange(len(images)), indexing="ij")
    boxes = np.stack([k, n, k + 10, n + 10, k % 2], axis=2).astype(np.float32)
    spec = ArraySpec(boxes.shape, "float32", ("pass", "image", "edge"), (PASSES, 5, 5))
    with new_group(
        folder / "views.zarr", {"boxes": spec}, {"image": list(images["id"]), "pass": np.arange(3)}
    ) as group:
        group["boxes"][...] = boxes
    chunk = "views.zarr/boxes/c/0/0/0"
    outputs = {"views.zarr": input_digest(folder / "views.zarr"), chunk: file_digest(folder / chunk)}
    Record("seal", 1, {}).write(folder / "views.json", outputs)


def make_embeddings(folder: Path) -> None:
    """Write views.zarr, with boxes, and text.zarr of random embeddings."""
    ids = list(read_manifest(folder / "images.parquet")["id"])
    rng = np.random.default_rng(4)
    text = rng.normal(size=(len(CLASSES), 6)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    crops = rng.normal(size=(PASSES, len(ids), 6)).astype(np.float16)
    boxes = rng.uniform(0, 20, (PASSES, len(ids), 5)).astype(np.float32)
    dims = ("pass", "image", "embedding")
    arrays = {"global": (crops[0], dims[1:]), "crops": (crops, dims), "boxes": (boxes, ("pass", "image", "edge"))}
    views = {
        name: (ArraySpec(values.shape, str(values.dtype), names, values.shape), values)
        for name, (values, names) in arrays.items()
    }
    write_group(folder / "views.zarr", views, {"image": ids, "pass": np.arange(PASSES)}, {"weights": "w"})
    shared = {"weights": "w", "logit_scale": 5.0}
    write_group(folder / "text.zarr", {"text": (text_spec(text, "class"), text)}, {"class": CLASSES}, shared)


def make_truth(folder: Path) -> None:
    images = read_manifest(folder / "images.parquet")
    truth = np.random.default_rng(8).integers(0, 2, (len(images), len(CLASSES)))
    table = pd.DataFrame(truth.astype(np.int8), columns=CLASSES)
    table.insert(0, "id", images["id"])
    table.to_parquet(folder / "truth.parquet")


def make_labels(base: Path, folder: Path, beta: int = 1, **fusion) -> None:
    """Fuse (in the base run only) and correct."""
    if base == folder:
        rule = fusion or {"rule": "max", "alpha": ALPHA}
        fuse(base / "logits.zarr", base / "fused.zarr", {"fuse": rule, "score": {"epsilon": 1e-6}})
    correct(base / "fused.zarr", folder / "pseudo.zarr", {"correct": {"rule": "sqrt", "beta": beta}})


def make_student(base: Path, folder: Path) -> None:
    """Choose the patches (in the base run only), train and predict."""
    patches = base / "patches.parquet"
    if base == folder:
        select(base / "images.parquet", base / "logits.zarr", patches, {"select": {"labels": "zero_shot", "top_k": 2}})
    teach(base, folder, folder / "pseudo.zarr", patches, settings(train__epochs=EPOCHS, train__lr_estimator=0.5))


def make_reference(base: Path) -> None:
    """Train the reference student of zero-shot labels: plain images, its labels left as they are."""
    plain = {"sew": {"kind": "none"}, "train__em_weight": 0.0, "train__epochs": 1}
    teach(base, base / "references" / "zero_shot", base / "logits.zarr", None, settings(**plain))


def teach(base: Path, folder: Path, labels: Path, patches: Path | None, chosen: dict) -> None:
    images, out = base / "images.parquet", folder / "adapter.safetensors"
    train.run(images, labels, out, chosen, patches, "cpu", 0, checkpoint_seconds=60, build=backbone)
    predict.run(images, out, folder / "scores.zarr", "cpu", 4, 0, build=backbone)


def measure(base: Path, folder: Path, student: bool = True, truth: bool = True) -> None:
    reference = base / "references" / "zero_shot" / "scores.zarr"
    evaluate(
        base / "images.parquet",
        folder / "metrics.csv",
        settings={"evaluate": {"threshold": 0.5, "top": 2}},
        logits=base / "logits.zarr",
        fused=base / "fused.zarr",
        pseudo=folder / "pseudo.zarr",
        refined=folder / "refined.zarr" if student else None,
        scores=folder / "scores.zarr" if student else None,
        labels=base / "truth.parquet" if truth else None,
        reference=[f"zero_shot={reference}"] if reference.exists() else None,
    )


def make_base(folder: Path) -> Path:
    """Write a base run with a student, a reference student, truth and boxes."""
    base = make_world(folder / "results" / "tiny" / "default")
    make_logits(base)
    make_boxes(base)
    make_truth(base)
    make_labels(base, base)
    make_student(base, base)
    make_reference(base)
    measure(base, base)
    return base


def make_corrections(base: Path, *rows: str) -> None:
    """Write corrections.parquet and the record of a report that reads it."""
    file, images = base.parent / "audit.csv", base / "images.parquet"
    file.write_text("\n".join(["image,class,present,by,at", *rows]) + "\n")
    chosen = {"labels": {"overrides": str(file)}, "classes": CLASSES, "student": {"kind": "open_clip"}}
    corrections(images, file, base / "corrections.parquet", chosen)
    Record("report", 1, {}, [images, base / "corrections.parquet"]).write(base / "report.json", {"report.html": ""})
    base.joinpath("report.html").touch()


def make_variant(base: Path) -> Path:
    """Write a run next to the base run that differs from the correction on; leave an old fused.zarr in its folder."""
    other = base.with_name("beta=2")
    make_labels(base, other, beta=2)
    make_student(base, other)
    measure(base, other)
    fuse(base / "logits.zarr", other / "fused.zarr", {"fuse": {"alpha": 5.0}, "score": {"epsilon": 1e-6}})
    return other
