"""Two ensembles on new images: test-time tiling, and student with teacher.

- A student that looks at two scales, on new images.
- Student and fused teacher together on new images: the run's cutting and fusion again, one image at a time.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from cutsew.audit.run import Run
from cutsew.config.cutting import parse_cut
from cutsew.config.method import parse_fuse, parse_score
from cutsew.config.networks import parse_teacher
from cutsew.data.images import read_image
from cutsew.errors import UserError
from cutsew.inference.classifier import Classifier
from cutsew.method.crops import crop_boxes, whole_box
from cutsew.method.ensemble import ensemble
from cutsew.method.resample import crop_resize_all
from cutsew.method.student_views import on_whole_scale
from cutsew.models import teachers
from cutsew.pipeline.fusing import FOUND, fuse_by_rule
from cutsew.runtime.device import pick_device
from cutsew.storage import result_tables as table
from cutsew.storage.file_digests import file_digest
from cutsew.storage.manifest import batched_slices
from cutsew.storage.tables import read_record, require_keys
from cutsew.storage.text_embeddings import read_texts
from cutsew.storage.zarr_layout import CROPS
from cutsew.storage.zarr_reader import array_of, attribute, open_group

Floats = npt.NDArray[np.floating[Any]]


class TileEnsemble:
    """Combines the student's logits of whole images with its own of their tiles, which are cut from one decode.

    Args:
        folder: the run's, with tiles.csv.
        student: the classifier.

    Raises:
        UserError: the run has no tiles.csv, or one of other classes.

    """

    def __init__(self, folder: Path, student: Classifier) -> None:
        if not folder.joinpath(table.TILES).is_file():
            raise UserError(f"--tiles: {folder} has no {table.TILES}; run it with predict.tiles: true")
        self._statistics = table.read_score_statistics(folder / table.TILES, student.classes)

    def __call__(self, z: Floats) -> npt.NDArray[np.float32]:
        """Combine (n, 5, C) logits of n whole images and their tiles: (n, C) on the scale of the whole images'."""
        return on_whole_scale(z, self._statistics["student"], self._statistics["tiles"])


log = logging.getLogger(__name__)


class TeacherEnsemble:
    """Combines the student's logits with those of its run's teacher.

    Args:
        folder: the run's, with ensemble.csv.
        classes: the student's.
        device: auto, cpu, cuda or mps.
        batch_size: views per forward pass.

    Attributes:
        views: of the teacher, for each image.

    Raises:
        UserError: the run has no ensemble, or no teacher that can be run.

    """

    def __init__(self, folder: Path, classes: list[str], device: str, batch_size: int) -> None:
        if not folder.joinpath(table.ENSEMBLE).is_file():
            raise UserError(f"--ensemble: {folder} has no {table.ENSEMBLE}; run it with predict.ensemble: teacher")
        self._statistics = table.read_score_statistics(folder / table.ENSEMBLE, classes)
        run = Run(folder)
        scoring = run.settings("fused.zarr", "score", parse_score)
        if scoring.rule != "softmax":
            raise UserError(
                f"--ensemble: {folder} fused {scoring.rule}'s scores, and new images are scored by crops; omit it"
            )
        views, text = run.path("views.zarr"), run.path("text.zarr")
        records = sorted(views.with_suffix(".records").glob("*.json")) if views is not None else []
        if views is None or text is None or not records:
            raise UserError(f"--ensemble: {folder} has no teacher that can score new images; omit it")
        settings = read_record(records[0], "settings")
        self._cut = parse_cut(settings["cut"])
        self._teacher = teachers.build(parse_teacher(settings["teacher"]), pick_device(device))
        self._texts = read_texts(text)
        if self._texts.weights != self._teacher.weights_digest:
            raise UserError(f"{text}: made by a teacher with other weights; run the workflow again")
        if attribute(open_group(views), "preprocessing") != self._teacher.preprocessing.describe():
            raise UserError(
                f"{views}: encoded with other preprocessing than the teacher's; delete it and run the workflow again"
            )
        self._fuse = run.settings("fused.zarr", "fuse", parse_fuse)
        self._epsilon = scoring.epsilon
        result, name = run.record("fused.zarr"), FOUND.get(self._fuse.rule)
        self._found = 0.0
        if result is not None and name is not None:
            self._found = float(require_keys(result.content, result.file, "facts", name))
        passes = array_of(open_group(views), CROPS).shape[0]
        self._passes = range(passes if self._fuse.passes is None else self._fuse.passes)
        self._windows = self._teacher.windows(self._cut.windows) if self._cut.layout == "windows" else None
        self._parts = [] if self._windows is not None else self._parts_of_passes()
        self._batch_size = batch_size
        self.views = len(self._passes) + 1
        log.info("the teacher scores %d views per image", self.views)

    def __call__(self, paths: Sequence[str], student: Floats) -> npt.NDArray[np.float32]:
        """Combine (n, C) logits of the student with the fused teacher's of the same n images."""
        teacher = np.stack([self._fused(Path(path)) for path in paths])
        return ensemble(student, teacher, self._statistics["student"], self._statistics["teacher"])

    def _parts_of_passes(self) -> list[tuple[range, int, Callable[[Tensor], Tensor]]]:
        """Group the passes by the side at which the teacher sees their crops, with what embeds that side."""
        runs = self._cut.by_side(self._passes, self._teacher.image_size)
        return [(passes, side, self._teacher.at_side(side)) for passes, side in runs]

    def _embed(
        self, image: Image.Image, boxes: Floats, side: int, embed: Callable[[Tensor], Tensor]
    ) -> list[npt.NDArray[np.float32]]:
        """Embed the views of an image at one side, batch by batch."""
        views = crop_resize_all(image, boxes, side, self._teacher.preprocessing.interpolation)
        return [embed(views[part]).cpu().numpy() for part in batched_slices(len(views), self._batch_size)]

    def _fused(self, path: Path) -> npt.NDArray[np.float32]:
        """Score the whole image and its crops, which depend only on its content: (C,) fused logits."""
        image = read_image(path)
        whole, look = whole_box(*image.size)[None], self._teacher.preprocessing.interpolation
        embeddings: list[npt.NDArray[np.float32]] = []
        if self._windows is None or not self._windows.whole:
            embeddings = self._embed(image, whole, self._teacher.image_size, self._teacher.embed_images)
        for passes, side, embed in self._parts:
            boxes = crop_boxes(file_digest(path), *image.size, passes, **self._cut.placement())
            embeddings += self._embed(image, boxes, side, embed)
        if self._windows is not None:
            larger = crop_resize_all(image, whole, self._windows.image_size, look)
            embeddings.append(self._windows.embed_images(larger)[0].numpy())
        stored = np.concatenate(embeddings)[: 1 + len(self._passes)].astype(np.float16)  # as views.zarr keeps them
        z = self._texts.score(stored, self._epsilon)
        fused: npt.NDArray[np.float32]
        fused, _ = fuse_by_rule(self._fuse, z[:1], z[1:, None], self._found, self._epsilon, self._texts.answers)
        return fused[0]  # type: ignore[no-any-return]
