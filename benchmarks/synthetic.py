"""What benchmarks need and nobody has: embeddings of images that do not exist, and models with random weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.method.crops import EDGES
from cutsew.storage.manifest import write_manifest
from cutsew.storage.zarr_layout import BOXES, CROPS, GLOBAL, ArraySpec, view_chunk_file, view_specs
from cutsew.storage.zarr_writer import finalize, write_chunk, write_group

WEIGHTS = "synthetic"
PASSES_PER_JOB, SHARD_SIZE = 10, 4096


def write_world(
    folder: Path,
    images: int,
    passes: int,
    classes: int,
    width: int,
    seed: int = 0,
    held_out: int | None = None,
    files: Sequence[Path] = (),
    size: tuple[int, int] = (640, 480),
) -> None:
    """Write images.parquet, views.zarr and text.zarr of images that do not exist.

    Args:
        folder: where to.
        images: N.
        passes: M.
        classes: C.
        width: D.
        seed: of the random numbers.
        held_out: every how many-th image is of the test split; None for none.
        files: image files that the manifest names in turn; without any, it names files that do not exist.
        size: width and height of the image files.

    """
    rng = np.random.default_rng(seed)
    ids = np.array([f"image_{i:09d}" for i in range(images)], dtype=object)
    shards = np.arange(images) // SHARD_SIZE
    paths = [str(files[i % len(files)]) if files else f"images/{name}.jpg" for i, name in enumerate(ids)]
    test = np.arange(images) % held_out == 1 if held_out else np.zeros(images, dtype=bool)
    write_manifest(
        folder / "images.parquet",
        pd.DataFrame(
            {"id": ids, "path": paths, "width": size[0], "height": size[1], "bytes": 160000}
            | {"digest": [f"{i:064x}" for i in range(images)], "split": np.where(test, "test", "train")}
            | {"shard": shards}
        ),
    )
    views, layout = folder / "views.zarr", view_specs(images, width, SHARD_SIZE, passes, PASSES_PER_JOB)
    known: dict[str, str] = {}
    for shard in range(-(-images // SHARD_SIZE)):
        rows = min(SHARD_SIZE, images - shard * SHARD_SIZE)
        for block in (None, *range(-(-passes // PASSES_PER_JOB))):
            array = GLOBAL if block is None else CROPS
            count = 1 if block is None else min(PASSES_PER_JOB, passes - block * PASSES_PER_JOB)
            seen = _embeddings(rng, (count, rows, width))
            chunks = {array: seen[0] if block is None else seen}
            if block is not None:
                chunks[BOXES] = np.tile(np.array([0, 0, 224, 224, 0], np.float32), (count, rows, 1))
            for name, values in chunks.items():
                path = view_chunk_file(views, name, shard, block)
                known[path.relative_to(views).as_posix()] = write_chunk(path, values, layout[name])
    shared = {"width": width, "weights": WEIGHTS, "logit_scale": 100.0}
    labels = {"image": ids, "pass": np.arange(passes), "edge": np.array(EDGES, dtype=object)}
    finalize(views, layout, labels, {**shared, "image_size": 224}, known)
    write_text(folder / "text.zarr", classes, width, seed)


def write_text(path: Path, classes: int, width: int, seed: int) -> None:
    """Write text.zarr: what an edit of a prompt changes."""
    text = _embeddings(np.random.default_rng([seed, 1]), (classes, width)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    spec = ArraySpec(text.shape, "float32", ("class", "embedding"), text.shape)
    names = [f"class {c}" for c in range(classes)]
    write_group(path, {"text": (spec, text)}, {"class": names}, {"weights": WEIGHTS, "logit_scale": 100.0})


def write_clip(path: Path, model: str, side: int) -> dict[str, Any]:
    """Write an open_clip model with random weights, which change no time.

    Args:
        path: the .safetensors file.
        model: open_clip's name of it.
        side: of its square input in pixels.

    Returns:
        The settings that name it, as of teacher.open_clip and student.open_clip.

    """
    from safetensors.torch import save_file  # noqa: PLC0415 - most benchmarks here need no torch

    from cutsew.config.base import OpenClipModelConfig  # noqa: PLC0415
    from cutsew.models import clip  # noqa: PLC0415

    named = OpenClipModelConfig(model=model, pretrained="openai", image_size=side)
    built = clip.load_clip(named, "student.open_clip", weights=False)
    save_file(built.model.state_dict(), path)
    return {"model": model, "pretrained": str(path), "image_size": side}


def _embeddings(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    """Draw unit vectors of independent directions: they compress as badly as a real encoder's."""
    drawn = rng.standard_normal(shape, dtype=np.float32)
    drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
    return drawn.astype(np.float16)
