"""Settings of the dataset: where images and labels are, and where benchmarks come from.

- The published benchmarks: which lists a protocol reads, and how many classes and photos it has.
- Settings that say where a benchmark's archives come from.
- Settings that say where the photos and, if there are any, their true labels are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from cutsew.config.base import Section, Size

Benchmark = Literal["voc2007", "voc2012", "coco2014", "nuswide"]
Protocol = Literal["paper", "common"]
Unlabelled = Literal["keep", "drop"]


@dataclass(frozen=True)
class Known:
    """What is published of a benchmark under one protocol.

    Attributes:
        kind: layout on disk, as in `dataset.kind`; its section of the settings names the lists.
        train: list of the photos to label and to train on; None where the release holds no such list.
        test: list of the held-out photos; None as above.
        classes: how many.
        totals: `dataset.unlabelled` -> photos of both lists; without those whose number is not published.
        unlabelled: how the protocol treats photos without any label.

    """

    kind: str
    train: str | None
    test: str | None
    classes: int
    totals: dict[Unlabelled, tuple[int, int]] = field(default_factory=dict)
    unlabelled: Unlabelled = "keep"


KNOWN: dict[tuple[Benchmark, Protocol], Known] = {
    ("voc2007", "paper"): Known("voc", "train", "val", 20, {"keep": (2501, 2510)}),
    ("voc2007", "common"): Known("voc", "trainval", "test", 20, {"keep": (5011, 4952)}),
    ("voc2012", "paper"): Known("voc", "train", "val", 20, {"keep": (5717, 5823)}),
    ("coco2014", "paper"): Known(
        "coco", "train2014", "val2014", 80, {"drop": (82081, 40137), "keep": (82783, 40504)}, "drop"
    ),
    # The paper's lists of about 150,000 and 60,000 photos are no part of the release; others drew them before.
    ("nuswide", "paper"): Known("nus", None, None, 81, {"keep": (150000, 60260)}),
    ("nuswide", "common"): Known("nus", "TrainImagelist", "TestImagelist", 81, {"keep": (161789, 107859)}),
}
"""Everingham et al. (VOC), Lin et al. 2014 (COCO; Abdelfattah et al., ICCV 2023, without images that nothing is
annotated in), Chua et al. 2009 (NUS-WIDE)."""


def protocols_of(benchmark: str) -> list[str]:
    """Name the protocols of a benchmark."""
    return [protocol for name, protocol in KNOWN if name == benchmark]


LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64}
"""Hex digits of the digests that an archive may be checked with."""


class Archive(Section):
    """One archive, and what it must digest to."""

    url: str = Field(description="where it is: http or https")
    digest: str | None = Field(
        None, description="md5:, sha1: or sha256: and hex digits; null takes what comes, warns and tells its digest"
    )

    @field_validator("url")
    @classmethod
    def url_names_an_archive(cls, url: str) -> str:
        """Refuse what is no URL of a tar or zip file."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not re.search(r"\.(zip|tar|tar\.gz|tgz)$", parts.path):
            raise ValueError(f"{url!r} is not the http or https URL of a .tar, .tar.gz or .zip")
        return url

    @field_validator("digest")
    @classmethod
    def digest_is_one(cls, digest: str | None) -> str | None:
        """Refuse a digest of no known form."""
        kind, _, value = (digest or "").partition(":")
        if digest is not None and not re.fullmatch(rf"[0-9a-f]{{{LENGTHS.get(kind, 0)}}}", value or "-"):
            raise ValueError(f"{digest!r} is not md5:, sha1: or sha256: with its hex digits in lower case")
        return digest

    @property
    def name(self) -> str:
        """File name of the archive."""
        return PurePosixPath(urlsplit(self.url).path).name


class Download(Section):
    """Archives that are fetched and unpacked where `dataset.root` is not there yet."""

    folder: Path | None = Field(
        None, description="folder to unpack into, which holds `dataset.root`; null downloads nothing"
    )
    archives: list[Archive] = Field([], description="what to fetch: url and digest of each archive")
    mirror: str | None = Field(None, description="a URL that the archives' file names are looked for under instead")
    keep_archives: bool = Field(False, description="keep the archives, in <folder>.archives, once they are unpacked")

    @model_validator(mode="after")
    def archives_have_a_folder(self) -> Self:
        """Refuse archives that go nowhere, and two of one name."""
        if self.archives and self.folder is None:
            raise ValueError("archives need `folder`, where they are unpacked")
        names = [archive.name for archive in self.archives]
        if len(set(names)) < len(names):
            raise ValueError("two archives have the same file name")
        return self


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


class CocoLayout(Section):
    """Which annotations/instances_<list>.json to read; the photos lie in <list>/, images/<list>/ or images/."""

    train: str = Field("train2014", description="list of the photos to label and to train on")
    test: str | None = Field("val2014", description="list of the held-out photos; null for none")


class NusLayout(Section):
    """Which lists of ImageList/ to read, without `.txt`, or paths of lists of the same form."""

    train: str = Field("TrainImagelist", description="list of the photos to label and to train on")
    test: str | None = Field("TestImagelist", description="list of the held-out photos; null for none")


