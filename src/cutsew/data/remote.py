"""Files behind URLs (`s3://`, `gs://`, `hf://`, `https://` and whatever else fsspec opens).

Credentials are fsspec's: its configuration files, environment variables or the cloud's own. URLs in settings hold none
(`config.base.Location` refuses them), and messages name URLs and kinds of errors alone.
"""

import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from cutsew.errors import UserError

T = TypeVar("T")

EXTRAS = {
    "s3": "cutsew[s3]",
    "gs": "cutsew[gs]",
    "gcs": "cutsew[gs]",
    "http": "cutsew[http]",
    "https": "cutsew[http]",
    "hf": "huggingface_hub",
}
"""Protocol -> what to install for it."""

PAUSES = (0.5, 2.0)
"""Seconds before each further attempt."""

AHEAD = 8 * 2**20
"""Most bytes that are fetched together where a file is read from front to back."""

NEAR = 2**16
"""Bytes that may lie between two reads of a file that is read from front to back."""

NO_PARTS = "this server does not serve parts of files; copy the file, or use another server"

PARTS_REFUSED = ("range requests", "Cannot seek streaming HTTP file")
"""What fsspec says of such a server."""

MARKS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created", "blob_id")
"""Fields in which file systems state what changes with a file's content."""


def filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        UserError: no such protocol, or its package is not installed.

    """
    from fsspec.core import url_to_fs  # noqa: PLC0415  # only images behind URLs need it

    protocol = url.partition("://")[0]
    try:
        system, path = url_to_fs(url)
    except ImportError:
        package = EXTRAS.get(protocol, f"fsspec[{protocol}]")
        raise UserError(f"{url}: {protocol}:// needs a package; pip install '{package}'") from None
    except ValueError:
        raise UserError(f"{url}: {protocol}:// is not a protocol that fsspec knows; check the URL") from None
    except Exception as error:  # some connect at once, and every file system has errors of its own
        raise UserError(f"{url}: cannot be opened ({type(error).__name__}); check URL and connection") from None
    return system, str(path)


def attempt(url: str, action: Callable[[], T], doubtful: tuple[type[Exception], ...] = ()) -> T:
    """Do something with a remote file; try again where the connection fails.

    Args:
        url: of the file, for messages.
        action: what to do.
        doubtful: exceptions of `action` that may or may not be the connection's; the last one is raised as it is.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read: no permission, or no connection after several attempts.

    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except UserError:
            raise
        except Exception as raised:  # every file system has its own
            error = _cause(raised)
            if isinstance(error, FileNotFoundError):
                raise
            status = getattr(error, "status", None)
            if isinstance(error, PermissionError) or status in (401, 403):
                raise UserError(f"{url}: access is denied; give fsspec the credentials for it") from None
            if any(words in str(error) for words in PARTS_REFUSED):
                raise UserError(f"{url}: {NO_PARTS}") from None
            if pause is None and isinstance(error, doubtful):
                raise
            if pause is None:
                why = f"the server answered {status}" if status else type(error).__name__
                raise UserError(f"{url}: cannot be read ({why}); check the connection and run again") from None
            time.sleep(pause)
    raise AssertionError  # unreachable: the last attempt returns or raises


