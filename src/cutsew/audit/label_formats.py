"""Labels as tables, and as files for FiftyOne, COCO's tools and cleanlab, written slice by slice and atomically."""

import itertools
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow.parquet import ParquetWriter
from tqdm import tqdm

from cutsew import __version__
from cutsew.audit.label_export import Batch, Labels
from cutsew.data.image_bytes import is_local_file
from cutsew.errors import UserError
from cutsew.method.correct import LEFT, PRESENT
from cutsew.storage.atomic import atomic_path
from cutsew.storage.csv_rows import csv_writer
from cutsew.storage.label_corrections import SOURCE
from cutsew.storage.label_table import COLUMNS, LISTS, joined

CSV_CLASSES = 1000
"""Most classes whose probabilities a CSV table has: with more, a spreadsheet cannot show it, and it takes gigabytes."""


def write_table(paths: Sequence[Path], classes: list[str], batches: Iterable[Batch]) -> int:
    """Write the table to files, CSV (UTF-8) or Parquet by their suffix, in one pass; return how many labels.

    CSV has no probabilities of more than CSV_CLASSES classes; Parquet always has them.
    """
    tables = {".csv": _csv_table, ".parquet": _parquet_table}
    count = 0
    with ExitStack() as stack:
        writers = [stack.enter_context(tables[path.suffix](path, classes)) for path in paths]
        for batch in batches:
            for write in writers:
                write(batch)
            count += int(batch.named.sum())
    return count


@contextmanager
def _csv_table(path: Path, classes: list[str]) -> Iterator[Callable[[Batch], None]]:
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
        rows = csv_writer(stream)
        wide = len(classes) <= CSV_CLASSES
        rows.writerow(_header(classes) if wide else COLUMNS)
        yield lambda batch: rows.writerows(_csv_rows(classes, batch, wide=wide))


@contextmanager
def _parquet_table(path: Path, classes: list[str]) -> Iterator[Callable[[Batch], None]]:
    """Write lists of class names, and probabilities in float32."""
    types = [pa.list_(pa.string()) if name in LISTS else pa.string() for name in COLUMNS]
    types += [pa.float32()] * len(classes)
    schema = pa.schema(list(zip(_header(classes), types, strict=True)))

    def write(batch: Batch) -> None:
        values = [*zip(*_cells(classes, batch), strict=True), *batch.probabilities.T]
        columns = [pa.array(column, kind) for column, kind in zip(values, types, strict=True)]
        out.write_table(pa.Table.from_arrays(columns, schema=schema))

    with atomic_path(path) as draft, ParquetWriter(draft, schema) as out:
        yield write


def write_fiftyone(path: Path, labels: Labels) -> int:
    """Write a FiftyOneImageClassificationDataset with several labels a sample; return how many labels.

    `classes`: names. `labels`: absolute path of the image -> list of class index and confidence, the probability. A
    human's label has confidence 1 and the attribute `source: human`; what a human crossed out is not listed. FiftyOne
    passes over `corrections`: path -> class -> 1 or 0, all that a human said.

    Raises:
        UserError: the images have no files, or they are not there.

    """
    refuse_without_files("fiftyone", labels)
    with json_file(path) as out:
        out.write(f'{{"classes": {dump(labels.classes)},\n"labels": {{\n')
        count, comma = 0, ""
        for batch in shown(labels):
            for file, labels_of_image in zip(batch.images["path"], _named(batch), strict=True):
                result = [{"label": c, "confidence": p} | _attributes(by_hand) for c, p, by_hand in labels_of_image]
                out.write(f"{comma}{dump(str(Path(file).absolute()))}: {dump(result)}\n")
                count, comma = count + len(labels_of_image), ","
        out.write("}")
        if labels.corrected is not None:
            place = dict(zip(labels.images["id"], labels.images["path"], strict=True))
            by_hand = {
                str(Path(place[name]).absolute()): classifications for name, classifications in said_of(labels).items()
            }
            out.write(f',\n"corrections": {dump(by_hand)}')
        out.write("}\n")
    return count


def write_coco(path: Path, labels: Labels) -> int:
    """Write a COCO instances file whose annotations are image-level; return how many.

    An annotation's box is the whole image, `score` its probability; `image` is the image's id in the run. A human's
    annotation has score 1 and `source` human; what a human crossed out has none. An image's `corrections` hold all that
    a human said of it, class -> 1 or 0.
    """
    info: dict[str, Any] = {"description": "Labels by cutsew", "version": __version__}
    info |= {"stages": labels.stages, "thresholds": labels.rules}
    if labels.corrected is not None:
        info["corrections"] = {"labels": len(labels.corrected), "by": labels.corrected.authors}
    categories = [{"id": c, "name": name, "supercategory": ""} for c, name in enumerate(labels.classes, start=1)]
    with json_file(path) as out:
        out.write(f'{{"info": {dump(info)},\n"licenses": [],\n"categories": {dump(categories)},\n"images": [\n')
        sum(write_list(out, ((image, 1) for image in _coco_images(labels))))
        out.write('],\n"annotations": [\n')
        count = sum(write_list(out, ((annotation, 1) for annotation in _coco_annotations(labels))))
        out.write("]}\n")
    return count