class Dataset(Section):
    """Where the photos and their true labels (where there are any) are."""

    name: str = Field(
        "demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$", description="name of the folder under results/"
    )
    kind: Literal["demo", "folder", "voc", "coco", "nus", "ids"] = Field(
        "demo",
        description="demo: the embedded world; folder: any folder of photos; voc: PASCAL VOC layout; coco: COCO layout "
        "(instances JSON); nus: NUS-WIDE layout (image lists, ground-truth text files); "
        "ids: no photos, only the ids that a `scores` teacher brings (labels without a student)",
    )
    root: Path | None = Field(None, description="folder of the photos (not for demo and ids)")
    truth: Path | None = Field(
        None,
        description="CSV of true labels for evaluation only: columns path (or id) and labels, separated by ; (other "
        "forms: config/README.md)",
    )
    difficult: Literal["negative", "ignore", "positive"] = Field(
        "negative", description="voc: how an object seen only as difficult counts in the truth"
    )
    on_bad_image: Literal["stop", "skip"] = Field(
        "stop", description="stop at an unreadable photo, folder or listed name, or skip it and list it in skipped.csv"
    )
    unlabelled: Unlabelled = Field(
        "keep",
        description="coco, nus: photos that nothing is annotated in are kept, or dropped and counted; drop reads "
        "whether a photo has a label, as published numbers do, and no label itself",
    )
    benchmark: Benchmark | None = Field(
        None, description="the benchmark that this is a copy of: sets the lists, asserts classes and counts"
    )
    protocol: Protocol = Field(
        "paper",
        description="whose splits of the benchmark; voc2007: train / val (paper) or trainval / test (common); "
        "nuswide: lists of your own (paper) or the official ones (common)",
    )
    reduced: bool = Field(False, description="let through a copy of the benchmark that lacks photos or classes")
    test: TestSplit = Field(default_factory=TestSplit, description="kind folder: the held-out photos")
    voc: VocLayout = Field(default_factory=VocLayout, description="kind voc: which lists to read")
    coco: CocoLayout = Field(default_factory=CocoLayout, description="kind coco: which lists to read")
    nus: NusLayout = Field(default_factory=NusLayout, description="kind nus: which lists to read")
    download: Download = Field(default_factory=Download, description="where to get the photos if they are not there")
    shard_size: Size = Field(4096, description="photos per shard, the unit of one encoding job and one Zarr chunk")

    @model_validator(mode="before")
    @classmethod
    def benchmark_sets_the_rest(cls, raw: Any) -> Any:  # noqa: ANN401
        """Fill in the lists that a benchmark's protocol reads, and how it treats photos without labels."""
        if not isinstance(raw, Mapping):
            return raw
        named = (raw.get("benchmark"), raw.get("protocol", "paper"))
        known = KNOWN.get(named) if all(isinstance(part, str) for part in named) else None  # type: ignore[arg-type]
        if known is None:
            return raw
        filled = {"unlabelled": known.unlabelled, **raw}
        lists = filled.get(known.kind, {})
        if isinstance(lists, Mapping) and known.train is not None:
            filled[known.kind] = {"train": known.train, "test": known.test, **lists}
        return filled

    @model_validator(mode="after")
    def root_is_named(self) -> Self:
        """Photos on disk need a folder."""
        if self.kind not in ("demo", "ids") and self.root is None:
            raise ValueError(f"kind {self.kind} needs `root`, the folder of the photos")
        if self.unlabelled == "drop" and self.kind not in ("coco", "nus"):
            raise ValueError(f"unlabelled: drop is for the kinds coco and nus, not {self.kind}; leave it out")
        return self

    @model_validator(mode="after")
    def benchmark_is_read_as_published(self) -> Self:
        """Refuse another layout or other lists than a benchmark and its protocol have."""
        if self.benchmark is None:
            return self
        known = self.known()
        if known is None:
            found = " and ".join(protocols_of(self.benchmark))
            raise ValueError(f"benchmark {self.benchmark} has no protocol {self.protocol}; set `protocol` to {found}")
        if self.kind != known.kind:
            raise ValueError(f"benchmark {self.benchmark} has layout {known.kind}; set `kind: {known.kind}`")
        lists = self.lists()
        if known.train is not None and lists != (known.train, known.test):
            raise ValueError(
                f"protocol {self.protocol} of {self.benchmark} reads the lists {known.train} and {known.test}, "
                f"not {lists[0]} and {lists[1]}; leave `{self.kind}` out, or `benchmark`"
            )
        if known.train is None and lists == ("TrainImagelist", "TestImagelist"):
            raise ValueError(
                f"protocol {self.protocol} of {self.benchmark} reads lists that are no part of its release; name them "
                f"in `{self.kind}.train` and `{self.kind}.test`, or set `protocol: common`"
            )
        return self

    def known(self) -> Known | None:
        """Return what is published of this benchmark and protocol; None where there is nothing."""
        return None if self.benchmark is None else KNOWN.get((self.benchmark, self.protocol))

    def lists(self) -> tuple[str, str | None]:
        """Name the lists of the photos to label and of the held-out ones, of kind voc, demo, coco or nus."""
        if self.kind == "coco":
            return self.coco.train, self.coco.test
        if self.kind == "nus":
            return self.nus.train, self.nus.test
        return self.voc.train, self.voc.test

    @property
    def downloaded(self) -> bool:
        """Whether the workflow fetches the photos where they are not there; false for a copy that lies elsewhere."""
        folder = self.download.folder
        return bool(self.download.archives) and self.root is not None and self.root.is_relative_to(folder or "")

    @property
    def annotated(self) -> bool:
        """Whether the photos' layout holds true labels."""
        return self.kind in ("demo", "voc", "coco", "nus")


class Demo(Section):
    """The embedded world of emoji photos."""

    train: Size = Field(1200, description="unlabelled photos")
    test: Size = Field(400, description="held-out photos")
    seed: int = Field(0, description="seed of the world")
    rebuild_teacher: bool = Field(False, description="train the tiny CLIP anew instead of using the shipped weights")
