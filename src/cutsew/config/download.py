"""Settings that say where a benchmark's archives come from."""

import re
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from cutsew.config.base import Section

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
