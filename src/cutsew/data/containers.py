"""Images in tars and Parquet files, and images behind URLs, listed without reading any image."""

import errno
import glob
import logging
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from cutsew.config.base import is_url
from cutsew.config.dataset import ParquetDatasetConfig, TarDatasetConfig
from cutsew.data import remote
from cutsew.data.folder import SYSTEM_FOLDERS, Leftover
from cutsew.data.image_bytes import ParquetRow, TarMember, open_container
from cutsew.data.images import SUFFIXES
from cutsew.data.parquet_columns import id_column, image_column, texts_of
from cutsew.errors import UserError

log = logging.getLogger(__name__)

Containers = TarDatasetConfig | ParquetDatasetConfig

COMPANIONS = (".cls", ".cls2", ".json", ".txt", ".caption", ".index", ".id", ".pyd", ".npy", ".bbox")
"""Suffixes of labels and metadata that WebDataset keeps next to an image; they are counted and never read."""

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
"""How files of gzip, bzip2, xz and zstd start."""


@dataclass(frozen=True)
class Damage:
    """A tar or Parquet file that cannot be read to its end, why, and what to do."""

    reason: str
    cure: str = "copy it again from its source"


@dataclass(frozen=True)
class Companion:
    """A member of a tar with labels or metadata, by its suffix."""

    suffix: str


class DoubtfulIndex(Exception):  # noqa: N818  # of a damaged file, or one whose connection failed
    """An index that ends with a `Damage`."""

    def __init__(self, entries: "list[Entry]") -> None:
        super().__init__()
        self.entries = entries


Entry = tuple[str, str] | Leftover | Companion | Damage
"""What an index holds: id and address of an image, or what else is there."""


def expand_braces(pattern: str) -> list[str]:
    """Expand `{a,b}` and `{000..099}` as bash does, from left to right; all else stays as it is."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    before, inner, rests = pattern[: match.start()], match[1], expand_braces(pattern[match.end() :])
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
        padded = any(len(number) > 1 and number.startswith("0") for number in numbers.groups())
        width = max(map(len, numbers.groups())) if padded else 0
        options = [f"{number:0{width}d}" for number in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        options = inner.split(",") if "," in inner else [match[0]]  # the latter is a name with braces
    return [f"{before}{option}{rest}" for option in options for rest in rests]


def find_containers(root: Path | str, pattern: str, setting: str = "dataset.files") -> list[str]:
    """List the files that a pattern names below a folder or URL, in the order of their names.

    Raises:
        UserError: there are none, or one that is named without a wildcard is not there.

    """
    found: list[str] = []
    for one in expand_braces(pattern):
        wild = glob.has_magic(one)
        if isinstance(root, str):
            found += remote.find_files(root, one) if wild else [f"{root.rstrip('/')}/{one}"]
            continue
        place = root / one
        if wild:
            names = glob.glob(one, root_dir=root, recursive=True)  # noqa: PTH207 - Path.glob follows no links
            found += [str(root / name) for name in names if (root / name).is_file()]
        elif place.is_file():
            found.append(str(place))
        else:
            raise UserError(f"{setting}: {place} does not exist; correct the pattern, or add the file")
    if not found:
        raise UserError(f"{setting}: no file below {root} matches {pattern}; correct the pattern, or dataset.root")
    return sorted(dict.fromkeys(found))


def list_members(
    dataset: Containers, root: Path | str, leftovers: list[Leftover] | None = None, setting: str = "dataset.files"
) -> list[tuple[str, str, str]]:
    """List the images of tars or Parquet files: (id, address, container), container by container as they lie there.

    An id is the name of a member, or the row's key or path; where containers share ids, theirs begin with the
    container's name, without suffix.

    Args:
        dataset: its settings.
        root: folder or URL of the containers.
        leftovers: what is no image is added to it.
        setting: what names the containers, for messages.

    Raises:
        UserError: there are none, or a container is damaged and `dataset.on_bad_image` is stop.

    """
    rows: list[tuple[str, str, str]] = []
    others: list[Leftover] = []
    companions: Counter[str] = Counter()
    for container in tqdm(find_containers(root, dataset.files, setting), desc="index", unit="file"):
        names: dict[str, str] = {}
        for entry in _index(dataset, container):
            if isinstance(entry, Leftover):
                others.append(entry)
            elif isinstance(entry, Companion):
                companions[entry.suffix] += 1
            elif isinstance(entry, tuple):  # a tar may hold a member twice: the last one counts, as when unpacked
                names.pop(entry[0], None)
                names[entry[0]] = entry[1]
            elif dataset.on_bad_image == "stop":
                raise UserError(f"{container}: {entry.reason}; {entry.cure}, or set dataset.on_bad_image: skip")
            else:
                log.warning("%s: %s; %d of its images are used", container, entry.reason, len(names))
                reason = f"{entry.reason}, {len(names)} images of it are used; {entry.cure}"
                others.append(Leftover(container, "other", reason))
        rows += [(name, address, container) for name, address in names.items()]
    if leftovers is not None:
        leftovers += others
    if companions:
        counted = ", ".join(f"{suffix} {count:,}" for suffix, count in companions.most_common())
        log.info("labels and metadata next to the images are not read: %s", counted)
    if not rows:
        raise UserError(f"{setting}: the files below {root} that match {dataset.files} hold no image; name others")
    return _distinct(rows, root)


def _distinct(rows: Sequence[tuple[str, str, str]], root: Path | str) -> list[tuple[str, str, str]]:
    """Put the container's name before ids that several containers hold.

    It has no suffix. Where an id is then that of another image, all ids get the whole name.
    """
    held = Counter(name for name, _, _ in rows)
    shared = [name for name, count in held.items() if count > 1]
    if not shared:
        return list(rows)
    log.info("%d ids are in several files (%s); they get the file's name as a prefix", len(shared), shared[0])
    below = {container: _below(container, root) for container in dict.fromkeys(container for *_, container in rows)}
    stems = {container: PurePosixPath(name).with_suffix("") for container, name in below.items()}
    ids = [name if held[name] == 1 else f"{stems[container]}/{name}" for name, _, container in rows]
    if len(set(ids)) < len(ids):
        ids = [f"{below[container]}/{name}" for name, _, container in rows]
    return [(name, address, container) for name, (_, address, container) in zip(ids, rows, strict=True)]


def _below(container: str, root: Path | str) -> str:
    """Return a container's path below the root."""
    return remote.relative(container, root) if isinstance(root, str) else str(Path(container).relative_to(root))


