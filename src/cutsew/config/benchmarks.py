"""The published benchmarks: the lists, classes and images of each protocol, and the archives to download."""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from cutsew.config.base import Section

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
