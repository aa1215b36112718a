"""The CSV of a human's corrections, as the report's page writes it."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import pandas as pd

from cutsew.data import csv_file
from cutsew.data.csv_file import PhotoNames, nfc
from cutsew.errors import UserError
from cutsew.storage.tables import read_parquet

SETTING = "labels.overrides"
NEEDED = ("image", "class", "present")
SAID = {"1": 1, "0": 0}


def read_overrides(path: Path) -> pd.DataFrame:
    """Read the corrections.

    Returns:
        Columns line (of the file, for messages), image, class, present (int8: 1 or 0), by and at; the last two are
        empty where the file lacks them. A row that repeats another is dropped.

    Raises:
        UserError: the file is missing, is not such a CSV, or says two things of one label.

    """
    table = csv_file.read_csv(path, SETTING, (*NEEDED, "by", "at"))
    lost = [name for name in NEEDED if name not in table.columns]
    if lost:
        raise UserError(f"{SETTING}: {path} has no column {lost[0]!r}; its first line needs image, class and present")
    table = table.reset_index()
    for name in ("by", "at"):
        if name not in table:
            table[name] = ""
    table["present"] = table["present"].str.strip()
    wrong = table[~table["present"].isin(SAID)].head(1)
    for line, value in zip(wrong["line"], wrong["present"], strict=True):
        raise UserError(f"{SETTING}: {path}, line {line}, column present: {value!r}; write 1 or 0")
    table["present"] = table["present"].map(SAID).astype("int8")
    return _without_repeats(table[["line", *NEEDED, "by", "at"]], path)


def corrections_of(path: Path, ids: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """Read the corrections of a run: `read_overrides`, `match_classes` and `match_photos` in turn."""
    return match_photos(match_classes(read_overrides(path), classes, path), ids, path)


def match_classes(table: pd.DataFrame, classes: Sequence[str], path: Path) -> pd.DataFrame:
    """Give the classes of corrections as the settings spell them, however their accents are composed.

    Raises:
        UserError: a class is not among `classes`.

    """
    exact, composed = set(classes), {nfc(name): name for name in classes}
    found = []
    for line, name in zip(table["line"], table["class"], strict=True):
        known = name if name in exact else composed.get(nfc(name))
        if known is None:
            raise UserError(
                f"{SETTING}: {path}, line {line}, column class: {name!r} is none of classes{_near(name, classes)}; "
                "correct it, or remove the row"
            )
        found.append(known)
    return table.assign(**{"class": found})


def match_photos(table: pd.DataFrame, ids: Sequence[str], path: Path) -> pd.DataFrame:
    """Give the photos of corrections as the run calls them; see `csv_file.PhotoNames` for what fits.

    Raises:
        UserError: a photo is not among `ids`, or two rows say two things of one label.

    """
    photos = PhotoNames(ids)
    fits = [photos.find(name) for name in table["image"]]
    if fits and not any(fits):
        raise UserError(
            f"{SETTING}: {path} names none of this dataset's photos: line {table['line'].iloc[0]} has image "
            f"{table['image'].iloc[0]!r}, and a photo here is called {ids[0]!r}; name this run's corrections"
        )
    for line, name, found in zip(table["line"], table["image"], fits, strict=True):
        if len(found) != 1:
            wrong = f"fits {len(found)} photos" if found else f"is no photo of this run{_near(name, ids)}"
            raise UserError(
                f"{SETTING}: {path}, line {line}, column image: {name!r} {wrong}; correct it, or remove the row"
            )
    return _without_repeats(table.assign(image=[found[0] for found in fits]), path)


FEW = 10_000
"""Names among which a near one is looked for."""


def _near(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1) if len(known) < FEW else []
    return f" (did you mean {near[0]!r}?)" if near else ""


def _without_repeats(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Drop rows that repeat a label's correction; refuse two that contradict each other."""
    table = table.drop_duplicates(subset=list(NEEDED))
    twice = table[table.duplicated(subset=["image", "class"])].head(1)
    for line, image, name in zip(twice["line"], twice["image"], twice["class"], strict=True):
        first = table.loc[(table["image"] == image) & (table["class"] == name), "line"].iloc[0]
        raise UserError(
            f"{SETTING}: {path}, lines {first} and {line}, column present: {name!r} of {image!r} is both 1 and 0; "
            "keep one row"
        )
    return table.reset_index(drop=True)


def split_of_corrections(path: Path, manifest: Path) -> pd.DataFrame:
    """Read corrections and the split of each one's photo, as a manifest says now.

    Args:
        path: the CSV.
        manifest: images.parquet.

    Returns:
        Columns as `read_overrides`, and split; photos that the manifest does not hold are left out.

    """
    return _split_of_corrections(path, path.stat().st_mtime_ns, manifest, manifest.stat().st_mtime_ns).copy()


@cache
def _split_of_corrections(path: Path, _: int, manifest: Path, __: int) -> pd.DataFrame:
    table = read_overrides(path)
    named = set(table["image"])
    photos = read_parquet(manifest, ["id", "split"], [("id", "in", sorted(named))] if named else None)
    if len(photos) < len(named):  # some are called otherwise: see PhotoNames
        photos = read_parquet(manifest, ["id", "split"])
    names = PhotoNames([str(name) for name in photos["id"]])
    table["image"] = [fits[0] if len(fits := names.find(name)) == 1 else None for name in table["image"]]
    return table.merge(photos, left_on="image", right_on="id").drop(columns="id")
