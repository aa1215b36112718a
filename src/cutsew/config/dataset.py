"""Settings that say where the photos and, if there are any, their true labels are."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from cutsew.config.base import Section, Size


class TestSplit(Section):
    """Which photos are held out for evaluation; name one of the three, or none."""

    folder: str | None = Field(None, description="a folder below `dataset.root` whose photos are all held out")
    list: Path | None = Field(None, description="a text file with one photo path (relative to `dataset.root`) a line")
    fraction: float | None = Field(
        None, gt=0, lt=1, description="a share of the photos, chosen by their content digest"
    )

    @model_validator(mode="after")
    def at_most_one(self) -> Self:
        """Refuse two ways of splitting at once."""
        if sum(x is not None for x in (self.folder, self.list, self.fraction)) > 1:
            raise ValueError("name only one of folder, list and fraction")
        return self


class VocLayout(Section):
    """Which lists of ImageSets/Main to read."""

    train: str = Field("train", description="list of the photos to label and to train on")
    test: str | None = Field("val", description="list of the held-out photos; null for none")


class Dataset(Section):
    """Where the photos and their true labels (where there are any) are."""

    name: str = Field(
        "demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$", description="name of the folder under results/"
    )
    kind: Literal["demo", "folder", "voc", "ids"] = Field(
        "demo",
        description="demo: the embedded world; folder: any folder of photos; voc: PASCAL VOC layout; "
        "ids: no photos, only the ids that a `scores` teacher brings (labels without a student)",
    )
    root: Path | None = Field(None, description="folder of the photos (not for demo and ids)")
    truth: Path | None = Field(
        None, description="CSV of true labels for evaluation only: columns path (or id) and labels, separated by ;"
    )
    difficult: Literal["negative", "ignore", "positive"] = Field(
        "negative", description="voc: how an object seen only as difficult counts in the truth"
    )
    on_bad_image: Literal["stop", "skip"] = Field(
        "stop", description="stop at an unreadable photo, or skip it and list it in skipped.csv"
    )
    test: TestSplit = Field(default_factory=TestSplit, description="kind folder: the held-out photos")
    voc: VocLayout = Field(default_factory=VocLayout, description="kind voc: which lists to read")
    shard_size: Size = Field(4096, description="photos per shard, the unit of one encoding job and one Zarr chunk")

    @model_validator(mode="after")
    def root_is_named(self) -> Self:
        """Photos on disk need a folder."""
        if self.kind in ("folder", "voc") and self.root is None:
            raise ValueError(f"kind {self.kind} needs `root`, the folder of the photos")
        return self


class Demo(Section):
    """The embedded world of emoji photos."""

    train: Size = Field(1200, description="unlabelled photos")
    test: Size = Field(400, description="held-out photos")
    seed: int = Field(0, description="seed of the world")
    rebuild_teacher: bool = Field(False, description="train the tiny CLIP anew instead of using the shipped weights")
