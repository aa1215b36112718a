"""Fetching archives, resumed where they broke off, checked before use, and unpacked so that nothing lands elsewhere."""

import errno
import gzip
import hashlib
import http.client
import logging
import lzma
import shutil
import stat
import struct
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from cutsew.errors import UserError, first_line

log = logging.getLogger(__name__)

CHUNK = 1 << 20
TRIES, PAUSE = 6, 1.0
"""How often in a row nothing at all may arrive before it is given up; seconds before the second try, then doubled."""

TIMEOUT = 60
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, NotImplementedError, ValueError, KeyError, IndexError, OverflowError, RuntimeError),
)
"""Exceptions that archive readers raise for damaged files; RuntimeError where a zip asks for a password."""

UNFIT = (errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ)
"""Why a file system refuses a name, or a reader a place in the file, that no sound archive has."""

BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


class _RestartDownload(Exception):  # noqa: N818
    """What is there cannot be gone on with: fetch it from its beginning."""


def fetch(url: str, path: Path, digest: str | None = None) -> str:
    """Download a file unless it exists; resume an interrupted download if the server supports it.

    What has arrived is in `<path>.part` and takes its place once it is whole and digests to what it should.

    Args:
        url: http or https.
        path: where it goes.
        digest: `md5:`, `sha1:` or `sha256:` and hex digits; None takes what comes.

    Returns:
        Its digest, of the requested kind, or sha256.

    Raises:
        UserError: the server refuses, nothing arrives any more, or the digest is another.

    """
    part = path.with_name(f"{path.name}.part")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch_whole(url, part)
    whole = path if path.exists() else part
    actual = digest_of(whole, (digest or "sha256:").partition(":")[0])
    if digest is not None and actual != digest:
        whole.unlink()
        _source(part).unlink(missing_ok=True)
        raise UserError(
            f"{url}: digests to {actual}, not to {digest}; the file was removed; try again, or use another mirror"
        )
    whole.replace(path)
    _source(part).unlink(missing_ok=True)
    return actual


def digest_of(path: Path, kind: str) -> str:
    """Digest a file, as `<kind>:<hex digits>`."""
    hashed = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file, _bar(path.stat().st_size, f"check {path.name}") as bar:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
            bar.update(len(chunk))
    return f"{kind}:{hashed.hexdigest()}"


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip file that holds files and folders alone.

    Raises:
        UserError: it is damaged, or a member would land outside the folder or is a link, a device or the like.

    """
    try:
        if archive.suffix == ".zip":
            _unpack_zip(archive, folder)
        else:
            _unpack_tar(archive, folder)
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, DAMAGED) and error.errno not in UNFIT:
            raise
        raise UserError(
            f"{archive}: not a sound archive ({first_line(error)}); remove it to download it again"
        ) from None


def _fetch_whole(url: str, part: Path) -> None:
    """Fetch until all has arrived; attempts that bring something do not count against the tries."""
    failed = 0
    while True:
        before = _size(part)
        try:
            if _fetch_rest(url, part):
                return
            reason = "the connection broke off"
        except _RestartDownload:
            part.unlink(missing_ok=True)
            continue
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
                raise UserError(f"{url}: {reason}; set dataset.download.mirror") from None
        except BROKEN as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        failed = 0 if _size(part) > before else failed + 1
        if failed >= TRIES:
            raise UserError(f"{url}: {reason}; try again later, or set dataset.download.mirror") from None
        log.info("%s: %s after %d bytes; resuming", url, reason, _size(part))
        time.sleep(PAUSE * 2 ** max(failed - 1, 0))


def _fetch_rest(url: str, part: Path) -> bool:
    """Append what is missing; return whether the file is complete."""
    start, source = _size(part), _source(part)
    request = urllib.request.Request(quote(url, safe=":/?&=%~+@,;[]"), headers={"User-Agent": "cutsew"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if source.exists():
            request.add_header("If-Range", source.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            if (error.headers.get("Content-Range") or "").endswith(f"/{start}"):
                return True
            raise _RestartDownload from None
        raise
    with answer:
        if start and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # the server cannot resume, or has another file by now
        same = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if same and not same.startswith("W/"):
            source.write_text(same, encoding="utf-8")
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with part.open("ab" if start else "wb") as file, _bar(total, part.stem, start) as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    return total is None or _size(part) == total


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tqdm(tar, desc=f"unpack {archive.name}", unit="file"):
            _refuse_escape(archive, member.name, plain=member.isreg() or member.isdir())
            _place(tar.extractfile(member), folder / member.name)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in tqdm(packed.infolist(), desc=f"unpack {archive.name}", unit="file"):
            kind = stat.S_IFMT(member.external_attr >> 16)
            _refuse_escape(archive, member.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            _place(None if member.is_dir() else packed.open(member), folder / member.filename)


def _place(content: IO[bytes] | None, path: Path) -> None:
    """Write a member's content, None for a folder; its owner, times and rights are those of a new file."""
    if content is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file, CHUNK)


def _refuse_escape(archive: Path, name: str, *, plain: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0]:
        raise UserError(f"{archive}: {name!r} would land outside the folder; this is not the expected archive")
    if not plain:
        raise UserError(f"{archive}: {name!r} is a link or a device; this is not the expected archive")


def _source(part: Path) -> Path:
    """Where the server's name for this very content is kept (its ETag or date), to resume no other."""
    return part.with_name(f"{part.name}.source")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _bar(total: int | None, what: str, start: int = 0) -> "tqdm[Any]":
    return tqdm(total=total, initial=start, desc=what, unit="B", unit_scale=True)


def mirrored(url: str, mirror: str | None) -> str:
    """Return where an archive is fetched from: its own URL, or its file name below a mirror."""
    return url if mirror is None else f"{mirror.rstrip('/')}/{PurePosixPath(urlsplit(url).path).name}"
