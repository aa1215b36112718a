"""Labels as tables, and as files for FiftyOne, COCO's tools and cleanlab, written slice by slice and atomically."""

import csv
import itertools
import json
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow.parquet import ParquetWriter
from tqdm import tqdm

from cutsew import __version__
from cutsew.audit.label_export import Batch, Labels
from cutsew.errors import UserError
from cutsew.method.correct import LEFT, PRESENT
from cutsew.storage.atomic import replacing
from cutsew.storage.label_corrections import SOURCE
from cutsew.storage.label_table import COLUMNS, joined


def write_csv(path: Path, classes: list[str], batches: Iterable[Batch]) -> int:
    """Write the table as CSV, UTF-8; return how many labels."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(_header(classes))
        count = 0
        for batch in batches:
            rows.writerows(_csv_rows(classes, batch))
            count += int(batch.named.sum())
    return count


def write_parquet(path: Path, classes: list[str], batches: Iterable[Batch]) -> int:
    """Write the table as Parquet, probabilities in float32; return how many labels."""
    head = _header(classes)
    types = [pa.string()] * len(COLUMNS) + [pa.float32()] * len(classes)
    schema = pa.schema(list(zip(head, types, strict=True)))
    count = 0
    with replacing(path) as draft, ParquetWriter(draft, schema) as out:
        for batch in batches:
            columns = [pa.array(list(values), pa.string()) for values in zip(*_texts(classes, batch), strict=True)]
            columns += [pa.array(p, pa.float32()) for p in batch.probabilities.T]
            out.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += int(batch.named.sum())
    return count


def write_fiftyone(path: Path, labels: Labels) -> int:
    """Write a FiftyOneImageClassificationDataset with several labels a sample; return how many labels.

    `classes`: names. `labels`: absolute path of the photo -> list of class index and confidence, the probability. A
    human's label has confidence 1 and the attribute `source: human`; what a human crossed out is not listed. FiftyOne
    passes over `corrections`: path -> class -> 1 or 0, all that a human said.

    Raises:
        UserError: the photos have no files, or they are not there.

    """
    refuse_without_files("fiftyone", labels)
    with json_file(path) as out:
        out.write(f'{{"classes": {dump(labels.classes)},\n"labels": {{\n')
        count, comma = 0, ""
        for batch in shown(labels):
            for file, found in zip(batch.photos["path"], _named(batch), strict=True):
                told = [{"label": c, "confidence": p} | _attributes(by_hand) for c, p, by_hand in found]
                out.write(f"{comma}{dump(str(Path(file).absolute()))}: {dump(told)}\n")
                count, comma = count + len(found), ","
        out.write("}")
        if labels.corrected is not None:
            place = dict(zip(labels.photos["id"], labels.photos["path"], strict=True))
            by_hand = {str(Path(place[name]).absolute()): told for name, told in said_of(labels).items()}
            out.write(f',\n"corrections": {dump(by_hand)}')
        out.write("}\n")
    return count


def write_coco(path: Path, labels: Labels) -> int:
    """Write a COCO instances file whose annotations are image-level; return how many.

    An annotation's box is the whole photo, `score` its probability; `photo` is the photo's id in the run. A human's
    annotation has score 1 and `source` human; what a human crossed out has none. An image's `corrections` hold all that
    a human said of it, class -> 1 or 0.
    """
    told: dict[str, Any] = {"description": "Labels by cutsew", "version": __version__}
    told |= {"stages": labels.stages, "thresholds": labels.told}
    if labels.corrected is not None:
        told["corrections"] = {"labels": len(labels.corrected), "by": labels.corrected.authors}
    categories = [{"id": c, "name": name, "supercategory": ""} for c, name in enumerate(labels.classes, start=1)]
    with json_file(path) as out:
        out.write(f'{{"info": {dump(told)},\n"licenses": [],\n"categories": {dump(categories)},\n"images": [\n')
        sum(write_list(out, ((image, 1) for image in _coco_images(labels))))
        out.write('],\n"annotations": [\n')
        count = sum(write_list(out, ((annotation, 1) for annotation in _coco_annotations(labels))))
        out.write("]}\n")
    return count


def write_cleanlab(path: Path, labels: Labels) -> int:
    """Write an npz for cleanlab.multilabel_classification; return how many labels.

    Arrays, none of them pickled: `pred_probs` (N, C) float32; `labels` (L,) int64, the class indices of photo after
    photo; `ends` (N,) int64, where each photo's end in it; `ids` (N,) and `classes` (C,) text; `corrections` (K, 3)
    int64, a human's: row of the photo, class index, and 1 present or 0 absent. They have decided `labels`; `pred_probs`
    stay the stage's own, since cleanlab holds the one against the other.
    """
    flat: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    counts: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    by_hand: list[npt.NDArray[np.int64]] = [np.zeros((0, 3), np.int64)]
    row = 0
    with replacing(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("pred_probs.npy", "w", force_zip64=True) as out:
            shape = (len(labels.photos), len(labels.classes))
            head = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(out, head)
            for batch in shown(labels):
                out.write(np.ascontiguousarray(batch.probabilities, dtype="<f4").tobytes())
                flat.append(np.nonzero(batch.named)[1])
                counts.append(batch.named.sum(axis=1))
                photo, c = np.nonzero(batch.said)
                by_hand.append(np.stack([photo + row, c, batch.said[photo, c] == PRESENT], axis=1))
                row += len(batch.said)
        joined = np.concatenate(flat)
        rest = {"labels": joined, "ends": np.concatenate(counts).cumsum()}
        rest["corrections"] = np.concatenate(by_hand)
        rest |= {"ids": labels.photos["id"].to_numpy(dtype=str), "classes": np.array(labels.classes, dtype=str)}
        for name, values in rest.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, values, allow_pickle=False)
    return len(joined)


def _header(classes: list[str]) -> list[str]:
    return [*COLUMNS, *(f"p_{name}" for name in classes)]


def _csv_rows(classes: list[str], batch: Batch) -> Iterator[list[str]]:
    for texts, probabilities in zip(_texts(classes, batch), batch.probabilities, strict=True):
        yield [*texts, *(f"{p:.6g}" for p in probabilities)]


def _texts(classes: list[str], batch: Batch) -> Iterator[list[str]]:
    """Give the columns of text, photo after photo."""
    sets = (batch.named, batch.proposed, batch.said != LEFT)
    for name, path, split, *rows in batch.rows(("id", "path", "split"), *sets):
        yield [name, path, split, batch.stage, *(joined(classes[c] for c in np.flatnonzero(row)) for row in rows)]


def _coco_images(labels: Labels) -> Iterator[dict[str, Any]]:
    said = said_of(labels)
    columns = (labels.photos[name] for name in ("row", "id", "path", "width", "height"))
    for row, name, file, width, height in zip(*columns, strict=True):
        place = str(Path(file).absolute()) if file else name
        told = {"id": int(row) + 1, "file_name": place, "width": int(width), "height": int(height), "photo": name}
        yield told | ({"corrections": said[name]} if name in said else {})


def _coco_annotations(labels: Labels) -> Iterator[dict[str, Any]]:
    numbers = itertools.count(1)  # pycocotools takes an annotation 0 for none
    for batch in shown(labels):
        columns = (batch.photos[name] for name in ("row", "width", "height"))
        for row, width, height, found in zip(*columns, _named(batch), strict=True):
            for c, p, by_hand in found:
                told = {"id": next(numbers), "image_id": int(row) + 1, "category_id": c + 1, "score": p}
                told |= {"source": SOURCE} if by_hand else {}
                box = [0, 0, int(width), int(height)]
                yield told | {"bbox": box, "area": box[2] * box[3], "segmentation": [], "iscrowd": 0}


def _named(batch: Batch) -> Iterator[list[tuple[int, float, bool]]]:
    """Give each photo's labels, the most confident first: class index, confidence, and whether a human set it."""
    for named, p, said in zip(batch.named, batch.confidence, batch.said, strict=True):
        yield [(int(c), float(p[c]), bool(said[c] != LEFT)) for c in np.argsort(-p, kind="stable") if named[c]]