def _index(dataset: Containers, container: str) -> Iterable[Entry]:
    """Index one container; that of a URL is indexed whole first, so that a failing connection can be tried again."""

    def entries() -> Iterator[Entry]:
        return _index_tar(container) if dataset.kind == "tar" else _index_parquet(dataset, container)

    def whole() -> list[Entry]:
        found = list(entries())
        if any(isinstance(entry, Damage) for entry in found):
            raise DoubtfulIndex(found)
        return found

    try:
        yield from remote.attempt(container, whole, (DoubtfulIndex,)) if is_url(container) else entries()
    except DoubtfulIndex as error:
        yield from error.entries
    except FileNotFoundError:
        raise UserError(f"{container}: no such file; correct dataset.files") from None
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise UserError(f"{container}: cannot be read ({why}); make it readable") from None


def _index_tar(container: str) -> Iterator[Entry]:
    """List the members of a tar by their headers alone."""
    with open_container(container, ahead=True) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    tar.members.clear()  # type: ignore[attr-defined]  # it keeps all of them otherwise
                    if not member.isdir():
                        yield _member(container, member)
                file.seek(tar.offset)
                last = file.read(tarfile.BLOCKSIZE)
        except tarfile.TarError as error:
            yield Damage("truncated") if "unexpected end" in str(error) else _no_tar(file)
            return
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) not in (None, errno.EINVAL) or is_url(container):
                raise
            yield Damage("damaged")  # a header led to a place where no file can be
            return
    # Where tarfile finds no header it stops without an error; only two blocks of zeros are a tar's end.
    if len(last) < tarfile.BLOCKSIZE:
        yield Damage("truncated")
    elif last.strip(tarfile.NUL):
        yield Damage("damaged")


def _no_tar(file: IO[bytes]) -> Damage:
    """Say what a file is that does not start as a tar does."""
    file.seek(0)
    if file.read(6).startswith(COMPRESSED):
        return Damage("compressed, so that no image can be read by its place", "decompress it (gunzip, bunzip2, unxz)")
    return Damage("not a tar")


def _member(container: str, member: tarfile.TarInfo) -> Entry:
    """Return a member's id and address, or what it is instead of an image."""
    path = PurePosixPath(member.name)
    name = member.name.removeprefix("./")
    suffix, shown = path.suffix.lower(), f"{container}: {name}"
    if path.name.startswith("."):
        return Leftover(shown, "hidden", "hidden file")
    if suffix in COMPANIONS:
        return Companion(suffix)
    if suffix not in SUFFIXES:
        return Leftover(shown, "other", "member of another kind")
    if not member.isreg() or member.issparse():
        return Leftover(shown, "other", "not a plain file: a link, device or sparse file")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{shown!a}: this name is not UTF-8; rename it") from None
    return name, str(TarMember(container, member.name, member.offset_data, member.size))


def _index_parquet(dataset: ParquetDatasetConfig, container: str) -> Iterator[Entry]:
    """List the rows of a Parquet file; of its columns, only that of the ids is read."""
    import pyarrow.parquet as pq  # noqa: PLC0415  # only this kind needs it
    from pyarrow import ArrowException  # noqa: PLC0415

    with open_container(container, ahead=False) as file:
        try:
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            column, nested = image_column(schema, dataset.image, container)
            named = id_column(schema, dataset.id, column, container, nested=nested)
            values = [] if named is None else parquet.read(columns=[named]).column(0).to_pylist()
            rows = parquet.metadata.num_rows
        except (ArrowException, OSError) as error:  # pyarrow's own OSErrors have no number
            if isinstance(error, OSError) and (error.errno is not None or is_url(container)):
                raise
            yield Damage("truncated, damaged or not a Parquet file")
            return
    ids = texts_of(values, named, container)
    if len(ids) < rows or len(set(ids)) < rows:
        if dataset.id is not None:
            raise UserError(
                f"dataset.id: column {dataset.id} of {container} is empty or the same in two rows; name another"
            )
        ids = [f"{PurePosixPath(container).stem}/{row:08d}" for row in range(rows)]
    leaf = f"{column}.bytes" if nested else column
    for row, name in enumerate(ids):
        yield name, str(ParquetRow(container, leaf, row))


def list_remote_images(root: str, leftovers: list[Leftover] | None = None) -> dict[str, str]:
    """List the images below a URL: id (path below it) -> URL, sorted by id; all else goes to `leftovers`.

    Raises:
        UserError: the URL cannot be listed.

    """
    images: dict[str, str] = {}
    for url in remote.find_files(root):
        name = remote.relative(url, root)
        parts = PurePosixPath(name).parts
        hidden = any(part.startswith(".") or part.lower() in SYSTEM_FOLDERS for part in parts)
        if not hidden and name.lower().endswith(SUFFIXES):
            images[name] = url
        elif leftovers is not None:
            leftovers.append(
                Leftover(url, "hidden" if hidden else "other", "hidden file" if hidden else "not an image")
            )
    return dict(sorted(images.items()))
