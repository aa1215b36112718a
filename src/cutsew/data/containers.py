"""Images in tars and Parquet files, listed without reading any."""

import glob
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from cutsew.config.base import is_url
from cutsew.config.dataset import ParquetDatasetConfig, TarDatasetConfig
from cutsew.data import remote
from cutsew.data.container_index import Companion, Damage, Entry, index_parquet, index_tar
from cutsew.data.folder import Leftover
from cutsew.errors import UserError

log = logging.getLogger(__name__)

Containers = TarDatasetConfig | ParquetDatasetConfig


class DoubtfulIndex(Exception):  # noqa: N818  # of a damaged file, or one whose connection failed
    """An index that ends with a `Damage`."""

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__()
        self.entries = entries


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
        return index_tar(container) if dataset.kind == "tar" else index_parquet(dataset, container)

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