def _attributes(by_hand: bool) -> dict[str, Any]:
    return {"attributes": {"source": SOURCE}} if by_hand else {}


def refuse_without_files(form: str, labels: Labels) -> None:
    """Refuse images without files.

    Raises:
        UserError: the run has none, or they are not here.

    """
    if (labels.photos["path"] == "").any():
        raise UserError(f"--format: {form} shows photos, and this run has none (dataset.kind ids); use cleanlab")
    for first in labels.photos["path"].head(1):
        if not Path(first).is_file():
            raise UserError(f"{first}: no such image here; run this in the folder where the workflow ran")


def said_of(labels: Labels) -> dict[str, dict[str, int]]:
    """Map each corrected photo to what a human said of it: class -> 1 or 0."""
    found: dict[str, dict[str, int]] = {}
    table = labels.corrected.table if labels.corrected is not None else None
    rows = zip(table["image"], table["class"], table["present"], strict=True) if table is not None else ()
    for image, name, present in rows:
        found.setdefault(image, {})[name] = int(present)
    return found


def shown(labels: Labels) -> Iterable[Batch]:
    """Give the batches, with a bar over the photos."""
    with tqdm(total=len(labels.photos), desc="labels", unit="photo") as bar:
        yield from labels.shown(bar)


@contextmanager
def json_file(path: Path) -> Iterator[IO[str]]:
    """Give a text file to write, which takes its place when all is written."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8") as out:
        yield out


def dump(value: Any) -> str:  # noqa: ANN401
    """Write a value as JSON, names as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_list(out: IO[str], items: Iterable[tuple[dict[str, Any], int]]) -> Iterator[int]:
    """Write items with commas between them; give the number that comes with each."""
    comma = ""
    for item, count in items:
        out.write(f"{comma}{dump(item)}\n")
        comma = ","
        yield count
