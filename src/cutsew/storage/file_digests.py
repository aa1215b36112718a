"""SHA-256 of files, and a memory of those that are too large to be digested each time."""

import hashlib
import json
from functools import cache
from pathlib import Path

from cutsew.storage.atomic import write_text


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remembered_digest(path: Path, memory: Path) -> str:
    """Digest a large file again only when its size or time has changed.

    Args:
        path: the file.
        memory: a JSON file that keeps digests; not written where its folder is missing.

    """
    status = path.stat()
    state = [status.st_size, status.st_mtime_ns]
    try:
        memory_content = json.loads(memory.read_text(encoding="utf-8"))
        size, time, digest = memory_content[str(path)]
    except (OSError, ValueError, KeyError, TypeError):
        memory_content, size, time, digest = {}, None, None, ""
    if [size, time] != state:
        digest = _digest_in_state(path, *state)
        if memory.parent.is_dir() and isinstance(memory_content, dict):
            write_text(memory, json.dumps({**memory_content, str(path): [*state, digest]}))
    return str(digest)


@cache
def _digest_in_state(path: Path, size: int, time: int) -> str:  # noqa: ARG001  # they distinguish edited files
    """Digest a file once in a process, since a first dry run has no folder for `memory` yet."""
    return file_digest(path)