def write_cleanlab(path: Path, labels: Labels) -> int:
    """Write an npz for cleanlab.multilabel_classification; return how many labels.

    Arrays, none of them pickled: `pred_probs` (N, C) float32; `labels` (L,) int64, the class indices of image after
    image; `ends` (N,) int64, where each image's end in it; `ids` (N,) and `classes` (C,) text; `corrections` (K, 3)
    int64, a human's: row of the image, class index, and 1 present or 0 absent. They have decided `labels`; `pred_probs`
    stay the stage's own, since cleanlab holds the one against the other.
    """
    flat: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    counts: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    by_hand: list[npt.NDArray[np.int64]] = [np.zeros((0, 3), np.int64)]
    row = 0
    with atomic_path(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("pred_probs.npy", "w", force_zip64=True) as out:
            shape = (len(labels.images), len(labels.classes))
            head = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(out, head)
            for batch in shown(labels):
                out.write(np.ascontiguousarray(batch.probabilities, dtype="<f4").tobytes())
                flat.append(np.nonzero(batch.named)[1])
                counts.append(batch.named.sum(axis=1))
                image, c = np.nonzero(batch.said)
                by_hand.append(np.stack([image + row, c, batch.said[image, c] == PRESENT], axis=1))
                row += len(batch.said)
        joined = np.concatenate(flat)
        rest = {"labels": joined, "ends": np.concatenate(counts).cumsum()}
        rest["corrections"] = np.concatenate(by_hand)
        rest |= {"ids": labels.images["id"].to_numpy(dtype=str), "classes": np.array(labels.classes, dtype=str)}
        for name, values in rest.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, values, allow_pickle=False)
    return len(joined)


def _header(classes: list[str]) -> list[str]:
    return [*COLUMNS, *(f"p_{name}" for name in classes)]


def _csv_rows(classes: list[str], batch: Batch, *, wide: bool) -> Iterator[list[str]]:
    for cells, probabilities in zip(_cells(classes, batch), batch.probabilities, strict=True):
        words = [cell if isinstance(cell, str) else joined(cell) for cell in cells]
        yield [*words, *(f"{p:.6g}" for p in probabilities)] if wide else words


def _cells(classes: list[str], batch: Batch) -> Iterator[list[str | list[str]]]:
    """Yield each image's values of COLUMNS."""
    sets = (batch.named, batch.proposed, batch.said != LEFT)
    for name, path, split, *rows in batch.rows(("id", "path", "split"), *sets):
        yield [name, path, split, batch.stage, *([classes[c] for c in np.flatnonzero(row)] for row in rows)]


def _coco_images(labels: Labels) -> Iterator[dict[str, Any]]:
    corrected = said_of(labels)
    columns = (labels.images[name] for name in ("row", "id", "path", "width", "height"))
    for row, name, file, width, height in zip(*columns, strict=True):
        place = str(Path(file).absolute()) if file else name
        record = {"id": int(row) + 1, "file_name": place, "width": int(width), "height": int(height), "image": name}
        yield record | ({"corrections": corrected[name]} if name in corrected else {})


def _coco_annotations(labels: Labels) -> Iterator[dict[str, Any]]:
    numbers = itertools.count(1)  # pycocotools takes an annotation 0 for none
    for batch in shown(labels):
        columns = (batch.images[name] for name in ("row", "width", "height"))
        for row, width, height, labels_of_image in zip(*columns, _named(batch), strict=True):
            for c, p, by_hand in labels_of_image:
                record = {"id": next(numbers), "image_id": int(row) + 1, "category_id": c + 1, "score": p}
                record |= {"source": SOURCE} if by_hand else {}
                box = [0, 0, int(width), int(height)]
                yield record | {"bbox": box, "area": box[2] * box[3], "segmentation": [], "iscrowd": 0}


def _named(batch: Batch) -> Iterator[list[tuple[int, float, bool]]]:
    """Give each image's labels, the most confident first: class index, confidence, and whether a human set it."""
    for named, p, corrected in zip(batch.named, batch.confidence, batch.said, strict=True):
        yield [(int(c), float(p[c]), bool(corrected[c] != LEFT)) for c in np.argsort(-p, kind="stable") if named[c]]


def _attributes(by_hand: bool) -> dict[str, Any]:
    return {"attributes": {"source": SOURCE}} if by_hand else {}


def refuse_without_files(form: str, labels: Labels) -> None:
    """Refuse images without files.

    Raises:
        UserError: the run has none, or they are not here.

    """
    if (labels.images["path"] == "").any():
        raise UserError(f"--format: {form} shows images, and this run has none (dataset.kind ids); use cleanlab")
    for first in labels.images["path"].head(1):
        if not is_local_file(first):
            raise UserError(
                f"--format: {form} needs images that are files of their own, and these are in tars, Parquet files or "
                "behind URLs (dataset.kind); use cleanlab"
            )
        if not Path(first).is_file():
            raise UserError(f"{first}: no such image here; run this in the folder where the workflow ran")


def said_of(labels: Labels) -> dict[str, dict[str, int]]:
    """Map each corrected image to what a human said of it: class -> 1 or 0."""
    result: dict[str, dict[str, int]] = {}
    table = labels.corrected.table if labels.corrected is not None else None
    rows = zip(table["image"], table["class"], table["present"], strict=True) if table is not None else ()
    for image, name, present in rows:
        result.setdefault(image, {})[name] = int(present)
    return result


def shown(labels: Labels) -> Iterable[Batch]:
    """Give the batches, with a bar over the images."""
    with tqdm(total=len(labels.images), desc="labels", unit="image") as bar:
        yield from labels.shown(bar)


@contextmanager
def json_file(path: Path) -> Iterator[IO[str]]:
    """Give a text file to write, which takes its place when all is written."""
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8") as out:
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