def _cause(error: Exception) -> Exception:
    """Return the error of the connection where fsspec reports it as a file that is not there."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    of_connection = type(cause).__module__.startswith("aiohttp") and getattr(cause, "status", None) not in (404, 410)
    return cause if of_connection or isinstance(cause, TimeoutError | ConnectionError) else error


def read_file(url: str) -> bytes:
    """Read a whole file.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: as `attempt`.

    """
    system, path = filesystem(url)
    return bytes(attempt(url, lambda: system.cat_file(path)))


class _Window(threading.local):
    """The part of a file that a thread fetched last."""

    process = 0
    url = ""
    start = 0
    end_of_last = -1
    data = b""


_window = _Window()


def read_range(url: str, offset: int, length: int) -> bytes:
    """Read a part of a file; fewer bytes where the file ends before it.

    Where a thread reads on near the end of what it read before, twice as much is fetched each time, up to `AHEAD`
    bytes; anywhere else, as in training, only the part itself is.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: as `attempt`, or the server does not serve parts of files.

    """
    window = _window
    same = window.url == url and window.process == os.getpid()
    if not (same and window.start <= offset and offset + length <= window.start + len(window.data)):
        ahead = same and 0 <= offset - window.end_of_last <= NEAR
        wanted = max(length, min(2 * len(window.data), AHEAD)) if ahead else length
        size = _size(url)
        end = offset + wanted if size is None else min(offset + wanted, size)
        data = attempt(url, lambda: _cat(url, offset, end, whole=size is not None)) if end > offset else b""
        window.process, window.url, window.start, window.data = os.getpid(), url, offset, data
    window.end_of_last = offset + length
    begin = offset - window.start
    return window.data[begin : begin + length]


def _cat(url: str, start: int, end: int, *, whole: bool) -> bytes:
    """Fetch a part of a file; fewer bytes are an error if `whole` says that the file has them."""
    system, path = filesystem(url)
    data = bytes(system.cat_file(path, start=start, end=end))
    if len(data) > end - start:  # all of it
        raise UserError(f"{url}: {NO_PARTS}")
    if whole and len(data) < end - start:
        raise EOFError
    return data


@lru_cache(maxsize=4096)
def _size(url: str) -> int | None:
    """Return the size of a file, None where the file system does not say."""
    system, path = filesystem(url)
    size = attempt(url, lambda: system.info(path)).get("size")
    return None if size is None else int(size)


def open_file(url: str, *, ahead: bool) -> Any:  # noqa: ANN401 - fsspec's file objects share no type
    """Open a file.

    Args:
        url: of the file.
        ahead: fetch more than is read, as suits a file that is read from front to back.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: as `attempt`.

    """
    system, path = filesystem(url)
    cache = "readahead" if ahead else "none"
    return attempt(url, lambda: system.open(path, "rb", block_size=AHEAD, cache_type=cache))


def find_files(root: str, pattern: str | None = None) -> dict[str, dict[str, Any]]:
    """List the files below a URL, or those that match a pattern: URL -> what the file system says of it.

    Raises:
        UserError: as `attempt`, or there is no such place.

    """
    system, path = filesystem(root)
    _pass_over_no_folder(system)
    try:
        if pattern is None:
            found = attempt(root, lambda: system.find(path, detail=True))
        else:
            found = attempt(root, lambda: system.glob(f"{path.rstrip('/')}/{pattern}", detail=True))
    except FileNotFoundError:
        raise UserError(f"dataset.root: {root} does not exist; check the URL") from None
    files = {name: info for name, info in found.items() if info.get("type", "file") == "file"}
    return {str(system.unstrip_protocol(name)): info for name, info in sorted(files.items())}


class ConnectionFailed(Exception):  # noqa: N818  # named for what it is about
    """A folder cannot be listed for its connection; the message is the kind of error."""


def _pass_over_no_folder(system: Any) -> None:  # noqa: ANN401 - fsspec's
    """Have a web server's file system fail where it cannot list a folder.

    fsspec's walk passes over a folder where an OSError is raised, as one is when a connection is reset or times out;
    its images would be missing without a word.
    """
    protocols = system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)
    if "http" not in protocols or hasattr(system, "strict"):
        return
    listed = system._ls  # noqa: SLF001 - what its walk calls

    async def ls(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return await listed(*args, **kwargs)
        except OSError as error:
            if isinstance(_cause(error), FileNotFoundError):
                raise
            raise ConnectionFailed(type(error).__name__) from None

    system._ls, system.strict = ls, True  # noqa: SLF001


def stat_line(url: str, info: dict[str, Any] | None = None) -> str:
    """Word a file's URL, size and what changes with its content; ask for the latter where it is not given.

    A file that cannot be reached is worded as missing.
    """
    if info is None:
        system, path = filesystem(url)
        try:
            info = attempt(url, lambda: system.info(path))
        except (FileNotFoundError, UserError):  # the job that reads the file says why
            return f"{url}\tmissing"
    mark = next((info[name] for name in MARKS if info.get(name) is not None), "")
    return f"{url}\t{info.get('size')}\t{mark}"


def relative(url: str, root: str) -> str:
    """Return the path of a file below a URL."""
    system, base = filesystem(root)
    name = str(system._strip_protocol(url))[len(base.rstrip("/")) :].lstrip("/")  # noqa: SLF001 - url_to_fs takes 29 us
    return unquote(name) if urlsplit(root).scheme in ("http", "https") else name
