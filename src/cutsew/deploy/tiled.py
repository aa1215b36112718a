"""A student that looks at two scales, on new photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cutsew.artefacts import reference as table
from cutsew.data.images import read_image
from cutsew.deploy.classifier import Classifier
from cutsew.errors import UserError
from cutsew.numerics.tiles import looks, on_whole_scale

Floats = npt.NDArray[np.floating[Any]]


class Tiled:
    """Combines the student's logits of whole photos with its own of their tiles.

    Args:
        folder: the run's, with tiles.csv.
        student: the classifier.

    Raises:
        UserError: the run has no tiles.csv, or one of other classes.

    """

    def __init__(self, folder: Path, student: Classifier) -> None:
        if not folder.joinpath(table.TILES).is_file():
            raise UserError(f"--tiles: {folder} has no {table.TILES}; run it with predict.tiles: true")
        self._usual = table.read(folder / table.TILES, student.classes)
        self._student = student

    def __call__(self, paths: Sequence[str], whole: Floats) -> npt.NDArray[np.float32]:
        """Combine (n, C) logits of n whole photos with those of their tiles, on the scale of the whole photos'."""
        z = np.stack([np.concatenate([z[None], self._tiles(path)]) for path, z in zip(paths, whole, strict=True)])
        return on_whole_scale(z, self._usual["student"], self._usual["tiles"])

    def _tiles(self, path: str) -> Floats:
        views = looks(read_image(Path(path)), *self._student.square)[1:]
        found: Floats = self._student.logits(torch.from_numpy(views)).numpy()
        return found
