"""Settings of the dataset: where images and labels are, and where benchmarks come from.

- The published benchmarks: which lists a protocol reads, and how many classes and images it has.
- Settings that say where a benchmark's archives come from.
- Settings that say where the images and, if there are any, their true labels are.
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
Unannotated = Literal["keep", "drop"]


@dataclass(frozen=True)
class BenchmarkSpec:
    """What is published of a benchmark under one protocol.

    Attributes:
        kind: layout on disk, as in `dataset.kind`; its section of the settings names the lists.
        train: list of the images to label and to train on; None where the release holds no such list.
        test: list of the held-out images; None as above.
        classes: how many.
        totals: `dataset.unannotated` -> images of both lists; without those whose number is not published.
        unannotated: how the protocol treats images without any label.

    """

    kind: str
    train: str | None
    test: str | None
    classes: int
    totals: dict[Unannotated, tuple[int, int]] = field(default_factory=dict)
    unannotated: Unannotated = "keep"


BENCHMARK_SPECS: dict[tuple[Benchmark, Protocol], BenchmarkSpec] = {
    ("voc2007", "paper"): BenchmarkSpec("voc", "train", "val", 20, {"keep": (2501, 2510)}),
    ("voc2007", "common"): BenchmarkSpec("voc", "trainval", "test", 20, {"keep": (5011, 4952)}),
    ("voc2012", "paper"): BenchmarkSpec("voc", "train", "val", 20, {"keep": (5717, 5823)}),
    ("coco2014", "paper"): BenchmarkSpec(
        "coco", "train2014", "val2014", 80, {"drop": (82081, 40137), "keep": (82783, 40504)}, "drop"
    ),
    # The paper's lists of about 150,000 and 60,000 images are no part of the release; others drew them before.
    ("nuswide", "paper"): BenchmarkSpec("nus", None, None, 81, {"keep": (150000, 60260)}),
    ("nuswide", "common"): BenchmarkSpec("nus", "TrainImagelist", "TestImagelist", 81, {"keep": (161789, 107859)}),
}
"""Everingham et al. (VOC), Lin et al. 2014 (COCO; Abdelfattah et al., ICCV 2023, without images that nothing is
annotated in), Chua et al. 2009 (NUS-WIDE)."""


def protocols_of(benchmark: str) -> list[str]:
    """Name the protocols of a benchmark."""
    return [protocol for name, protocol in BENCHMARK_SPECS if name == benchmark]


LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64}
"""Hex digits of the digests that an archive may be checked with."""


class ArchiveConfig(Section):
    """One archive, and what it must digest to."""

    url: str = Field(description="where it is: http or https")
    digest: str | None = Field(
        None,
        description="md5:, sha1: or sha256: and hex digits; null accepts any file, with a warning that states "
        "its digest",
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


class DownloadConfig(Section):
    """Archives that are fetched and unpacked where `dataset.root` is not there yet."""

    folder: Path | None = Field(
        None, description="folder to unpack into, which holds `dataset.root`; null downloads nothing"
    )
    archives: list[ArchiveConfig] = Field([], description="archives to download: URL and digest of each")
    mirror: str | None = Field(None, description="base URL to download the archives from instead")
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


class TestSplitConfig(Section):
    """Which images are held out for evaluation; name one of the three, or none."""

    folder: str | None = Field(None, description="a folder below `dataset.root` whose images are all held out")
    list: Path | None = Field(None, description="a text file with one image path per line, relative to `dataset.root`")
    fraction: float | None = Field(
        None, gt=0, lt=1, description="fraction of the images to hold out, chosen by content digest"
    )

    @model_validator(mode="after")
    def at_most_one(self) -> Self:
        """Refuse two ways of splitting at once."""
        if sum(x is not None for x in (self.folder, self.list, self.fraction)) > 1:
            raise ValueError("name only one of folder, list and fraction")
        return self


class VocLayoutConfig(Section):
    """Which lists of ImageSets/Main to read."""

    train: str = Field("train", description="list of the images to label and to train on")
    test: str | None = Field("val", description="list of the held-out images; null for none")


class CocoLayoutConfig(Section):
    """Which annotations/instances_<list>.json to read; the images lie in <list>/, images/<list>/ or images/."""

    train: str = Field("train2014", description="list of the images to label and to train on")
    test: str | None = Field("val2014", description="list of the held-out images; null for none")


class NusLayoutConfig(Section):
    """Which lists of ImageList/ to read, without `.txt`, or paths of lists of the same form."""

    train: str = Field("TrainImagelist", description="list of the images to label and to train on")
    test: str | None = Field("TestImagelist", description="list of the held-out images; null for none")


class DatasetConfig(Section):
    """Where the images and their true labels (where there are any) are."""

    name: str = Field(
        "demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$", description="name of the folder under results/"
    )
    kind: Literal["demo", "folder", "voc", "coco", "nus", "ids"] = Field(
        "demo",
        description="demo: the synthetic world; folder: any folder of images; voc: PASCAL VOC layout; coco: COCO "
        "layout "
        "(instances JSON); nus: NUS-WIDE layout (image lists, ground-truth text files); "
        "ids: no images, only the ids that a `scores` teacher brings (labels without a student)",
    )
    root: Path | None = Field(None, description="folder of the images (not for demo and ids)")
    truth: Path | None = Field(
        None,
        description="CSV of true labels for evaluation only: columns path (or id) and labels, separated by ; (other "
        "forms: docs/reference/input-files.md)",
    )
    difficult: Literal["negative", "ignore", "positive"] = Field(
        "negative", description="voc: how an object marked only as difficult counts in the ground truth"
    )
    on_bad_image: Literal["stop", "skip"] = Field(
        "stop",
        description="whether an unreadable image, folder or listed name is an error, or is skipped and "
        "listed in skipped.csv",
    )
    unannotated: Unannotated = Field(
        "keep",
        description="coco, nus: whether images without any annotation are kept or dropped; drop reads whether a "
        "image has a label, as published protocols do, but not which",
    )
    benchmark: Benchmark | None = Field(
        None, description="the benchmark that this is a copy of: sets the lists and checks classes and counts"
    )
    protocol: Protocol = Field(
        "paper",
        description="whose splits of the benchmark; voc2007: train / val (paper) or trainval / test (common); "
        "nuswide: lists of your own (paper) or the official ones (common)",
    )
    allow_incomplete: bool = Field(False, description="accept a copy of the benchmark that lacks images or classes")
    test: TestSplitConfig = Field(default_factory=TestSplitConfig, description="kind folder: the held-out images")
    voc: VocLayoutConfig = Field(default_factory=VocLayoutConfig, description="kind voc: which lists to read")
    coco: CocoLayoutConfig = Field(default_factory=CocoLayoutConfig, description="kind coco: which lists to read")
    nus: NusLayoutConfig = Field(default_factory=NusLayoutConfig, description="kind nus: which lists to read")
    download: DownloadConfig = Field(
        default_factory=DownloadConfig, description="where to get the images if they are not there"
    )
    shard_size: Size = Field(4096, description="images per shard, the unit of one encoding job and one Zarr chunk")

    @model_validator(mode="before")
    @classmethod
    def benchmark_sets_the_rest(cls, raw: Any) -> Any:  # noqa: ANN401
        """Fill in the lists that a benchmark's protocol reads, and how it treats images without labels."""
        if not isinstance(raw, Mapping):
            return raw
        named = (raw.get("benchmark"), raw.get("protocol", "paper"))
        known = BENCHMARK_SPECS.get(named) if all(isinstance(part, str) for part in named) else None  # type: ignore[arg-type]
        if known is None:
            return raw
        filled = {"unannotated": known.unannotated, **raw}
        lists = filled.get(known.kind, {})
        if isinstance(lists, Mapping) and known.train is not None:
            filled[known.kind] = {"train": known.train, "test": known.test, **lists}
        return filled

    @model_validator(mode="after")
    def root_is_named(self) -> Self:
        """Images on disk need a folder."""
        if self.kind not in ("demo", "ids") and self.root is None:
            raise ValueError(f"kind {self.kind} needs `root`, the folder of the images")
        if self.unannotated == "drop" and self.kind not in ("coco", "nus"):
            raise ValueError(f"unannotated: drop is for the kinds coco and nus, not {self.kind}; leave it out")
        return self

    @model_validator(mode="after")
    def benchmark_is_read_as_published(self) -> Self:
        """Refuse another layout or other lists than a benchmark and its protocol have."""
        if self.benchmark is None:
            return self
        known = self.known()
        if known is None:
            protocols = " and ".join(protocols_of(self.benchmark))
            raise ValueError(
                f"benchmark {self.benchmark} has no protocol {self.protocol}; set `protocol` to {protocols}"
            )
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

    def known(self) -> BenchmarkSpec | None:
        """Return what is published of this benchmark and protocol; None where there is nothing."""
        return None if self.benchmark is None else BENCHMARK_SPECS.get((self.benchmark, self.protocol))

    def lists(self) -> tuple[str, str | None]:
        """Name the lists of the images to label and of the held-out ones, of kind voc, demo, coco or nus."""
        if self.kind == "coco":
            return self.coco.train, self.coco.test
        if self.kind == "nus":
            return self.nus.train, self.nus.test
        return self.voc.train, self.voc.test

    @property
    def downloaded(self) -> bool:
        """Whether the workflow fetches the images where they are not there; false for a copy that lies elsewhere."""
        folder = self.download.folder
        return bool(self.download.archives) and self.root is not None and self.root.is_relative_to(folder or "")

    @property
    def annotated(self) -> bool:
        """Whether the images' layout holds true labels."""
        return self.kind in ("demo", "voc", "coco", "nus")


class DemoConfig(Section):
    """The embedded world of emoji images."""

    train: Size = Field(1200, description="unlabeled images")
    test: Size = Field(400, description="held-out images")
    seed: int = Field(0, description="seed of the synthetic world")
    rebuild_teacher: bool = Field(False, description="retrain the tiny CLIP instead of using the shipped weights")
