"""Files of a human's corrections: the report's CSV, an edited labels.csv, and Label Studio's JSON export."""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from cutsew.data import csv_file
from cutsew.data.csv_file import ImageNames, nfc
from cutsew.errors import UserError, did_you_mean, some
from cutsew.storage.label_table import BY_HUMAN, LABELS, MODEL_LABELS, names_in
from cutsew.storage.tables import read_parquet

SETTING = "labels.overrides"
NEEDED = ("image", "class", "present")
SAID = {"1": 1, "0": 0}
COLUMNS = ("line", *NEEDED, "by", "at")


def read_overrides(path: Path, classes: Sequence[str]) -> pd.DataFrame:
    """Read the corrections.

    Args:
        path: a CSV with the columns image, class and present, as the report's page writes it; an edited labels.csv, in
            which a label counts where `labels` and `model_labels` differ or `by_human` names it; or a JSON export of
            Label Studio, in which an annotated task decides all classes.
        classes: C names.

    Returns:
        Columns line (of the file, or number of the task, for messages), image, class, present (int8: 1 or 0), by and
        at; the last two are empty where the file lacks them. A row that repeats another is dropped.

    Raises:
        UserError: the file is missing, is not one of these, or says two things of one label.

    """
    if path.suffix.lower() == ".json":
        return _without_repeats(_table(_of_label_studio(path, classes)), path)
    table = csv_file.read_csv(path, SETTING, (*NEEDED, "by", "at", LABELS, MODEL_LABELS, BY_HUMAN))
    if {LABELS, MODEL_LABELS} <= set(table.columns):
        return _without_repeats(_table(_of_labels(table, path)), path)
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise UserError(
            f"{SETTING}: {path} has no column {missing[0]!r}; its first line needs image, class and present"
        )
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


def _table(rows: Iterator[tuple[Any, ...]]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)
    return table.astype({"line": "int64", "present": "int8"})


def _of_labels(table: pd.DataFrame, path: Path) -> Iterator[tuple[Any, ...]]:
    """Give what was changed in a table of labels."""
    if "id" not in table.columns:
        raise UserError(f"{SETTING}: {path} has no column 'id'; keep that of labels.csv")
    by_human = table[BY_HUMAN] if BY_HUMAN in table.columns else pd.Series("", index=table.index)
    columns = (table.index, table["id"], table[LABELS], table[MODEL_LABELS], by_human)
    for line, image, *texts in zip(*columns, strict=True):
        labels, model, decided = ([nfc(name) for name in names_in(text)] for text in texts)
        present = set(labels)  # of thousands
        both = present.intersection(model)
        changed = [name for name in (*labels, *model) if name not in both]
        for name in dict.fromkeys((*decided, *changed)):
            yield line, image, name, int(name in present), "", ""


