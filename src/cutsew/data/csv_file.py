"""Reading a CSV that a person made: its encoding, separator and line ends, and which images its rows name."""

import codecs
import csv
import io
import itertools
import logging
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from cutsew.data.images import SUFFIXES
from cutsew.errors import UserError

log = logging.getLogger(__name__)

csv.field_size_limit(2**31 - 1)  # Python's 128 KiB are less than the labels of an image that has thousands

SEPARATORS = ",;\t"
"""In order of preference where the first line holds as many of several."""

ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order mark -> encoding; without a mark a file is UTF-8."""

IMAGE_COLUMNS = ("id", "path", "image", "file", "filename", "file_name", "image_path", "image_id", "photo")
"""Columns that may name a row's image."""


def read_csv(path: Path, setting: str, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a CSV as text.

    Fields are separated by commas, semicolons or tabs, whichever the first line holds most of; lines end in LF, CRLF or
    CR. Excel's "Unicode text" (UTF-16 with tabs) and a first line `sep=;` are read too. Spaces around fields are
    dropped, and rows without any text are skipped.

    Args:
        path: the file, UTF-8, or UTF-16 with a byte order mark.
        setting: dotted name of the setting that names it, for messages.
        columns: names, in lower case, that the first line may write in any case; IMAGE_COLUMNS always are.

    Returns:
        One column of text per field of the first line, empty where a row is too short; the index, named `line`, holds
        the line of the file on which each row begins.

    Raises:
        UserError: the file is missing, is no text or no CSV, a row has more fields than the first line, or that names a
            column twice.

    """
    text = _decode(path, setting)
    first = text.lstrip("\r\n").split("\n", 1)[0].split("\r", 1)[0]
    declared = re.fullmatch(r"sep=(.)", first.strip(" "), re.IGNORECASE)
    separator = declared[1] if declared else max(SEPARATORS, key=re.sub(r'"[^"]*"', "", first).count)
    lines: list[int] = []
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    start = 1
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields) and not (declared and not rows and fields[0].lower() == "sep="):
                lines.append(start)
                rows.append(fields)
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{setting}: {path}, line {start}: not a readable CSV ({error}); check the quotes from this line on"
        ) from None
    if not rows:
        raise UserError(f"{setting}: {path} is not a readable CSV (it is empty); write a first line of column names")
    known_columns = {*IMAGE_COLUMNS, *columns}
    heads = [name.lower() if name.lower() in known_columns else name for name in map(nfc, rows[0])]
    while heads and not heads[-1]:
        heads.pop()
    return _table(heads, rows[1:], lines[1:], path, setting)


def _table(heads: list[str], rows: list[list[str]], lines: list[int], path: Path, setting: str) -> pd.DataFrame:
    duplicate = next((name for name, count in Counter(heads).items() if name and count > 1), None)
    if duplicate is not None:
        raise UserError(f"{setting}: {path} names the column {duplicate!r} twice; rename one in its first line")
    width = len(heads)
    for line, row in zip(lines, rows, strict=True):
        if any(row[width:]):
            what = f"it has {len(row)} fields, but the first line has {width}"
            raise UserError(
                f"{setting}: {path}, line {line}: not a readable CSV ({what}); put quotes around "
                "a field that holds the separator"
            )
    fields = [(row + [""] * (width - len(row)))[:width] for row in rows]
    return pd.DataFrame(fields, columns=heads, index=pd.Index(lines, name="line", dtype=int), dtype=object)


def _decode(path: Path, setting: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{setting}: {path} does not exist; name an existing CSV, or null for none") from None
    except OSError as error:
        raise UserError(f"{setting}: {path} cannot be read ({error.strerror}); name a readable CSV") from None
    encoding = next((name for mark, name in ENCODINGS.items() if data.startswith(mark)), "utf-8")
    save = "save it as CSV UTF-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len((data[: error.start] + b"x").splitlines())
        location = f", line {line}" if encoding != "utf-16" else ""
        raise UserError(f"{setting}: {path}{location}: not a readable CSV (not {encoding.upper()}); {save}") from None
    if "\0" in text:
        raise UserError(f"{setting}: {path} is not a readable CSV (it holds NUL characters); {save}")
    return text


def nfc(text: str) -> str:
    """Compose accents and drop spaces at the ends, so that equal words compare equal wherever they were typed."""
    return unicodedata.normalize("NFC", text.strip())


class ImageNames:
    """The names that a person may call images by.

    An image is found by its id, or by its path as in the manifest, absolute, or below the root or its parent.
    Backslashes, a leading `./` and decomposed accents (macOS) do not matter; nor do upper and lower case and a left-out
    suffix, where only one image fits.

    Args:
        ids: of all images.
        paths: of the same images, as in the manifest; empty for images without files.
        root: folder of the images.

    """

    def __init__(self, ids: Sequence[str], paths: Sequence[str] = (), root: Path | None = None) -> None:
        self.ids = ids
        self._paths = paths
        self._roots = [] if root is None else [f"{place}/" for place in _spellings(root)]

    def find(self, name: str) -> list[str]:
        """Return the ids of the images that a name fits best: none, one, or several where it is ambiguous."""
        if name in self._known:
            return [name]
        plain = self._below_root(_plain(name))
        for index, key in ((self._plain, plain), (self._folded, plain.casefold())):
            if key in index:
                return sorted(index[key])
        matches = self._stems.get(_stem(plain), ())
        if _stem(plain) != plain.casefold():  # a.png is not a.jpg, but may be the image whose id is a
            matches = tuple(fit for fit in matches if _stem(_plain(fit)) == _plain(fit).casefold())
        return sorted(matches)

    @cached_property
    def _known(self) -> set[str]:
        return set(self.ids)

    @cached_property
    def _plain(self) -> dict[str, tuple[str, ...]]:
        return self._index(lambda name: name)

    @cached_property
    def _folded(self) -> dict[str, tuple[str, ...]]:
        return self._index(str.casefold)

    @cached_property
    def _stems(self) -> dict[str, tuple[str, ...]]:
        return self._index(_stem)

    def _index(self, key: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
        index: dict[str, tuple[str, ...]] = {}
        for name, path in itertools.zip_longest(self.ids, self._paths, fillvalue=""):
            for called in {_plain(name), self._below_root(_plain(path))} if path else {_plain(name)}:
                fits = index.setdefault(key(called), (name,))
                if name not in fits:
                    index[key(called)] = (*fits, name)
        return index

    def _below_root(self, name: str) -> str:
        return next((name[len(root) :] for root in self._roots if name.startswith(root)), name)


def find_images(
    table: pd.DataFrame,
    images: ImageNames,
    path: Path,
    setting: str,
    columns: Iterable[str] = IMAGE_COLUMNS,
    *,
    warn: bool = True,
) -> list[str | None]:
    """Find the image of each row, by the column that names the most images.

    Args:
        table: as `read_csv` returns it; has at least one of `columns`.
        images: what images are called.
        path: the file, for messages.
        setting: dotted name of the setting that names it, for messages.
        columns: columns that may name the image, preferred first.
        warn: say how many rows name no image of this dataset.

    Returns:
        Id of each row's image, None where the row names no image of this dataset.

    Raises:
        UserError: a name fits several images, or no row names an image.

    """
    tried = {column: [images.find(name) for name in table[column]] for column in columns if column in table.columns}
    column, matches = max(tried.items(), key=lambda item: sum(map(bool, item[1])))
    for line, name, fits in zip(table.index, table[column], matches, strict=True):
        if len(fits) > 1:
            raise UserError(
                f"{setting}: {path}, line {line}, column {column}: {name!r} fits {len(fits)} images, {fits[0]!r} and "
                f"{fits[1]!r} among them; write the image's id"
            )
    if len(table) and not any(matches):
        raise UserError(
            f"{setting}: {path} names none of the images: line {table.index[0]}, column {column}, has "
            f"{table[column].iloc[0]!r}, where an image is called {images.ids[0]!r}; write the images' ids"
        )
    unmatched = [row for row, fits in enumerate(matches) if not fits]
    if unmatched and warn:
        log.warning(
            "%s: %d of %d rows of %s name images that this dataset does not have, line %d %r for one (an image of "
            "it is "
            "called %r); ignored",
            setting,
            len(unmatched),
            len(table),
            path,
            table.index[unmatched[0]],
            table[column].iloc[unmatched[0]],
            images.ids[0],
        )
    return [fits[0] if fits else None for fits in matches]


def _plain(name: str) -> str:
    """Bring a path to one spelling: slashes, composed accents, no `./`, nothing doubled."""
    name = nfc(name).replace("\\", "/")
    return posixpath.normpath(name) if "./" in name or "//" in name else name


def _stem(name: str) -> str:
    """Fold case and drop the suffix of an image."""
    folded = name.casefold()
    return next((folded[: -len(suffix)] for suffix in SUFFIXES if folded.endswith(suffix)), folded)


def _spellings(root: Path) -> list[str]:
    """Word a folder as given, absolute, with its links resolved, and by its name alone."""
    places = (str(root), os.path.abspath(root), os.path.realpath(root), root.name)  # noqa: PTH100
    return list(dict.fromkeys(_plain(text) for text in places if text))
