"""The training photos and which of them are pasted where. Without torch: the audit reads it too."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.config.method import Sew
from cutsew.errors import UserError
from cutsew.method.sew import Plan, plan
from cutsew.storage.tables import read_parquet

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Album:
    """The training photos and those to paste.

    Attributes:
        paths: n files.
        digests: n digests of their content.
        sizes: (n, 2) int64, width and height in pixels.
        pool: ascending places, in [0, n), of the patch set P.

    """

    paths: list[str]
    digests: list[str]
    sizes: Rows
    pool: Rows


def read_album(photos: pd.DataFrame, patches: Path | None) -> Album:
    """Gather what sewing needs; places are positions among the training photos.

    Args:
        photos: rows of the manifest, those of the training split, in its order.
        patches: patches.parquet; None where nothing is pasted.

    Raises:
        UserError: the patches are not there or are of other photos.

    """
    pool = np.zeros(0, np.int64)
    if patches is not None:
        chosen = np.unique(read_parquet(patches, ["row"])["row"].to_numpy())
        rows = photos["row"].to_numpy()
        if not np.isin(chosen, rows).all():
            raise UserError(f"{patches}: names photos that are not in the training split; run the workflow again")
        pool = np.searchsorted(rows, chosen).astype(np.int64)
    sizes = photos[["width", "height"]].to_numpy(dtype=np.int64)
    return Album(photos["path"].tolist(), photos["digest"].tolist(), sizes, pool)


def sewing_plan(album: Album, sew: Sew, seed: int, epoch: int, place: int) -> Plan:
    """Draw what is pasted onto the photo at a place in an epoch; overlays are places too.

    Args:
        album: the training photos.
        sew: how they are sewn; where that is not at all, the plan is empty.
        seed: of the training.
        epoch: from 0.
        place: of the background.

    """
    if not sew.enabled:
        return Plan(np.zeros(0, np.int64), np.zeros((0, 4), np.int64))
    return plan(
        place,
        album.digests[place],
        album.pool,
        album.sizes,
        seed=seed,
        epoch=epoch,
        p=sew.p,
        q=sew.q,
        ratio=sew.ratio,
        max_overlays=sew.max_overlays,
        at_least_one=sew.at_least_one,
    )
