"""The training images and which of them are pasted where. Imports no torch, since the audit reads it too."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.config.method import Sew
from cutsew.errors import UserError
from cutsew.method.sew import Plan, plan
from cutsew.storage.tables import read_parquet

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingImages:
    """The training images and those to paste.

    Attributes:
        paths: n files.
        digests: n digests of their content.
        sizes: (n, 2) int64, width and height in pixels.
        paste_pool: ascending indices, in [0, n), of the patch set P.

    """

    paths: Sequence[str]
    digests: Sequence[str]
    sizes: Rows
    paste_pool: Rows


def read_training_images(images: pd.DataFrame, patches: Path | None) -> TrainingImages:
    """Collect what sewing needs; indices are positions among the training images.

    Args:
        images: the manifest's rows of the training split, in its order.
        patches: patches.parquet; None where nothing is pasted.

    Raises:
        UserError: the patches are missing or are of other images.

    """
    paste_pool = np.zeros(0, np.int64)
    if patches is not None:
        chosen = np.unique(read_parquet(patches, ["row"])["row"].to_numpy())
        rows = images["row"].to_numpy()
        if not np.isin(chosen, rows).all():
            raise UserError(f"{patches}: has images that are not in the training split; run the workflow again")
        paste_pool = np.searchsorted(rows, chosen).astype(np.int64)
    sizes = images[["width", "height"]].to_numpy(dtype=np.int64)
    paths, digests = (cast("Sequence[str]", images[name].array) for name in ("path", "digest"))  # text of Arrow
    return TrainingImages(paths, digests, sizes, paste_pool)


def sewing_plan(images: TrainingImages, sew: Sew, seed: int, epoch: int, index: int) -> Plan:
    """Draw what is pasted onto an image in an epoch; overlays are indices of training images too.

    Args:
        images: the training images.
        sew: settings of sewing; the plan of kind none is empty.
        seed: of the training.
        epoch: from 0.
        index: of the background.

    """
    if sew.kind == "none":
        return Plan(np.zeros(0, np.int64), np.zeros((0, 4), np.int64))
    return plan(
        index,
        images.digests[index],
        images.paste_pool,
        images.sizes,
        seed=seed,
        epoch=epoch,
        p=sew.p,
        q=sew.q,
        ratio=sew.ratio,
        max_overlays=sew.max_overlays,
        at_least_one=sew.at_least_one,
    )
