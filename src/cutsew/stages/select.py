"""Stage select: the salient training images that are pasted onto others (Eq. 10)."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from cutsew.config.method import SelectConfig
from cutsew.errors import UserError
from cutsew.method.select import automatic_k, top_k
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.atomic import atomic_path
from cutsew.storage.manifest import batched_slices, read_manifest
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read

if TYPE_CHECKING:
    import zarr


def select(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    labels: Annotated[Path, typer.Argument(help="logits.zarr, or pseudo.zarr where select.labels says so")],
    patches: Annotated[Path, typer.Argument(help="patches.parquet, written")],
    settings: SettingsOption,
) -> None:
    """Select the salient images to paste (Eq. 10)."""
    import pandas as pd

    record = Record("select", STAGES["select"].version, settings, [images, labels])
    chosen_k = SelectConfig.model_validate(settings["select"]).top_k
    scored = open_group(labels)
    train = read_manifest(images, split="train", columns=("id", "split"))
    names = labels_of(scored, "class")
    k = automatic_k(len(train), len(names)) if chosen_k == "auto" else chosen_k
    if k > len(train):
        raise UserError(f"select.top_k: {k} is more than the {len(train)} training images; set at most {len(train)}")
    z, rows = array_of(scored, "z" if "z" in scored else "zero_shot"), train["row"].to_numpy()
    chosen, values = top_k(_slabs(z, rows), k)
    image_rows = train.iloc[chosen.ravel()]
    table = pd.DataFrame(
        {
            "class": np.repeat(names, k),
            "rank": np.tile(np.arange(k), len(names)),
            "image": image_rows["id"].to_numpy(),
            "row": image_rows["row"].to_numpy(),
            "score": values.ravel(),
        }
    )
    with atomic_path(patches) as draft:
        table.to_parquet(draft, index=False)
    record.facts = {"top_k": k, "distinct": int(table["row"].nunique()), "train": len(train)}
    record.write_beside(patches)


def _slabs(z: "zarr.Array[Any]", rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.float32]]:
    """Read the training rows of an array, one of its chunks at a time."""
    for slab in batched_slices(z.shape[0], z.chunks[0]):
        first, last = np.searchsorted(rows, [slab.start, slab.stop])
        yield read(z, slab)[rows[first:last] - slab.start]