def _of_label_studio(path: Path, classes: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Give what the tasks of an export say; of several annotations of a task the one that was updated last counts."""
    known = set(map(nfc, classes))
    for number, task in enumerate(_tasks(path), start=1):
        data, annotations = task["data"], [a for a in task["annotations"] if not a.get("was_cancelled")]
        if not annotations:  # nobody looked at it since: what a human said before stands
            for name, present in data.get(BY_HUMAN, {}).items():
                yield number, data["id"], name, int(bool(present)), "", ""
            continue
        last = max(annotations, key=lambda a: str(a.get("updated_at") or a.get("created_at") or ""))
        chosen = {nfc(name): name for name in _choices(last)}
        by, at = _author(last.get("completed_by")), str(last.get("updated_at") or last.get("created_at") or "")
        for name in (*classes, *(text for key, text in chosen.items() if key not in known)):
            yield number, data["id"], name, int(nfc(name) in chosen), by, at


def _tasks(path: Path) -> list[dict[str, Any]]:
    try:
        result = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{SETTING}: {path} does not exist; name an existing file, or null for none") from None
    except OSError as error:
        raise UserError(f"{SETTING}: {path} cannot be read ({error.strerror}); name a readable file") from None
    except (ValueError, RecursionError):
        raise UserError(f"{SETTING}: {path} is not readable JSON; export the project again") from None
    for number, task in enumerate(result if isinstance(result, list) else [None], start=1):
        if not (isinstance(task, dict) and isinstance(task.get("data"), dict) and _are_annotations(task)):
            raise UserError(
                f"{SETTING}: {path}, task {number}: not part of a Label Studio export with annotations; export the "
                "project as JSON, not as JSON-MIN"
            )
        if not isinstance(task["data"].get("id"), str) or not isinstance(task["data"].get(BY_HUMAN, {}), dict):
            raise UserError(
                f"{SETTING}: {path}, task {number}: its data has no id of an image; annotate the tasks that "
                "cutsew labels --format labelstudio writes"
            )
    return list(result)


def _are_annotations(task: dict[str, Any]) -> bool:
    result = task.get("annotations")
    return isinstance(result, list) and all(isinstance(a, dict) and isinstance(a.get("result"), list) for a in result)


def _choices(annotation: dict[str, Any]) -> list[str]:
    results = [item for item in annotation["result"] if isinstance(item, dict) and item.get("type") == "choices"]
    values = [item["value"] for item in results if isinstance(item.get("value"), dict)]
    lists = [value["choices"] for value in values if isinstance(value.get("choices"), list)]
    return [str(name) for names in lists for name in names]


def _author(person: Any) -> str:  # noqa: ANN401  # a number, or a mapping with the address
    return str(person.get("email", "")) if isinstance(person, dict) else "" if person is None else str(person)


def corrections_of(path: Path, ids: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """Read the corrections of a run: `read_overrides`, `match_classes` and `match_images` in turn."""
    return match_images(match_classes(read_overrides(path, classes), classes, path), ids, path)


def match_classes(table: pd.DataFrame, classes: Sequence[str], path: Path) -> pd.DataFrame:
    """Give the classes of corrections as the settings spell them, however their accents are composed.

    Raises:
        UserError: a class is not among `classes`.

    """
    exact, composed = set(classes), {nfc(name): name for name in classes}
    matched = []
    for line, name in zip(table["line"], table["class"], strict=True):
        match = name if name in exact else composed.get(nfc(name))
        if match is None:
            raise UserError(
                f"{SETTING}: {path}, {_place(path)} {line}, column class: {name!r} is not one of classes"
                f"{_hint(name, classes) or f' ({some(classes)})'}; correct it, or remove the row"
            )
        matched.append(match)
    return table.assign(**{"class": matched})


def match_images(table: pd.DataFrame, ids: Sequence[str], path: Path) -> pd.DataFrame:
    """Give the images of corrections as the run calls them; see `csv_file.ImageNames` for what fits.

    Raises:
        UserError: an image is not among `ids`, or two rows say two things of one label.

    """
    images = ImageNames(ids)
    fits = [images.find(name) for name in table["image"]]
    if fits and not any(fits):
        raise UserError(
            f"{SETTING}: {path} names none of this dataset's images: {_place(path)} {table['line'].iloc[0]} has image "
            f"{table['image'].iloc[0]!r}, and an image here is called {ids[0]!r}; name this run's corrections"
        )
    for line, name, matches in zip(table["line"], table["image"], fits, strict=True):
        if len(matches) != 1:
            wrong = f"fits {len(matches)} images" if matches else f"is not an image of this run{_hint(name, ids)}"
            raise UserError(
                f"{SETTING}: {path}, {_place(path)} {line}, column image: {name!r} {wrong}; correct it, or remove "
                "the row"
            )
    return _without_repeats(table.assign(image=[result[0] for result in fits]), path)


def _hint(name: str, known: Sequence[str]) -> str:
    hint = did_you_mean(name, known, 1)
    return hint and f" ({hint})"


def _place(path: Path) -> str:
    return "task" if path.suffix.lower() == ".json" else "line"


def _without_repeats(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Drop rows that repeat a label's correction; refuse two that contradict each other."""
    table = table.drop_duplicates(subset=list(NEEDED))
    duplicates = table[table.duplicated(subset=["image", "class"])].head(1)
    for line, image, name in zip(duplicates["line"], duplicates["image"], duplicates["class"], strict=True):
        first = table.loc[(table["image"] == image) & (table["class"] == name), "line"].iloc[0]
        raise UserError(
            f"{SETTING}: {path}, {_place(path)}s {first} and {line}, column present: {name!r} of {image!r} is both 1 "
            "and 0; keep one row"
        )
    return table.reset_index(drop=True)


def split_of_corrections(path: Path, manifest: Path, classes: Sequence[str]) -> pd.DataFrame:
    """Read corrections and the split of each one's image, as a manifest says now.

    Args:
        path: the file.
        manifest: images.parquet.
        classes: C names.

    Returns:
        Columns as `read_overrides`, and split; images that the manifest does not hold are left out.

    """
    changed = path.stat().st_mtime_ns, manifest.stat().st_mtime_ns
    return _split_of_corrections(path, manifest, tuple(classes), changed).copy()


@cache
def _split_of_corrections(path: Path, manifest: Path, classes: tuple[str, ...], _: tuple[int, int]) -> pd.DataFrame:
    table = read_overrides(path, classes)
    named = set(table["image"])
    images = read_parquet(manifest, ["id", "split"], [("id", "in", sorted(named))] if named else None)
    if len(images) < len(named):  # some are called otherwise: see ImageNames
        images = read_parquet(manifest, ["id", "split"])
    names = ImageNames([str(name) for name in images["id"]])
    table["image"] = [fits[0] if len(fits := names.find(name)) == 1 else None for name in table["image"]]
    return table.merge(images, left_on="image", right_on="id").drop(columns="id")
