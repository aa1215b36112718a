"""The public Python interface: apply a trained classifier, read a run's results, start a run.

`import cutsew` gives all of it; torch and the workflow load when they are first needed.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from cutsew.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

    from cutsew.audit.run import Run as AuditRun
    from cutsew.inference.classifier import Classifier as LoadedClassifier

__all__ = ["Classifier", "ImageLike", "Run", "load_student", "open_run", "run_folder"]

ImageLike = str | Path | Image.Image | npt.NDArray[np.uint8]
"""A path, a PIL image, or a uint8 array of shape (height, width, 3), RGB, or (height, width), gray."""


@dataclass(frozen=True)
class Classifier:
    """A trained student, ready for images. Made by `load_student`.

    Attributes:
        classes: C names, in the order of the columns.
        thresholds: per-class decision thresholds; a class is a label where its probability reaches them.

    """

    classes: list[str]
    thresholds: pd.Series
    _student: "LoadedClassifier"

    def predict_proba(self, images: ImageLike | Sequence[ImageLike], *, batch_size: int = 32) -> pd.DataFrame:
        """Score images.

        Args:
            images: one image or several; paths, PIL images and arrays may be mixed. A path may be a folder, which is
                searched at any depth, a tar, a Parquet file or a URL (see `cutsew predict`).
            batch_size: images per forward pass.

        Returns:
            (n, C) float64 probabilities in [0, 1]. The index holds paths, or addresses in a tar or Parquet file, and
            positions of images without one.

        Raises:
            UserError: an image is missing, damaged or of another kind, or a folder has no images.

        """
        names, sources = _expand(images)
        rows = list(self._rows(sources, batch_size))
        table = np.concatenate(rows) if rows else np.empty((0, len(self.classes)))
        return pd.DataFrame(table, index=pd.Index(names, name="image"), columns=self.classes)

    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        rule: str | None = None,
        threshold: float | None = None,
        batch_size: int = 32,
    ) -> pd.Series:
        """Label images.

        Args:
            images: as `predict_proba`.
            rule: whose thresholds to use, such as `fixed` or `count`; None for the classifier's default.
            threshold: one threshold for all classes instead.
            batch_size: images per forward pass.

        Returns:
            A list of class names for each image, by the index of `predict_proba`.

        Raises:
            UserError: as `predict_proba`, or there are no thresholds of this rule.

        """
        if threshold is not None and rule is not None:
            raise UserError("threshold: replaces rule; leave one of them out")
        limits = self._student.thresholds.choose(rule) if threshold is None else np.full(len(self.classes), threshold)
        table = self.predict_proba(images, batch_size=batch_size)
        names = np.array(self.classes, dtype=object)
        labels = [names[row].tolist() for row in table.to_numpy() >= limits]
        return pd.Series(labels, index=table.index, name="labels", dtype=object)

    def _rows(self, sources: list[ImageLike], batch_size: int) -> Iterator[npt.NDArray[np.float64]]:
        import torch

        from cutsew.method.score import sigmoid
        from cutsew.method.student_views import resized_view
        from cutsew.runtime.batching import require_finite

        for start in range(0, len(sources), batch_size):
            part = sources[start : start + batch_size]
            views = [resized_view(_decoded(source), *self._student.square) for source in part]
            logits = self._student.logits(torch.from_numpy(np.stack(views))).numpy()
            require_finite(logits, [_name(source, start + i) for i, source in enumerate(part)], "the model's output")
            yield sigmoid(logits.astype(np.float64)).astype(np.float64)


class Run:
    """A finished run, to be read. Made by `open_run`.

    A variant's folder holds only what differs from the base run. Everything here is found wherever it is.

    Attributes:
        folder: results/<dataset>/<run>.
        classes: C names.

    """

    def __init__(self, audited: "AuditRun") -> None:
        self._run = audited
        self.folder = audited.folder
        self.classes = audited.classes

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {len(self.images)} images, {len(self.classes)} classes)"

    @property
    def images(self) -> pd.DataFrame:
        """The manifest: a row per image, by its id, with columns such as path, split, width and height."""
        return self._run.images.set_index("id")

    @property
    def stages(self) -> dict[str, list[str]]:
        """The stages that have labels: split (`train`, `test`) -> names, in the order of the pipeline."""
        return {split: self._run.stages(split) for split in ("train", "test") if self._run.ids(split)}

    @property
    def metrics(self) -> pd.DataFrame | None:
        """mAP, CF1, OF1 and more of each stage, as metrics.csv; None where the run was not evaluated."""
        path = self._run.path("metrics.csv")
        return pd.read_csv(path) if path is not None else None

    def labels(self, stage: str | None = None, split: str | None = None, *, corrected: bool = True) -> pd.DataFrame:
        """Read labels.

        Args:
            stage: whose labels, a name of `stages`; None for the last stage of each split, as in labels.csv.
            split: train or test; None for both, as far as the stage has labels of them.
            corrected: whether manual corrections take precedence.

        Returns:
            (n, C) bool, by image id. Images without finite logits are left out.

        Raises:
            UserError: no such stage, or it has no labels of those images.

        """
        from cutsew.audit.label_export import choose

        batches = list(choose(self._run, stage, split, by_hand=corrected).batches())
        ids = [name for batch in batches for name in batch.images["id"]]
        named = np.concatenate([batch.named for batch in batches])
        return pd.DataFrame(named, index=pd.Index(ids, name="id"), columns=self.classes)

    def probabilities(self, stage: str, split: str | None = None) -> "xr.DataArray":
        """Read a stage's probabilities.

        Args:
            stage: a name of `stages`.
            split: train or test; None for all images that the stage has.

        Returns:
            (n, C) float64 with dimensions and coordinates `image` and `class`. Manual corrections are not applied.

        Raises:
            UserError: no such stage, or it has no labels of those images.

        """
        import xarray as xr

        from cutsew.audit.label_export import choose
        from cutsew.method.score import sigmoid

        chosen = choose(self._run, stage, split, by_hand=False)
        ids = chosen.images["id"].tolist()
        values = sigmoid(self._run.outcomes[stage].read(ids).astype(np.float64))
        return xr.DataArray(values, {"image": ids, "class": self.classes}, ("image", "class"), name=stage)

    def open(self, artifact: str) -> "xr.Dataset":
        """Open a Zarr of the run with its coordinates; arrays are read when they are used.

        Args:
            artifact: its name, such as fused.zarr or views.zarr.

        Raises:
            UserError: the run has none of this name.

        """
        import xarray as xr

        path = self._run.path(artifact)
        if path is None or path.suffix != ".zarr":
            raise UserError(f"{self.folder / artifact}: no such Zarr of this run")
        dataset: xr.Dataset = xr.open_zarr(path, consolidated=False)
        return dataset


def load_student(path: str | Path, device: str = "auto") -> Classifier:
    """Load a trained classifier.

    Args:
        path: a run's folder, a folder that `cutsew export` wrote, or a model.onnx.
        device: auto, cpu, cuda or mps.

    Raises:
        UserError: there is no classifier, or it is damaged.

    """
    from cutsew.inference.classifier import open_classifier

    student = open_classifier(Path(path), device)
    thresholds = pd.Series(student.thresholds.choose(), index=student.classes, name=student.thresholds.rule)
    return Classifier(list(student.classes), thresholds, student)


def open_run(path: str | Path) -> Run:
    """Open a finished run.

    Args:
        path: its folder, results/<dataset>/<run>.

    Raises:
        UserError: not a run's folder.

    """
    from cutsew.audit.run import Run as AuditRun

    return Run(AuditRun(Path(path)))


def run_folder(
    photos: str | Path,
    classes: Sequence[str],
    *,
    offline: bool = False,
    configfile: str | Path = "config.yaml",
    cores: int | None = None,
) -> Run:
    """Label a folder of images: write a config file, run the workflow in the working folder, open the result.

    The same call resumes a run that was interrupted: a config file that exists is used as it is, if it is for these
    images and classes.

    Args:
        photos: folder of the images, at any depth.
        classes: names of what to look for.
        offline: use models whose weights come as Python packages: no model hub, no GPU.
        configfile: the config file to write.
        cores: for Snakemake; None for all.

    Raises:
        UserError: invalid input, or the workflow failed; its own messages are on standard error.

    """
    from cutsew.commands.init import prepare_config
    from cutsew.config.loading import DEFAULT, load
    from cutsew.config.yaml_file import read_config
    from cutsew.pipeline.snakemake_call import packaged_call, require_snakemake

    require_snakemake()
    photos, configfile = Path(photos), Path(configfile)
    prepare_config(photos, list(classes), configfile, offline=offline)
    config = load(read_config(configfile))
    words = packaged_call(["--cores", str(cores or "all")], configfile)
    status = subprocess.run([sys.executable, "-P", "-m", "snakemake", *words], check=False).returncode  # noqa: S603
    if status:
        raise UserError(f"{configfile}: the workflow ended with exit status {status}; its messages are above")
    return open_run(Path("results", config.dataset.name, DEFAULT))


def _expand(images: ImageLike | Sequence[ImageLike]) -> tuple[list[Any], list[ImageLike]]:
    """List the images, a folder's files in place of the folder, and their names."""
    from cutsew.inference.new_images import find_images

    listed = [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else images
    names: list[Any] = []
    sources: list[ImageLike] = []
    for image in listed:
        paths = find_images(image).paths if isinstance(image, str | Path) else None
        names += [len(names)] if paths is None else paths
        sources += [image] if paths is None else paths
    return names, sources


def _name(source: ImageLike, position: int) -> str:
    return str(source) if isinstance(source, str | Path) else f"image {position}"


def _decoded(source: ImageLike) -> Image.Image:
    from cutsew.data.images import read_image, to_rgb

    if isinstance(source, str | Path):
        return read_image(source)
    if isinstance(source, np.ndarray):
        shaped = source.ndim == 2 or (source.ndim == 3 and source.shape[2] == 3)
        if source.dtype != np.uint8 or not shaped or not source.size:
            raise UserError(
                f"images: an array of shape {source.shape} and dtype {source.dtype}; give uint8 of shape "
                "(height, width, 3) or (height, width)"
            )
        return to_rgb(Image.fromarray(source))
    try:
        return to_rgb(source)
    except Exception as error:  # Pillow answers a damaged file with nearly any exception
        raise UserError(f"images: a PIL image cannot be decoded ({error}); check its file") from None
