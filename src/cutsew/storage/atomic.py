"""Writing so that a file or folder is either there whole or not at all."""

import errno
import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cutsew.errors import UserError, in_the_way

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
FULL = 2**20
"""Free bytes under which a disk counts as full; some libraries do not say why they could not write."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, which replaces `path` on success and is removed on failure.

    Works for a file and for a folder. Temporary names start with a dot and carry the process id; those that a killed
    process left behind are removed.

    Raises:
        UserError: the disk is full or refuses to be written, or a file stands where a folder is needed or the reverse.

    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with report_write_errors(path, draft):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_left(path)
            yield draft
            if draft.is_dir() and path.exists():
                _remove(path)
            draft.replace(path)
    finally:
        _remove(draft)


@contextmanager
def report_write_errors(path: Path, place: Path) -> Iterator[None]:
    """Report in one line that `path` cannot be written, if `place`, its content or its parent cannot.

    Raises:
        UserError: the disk is full or refuses to be written.

    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and (line := in_the_way(error)):
            raise UserError(line) from None
        reason = _refusal(error, place)
        if reason is None:
            raise
        raise UserError(f"{path}: cannot be written ({reason}); fix this and rerun") from None


def _remove_left(path: Path) -> None:
    """Remove what killed processes left of their drafts."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.draft"):
        if left.name.removeprefix(f".{path.name}.").removesuffix(".draft").isdigit():
            _remove(left)


def _refusal(error: Exception, draft: Path) -> str | None:
    """Say why the disk refused to be written; None where the error is another."""
    if isinstance(error, UserError):
        return None
    if isinstance(error, OSError) and error.errno in REFUSALS:
        named = draft if error.filename is None else Path(os.fsdecode(error.filename))
        ours = named.is_relative_to(draft) or draft.is_relative_to(named)
        return os.strerror(error.errno) if ours else None
    folder = draft.parent
    return os.strerror(errno.ENOSPC) if folder.is_dir() and shutil.disk_usage(folder).free < FULL else None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_path(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for _ in range(20):  # where one write failed, zarr's other ones may still be adding files
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(0.05)
        shutil.rmtree(path)
    else:
        with suppress(NotADirectoryError):  # its folder is a file, so it was never written
            path.unlink(missing_ok=True)
