"""A finished run, made up: what evaluate and report read."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from cutsew.method.random import keyed_rng
from cutsew.provenance.record import Record
from cutsew.storage.manifest import write_manifest
from cutsew.storage.zarr_layout import ArraySpec, label_spec
from cutsew.storage.zarr_writer import new_group

CLASSES = ("cat", "dog", "horse")


def write_zarr(path, ids, classes, chunk=4, **arrays):
    """Write (image, class) arrays with their coordinates and record."""
    specs = {
        name: label_spec(len(ids), len(classes), min(chunk, len(ids)), values.dtype.name)
        for name, values in arrays.items()
    }
    with new_group(path, specs, {"image": list(ids), "class": list(classes)}) as group:
        for name, values in arrays.items():
            group[name][...] = values
    Record(path.stem, 1, {path.stem: {"made": "up"}}).write_beside(path)
    return path


def write_image(path, number, size):
    """Draw an image of a few discs."""
    rng = keyed_rng("image", number)
    image = Image.new("RGB", size, tuple(int(x) for x in rng.integers(120, 220, 3)))
    drawing = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, r = (int(v) for v in (rng.integers(size[0]), rng.integers(size[1]), rng.integers(8, size[1] // 3)))
        drawing.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 255, 3)))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def make_run(folder: Path, *, train=12, test=8, classes=CLASSES, names=None, images=True, passes=3, size=(60, 45)):
    """Write the artifacts of a run; return its command-line options by name.

    Stages get better one after the other; refined.zarr and scores.zarr hold their rows in reverse order.
    """
    count = train + test
    ids = names or [f"image-{i:03d}" for i in range(count)]
    rng = keyed_rng("run", count, len(classes))
    truth = (rng.random((count, len(classes))) < max(0.3, 1.8 / len(classes) * 0.8)).astype(np.int8)
    truth[np.arange(count), np.arange(count) % len(classes)] = 1
    truth[0, -1] = -1
    paths = [str(folder / "images" / f"{i}.png") for i in range(count)]
    if images:
        for i, path in enumerate(paths):
            write_image(Path(path), i, size)
    split = ["train"] * train + ["test"] * test
    write_manifest(
        folder / "images.parquet",
        pd.DataFrame(
            {"id": ids, "path": paths, "width": size[0], "height": size[1], "bytes": 1}
            | {"digest": [f"{hash_:032x}" for hash_ in rng.permutation(count)], "split": split, "shard": 0}
        ),
    )
    pd.DataFrame({"id": ids, **{name: truth[:, c] for c, name in enumerate(classes)}}).to_parquet(
        folder / "truth.parquet"
    )

    def z(gap, bias):
        return (gap * (truth == 1) + bias + rng.normal(size=truth.shape)).astype(np.float32)

    stages = {"zero_shot": z(1.2, -2.5), "fused": z(1.6, -2), "pseudo": z(2, -1.6), "refined": z(3, -1.8)}
    winner = rng.integers(-1, passes, truth.shape).astype(np.int16)
    write_zarr(folder / "logits.zarr", ids, classes, zero_shot=stages["zero_shot"])
    write_zarr(folder / "fused.zarr", ids, classes, z=stages["fused"], winner=winner)
    write_zarr(folder / "pseudo.zarr", ids, classes, z=stages["pseudo"])
    write_zarr(folder / "refined.zarr", ids[:train][::-1], classes, z=stages["refined"][:train][::-1])
    if test:
        write_zarr(folder / "scores.zarr", ids[train:][::-1], classes, z=z(3.4, -1.7)[train:][::-1])
    boxes = np.tile(np.array([5, 5, 30, 25, 1], dtype=np.float32), (passes, count, 1))
    boxes[..., 0] += 5 * np.arange(passes)[:, None]
    boxes[..., :4] *= size[0] / 60
    spec = ArraySpec(boxes.shape, "float32", ("pass", "image", "edge"), boxes.shape)
    with new_group(folder / "views.zarr", {"boxes": spec}, {"image": ids, "pass": list(range(passes))}) as group:
        group["boxes"][...] = boxes
    steps = np.arange(200)
    pd.DataFrame(
        {"step": steps, "epoch": 0, "m_loss": np.exp(-steps / 60) + 0.2 + 0.03 * rng.normal(size=200)}
        | {"e_loss": 0.4 * np.exp(-steps / 90) + 0.1, "lr_adapter": 1e-3, "lr_estimator": 1e-2}
    ).to_csv(folder / "history.csv", index=False)
    given = ("logits", "fused", "pseudo", "refined", *(["scores"] if test else []))
    return {
        "images": folder / "images.parquet",
        "labels": folder / "truth.parquet",
        **{name: folder / f"{name}.zarr" for name in given},
    }


SETTINGS = {"evaluate": {"threshold": 0.5, "top": 2}}
