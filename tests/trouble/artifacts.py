"""Artifacts between stages: Zarrs, tables, records; damaged, lost, foreign or of other images."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from trouble import world
from trouble.case import ACCEPTED, OUT, REFUSED, Case

Change = Callable[[Path], object]


def case(stage: str, what: str, outcome: str, says: str, change: Change) -> Case:
    """Give the case of a stage that reads a run after `change` has damaged it."""

    def act(folder: Path) -> str:
        run = world.copy(folder)
        change(run)
        out = run if stage == "seal" else folder / OUT
        out.mkdir(exist_ok=True)
        world.STAGES[stage](run, out)
        return "written"

    return Case("artifacts", f"{stage}: {what}", outcome, says, act)


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[min(int(at * len(data)), len(data) - 1)] ^= 0x10
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def of_zarr(stage: str, group: str, array: str, chunk: str, coordinate: str) -> Iterator[Case]:
    """Damage a Zarr in every way."""
    name = rf"{group}\.zarr"
    file = f"{group}.zarr/{array}/c/{chunk}"
    damaged = rf"{name}/{array}: a chunk of it is damaged .*cutsew verify"

    def cut(run: Path) -> None:
        data = (run / file).read_bytes()
        (run / file).write_bytes(data[: len(data) // 2])

    def to(path: str, content: bytes) -> Change:
        return lambda run: (run / path).write_bytes(content)

    def meta(path: str, **changes: object) -> Change:
        return lambda run: edit(run / path, lambda content: content.update(changes))

    local_values, its = f"{group}.zarr/zarr.json", f"{group}.zarr/{array}/zarr.json"
    yield case(stage, f"{group}.zarr is missing", REFUSED, name, lambda run: shutil.rmtree(run / f"{group}.zarr"))
    yield case(
        stage,
        f"{group}.zarr is not sealed",
        REFUSED,
        f"{name}: not a finished",
        lambda run: (run / local_values).unlink(),
    )
    yield case(
        stage,
        f"{group}.zarr is a file",
        REFUSED,
        name,
        lambda run: shutil.rmtree(run / f"{group}.zarr") or (run / f"{group}.zarr").touch(),
    )
    yield case(
        stage,
        f"a chunk of {group} is missing",
        REFUSED,
        f"{name}/{array}/c/{chunk}: this chunk is missing",
        lambda run: (run / file).unlink(),
    )
    for at in (0.0, 0.3, 0.6, 0.999):
        yield case(
            stage, f"a byte of {group} flipped at {at:.0%}", REFUSED, damaged, lambda run, at=at: flip(run / file, at)
        )
    yield case(stage, f"a chunk of {group} cut short", REFUSED, damaged, cut)
    yield case(stage, f"a chunk of {group} is empty", REFUSED, damaged, to(file, b""))
    yield case(stage, f"a chunk of {group} is of rubbish", REFUSED, damaged, to(file, b"rubbish" * 50))
    yield case(stage, f"zarr.json of {group} is of rubbish", REFUSED, name, to(local_values, b"\x00\xff{"))
    yield case(stage, f"zarr.json of {group} is empty", REFUSED, name, to(local_values, b""))
    yield case(stage, f"{group} is of Zarr version 9", REFUSED, name, meta(local_values, zarr_format=9))
    yield case(stage, f"an array of {group} is of rubbish", REFUSED, name, to(its, b"{}"))
    yield case(
        stage, f"an array of {group} has an unknown codec", REFUSED, name, meta(its, codecs=[{"name": "no-such"}])
    )
    yield case(stage, f"an array of {group} has an unknown type", REFUSED, name, meta(its, data_type="float9"))
    yield case(stage, f"an array of {group} has a negative shape", REFUSED, name, meta(its, shape=[-1, 2]))

    def shrink(content: dict) -> None:
        content["shape"] = [*content["shape"][:-2], 1, content["shape"][-1]]

    yield case(
        stage,
        f"{group} has fewer rows than images",
        REFUSED,
        rf"{name}/{array}: has 1 x image",
        lambda run: edit(run / its, shrink),
    )
    yield case(
        stage,
        f"{group} lacks the array {array}",
        REFUSED,
        rf"{name}: has no array {array}",
        lambda run: shutil.rmtree(run / f"{group}.zarr/{array}"),
    )
    missing = rf"{name}: has no array {coordinate}"
    yield case(
        stage,
        f"{group} lacks its coordinate",
        REFUSED,
        missing,
        lambda run: shutil.rmtree(run / f"{group}.zarr/{coordinate}"),
    )
    yield case(
        stage,
        f"a coordinate of {group} is of rubbish",
        REFUSED,
        rf"{name}/{coordinate}: a chunk of it is damaged",
        to(f"{group}.zarr/{coordinate}/c/0", b"rubbish"),
    )
    yield case(stage, f"a strange file lies in {group}", ACCEPTED, "written", to(f"{group}.zarr/notes.txt", b"mine"))


def sealing() -> Iterator[Case]:
    record = "views.records/0-1.json"
    chunk = "views.zarr/crops/c/0/1/0"

    def other_teacher(run: Path) -> None:
        edit(run / record, lambda content: content["facts"].update(weights="other"))

    def without(*keys: str) -> Change:
        def change(run: Path) -> None:
            def drop(content: dict) -> None:
                for key in keys[:-1]:
                    content = content[key]
                content.pop(keys[-1])

            edit(run / record, drop)

        return change

    yield case(
        "seal",
        "a chunk file is missing",
        REFUSED,
        r"crops/c/0/1/0: this chunk is missing",
        lambda run: (run / chunk).unlink(),
    )
    yield case(
        "seal", "a record is missing", REFUSED, r"0-1\.json: no such record", lambda run: (run / record).unlink()
    )
    yield case(
        "seal",
        "a record of rubbish",
        REFUSED,
        r"0-1\.json: not a readable",
        lambda run: (run / record).write_bytes(b"{\xff"),
    )
    yield case(
        "seal",
        "a record that is a list",
        REFUSED,
        r"0-1\.json: has no field",
        lambda run: (run / record).write_text("[]"),
    )
    yield case(
        "seal",
        "a record nested too deeply",
        REFUSED,
        r"0-1\.json: not a readable",
        lambda run: (run / record).write_text("[" * 100_000),
    )
    yield case("seal", "a record without facts", REFUSED, r"0-1\.json: has no field facts", without("facts"))
    yield case("seal", "a record without width", REFUSED, r"0-1\.json: has no field width", without("facts", "width"))
    yield case("seal", "another teacher's chunk", REFUSED, r"0-1\.json: encoded by a different teacher", other_teacher)


def of_table(stage: str, name: str, column: str) -> Iterator[Case]:
    pattern = name.replace(".", r"\.")
    read, write = (pd.read_csv, "to_csv") if name.endswith("csv") else (pd.read_parquet, "to_parquet")

    def without(run: Path) -> None:
        getattr(read(run / name).drop(columns=[column]), write)(run / name, index=False)

    def cut(run: Path) -> None:
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2])

    yield case(stage, f"{name} is missing", REFUSED, rf"{pattern}: no such", lambda run: (run / name).unlink())
    yield case(stage, f"{name} is empty", REFUSED, pattern, lambda run: (run / name).write_bytes(b""))
    yield case(
        stage, f"{name} is of rubbish", REFUSED, pattern, lambda run: (run / name).write_bytes(b"\xff\xfe rubbish" * 20)
    )
    yield case(stage, f"{name} lacks a column", REFUSED, rf"{pattern}: has no column", without)
    if name.endswith("parquet"):
        yield case(stage, f"{name} is cut short", REFUSED, pattern, cut)
        yield case(stage, f"{name} has its last byte flipped", REFUSED, pattern, lambda run: flip(run / name, 1.0))


def not_fitting() -> Iterator[Case]:
    def other_images(run: Path) -> None:
        world.write_images(run / "images.parquet", [f"train{i}" for i in range(9)])

    def other_classes(run: Path) -> None:
        world.embed_texts(run, ["cat", "dog", "cow"])
        world.STAGES["score"](run, run)

    yield case(
        "score",
        "texts of another teacher",
        REFUSED,
        r"text\.zarr: embedded by a different teacher",
        lambda run: world.embed_texts(run, weights="other"),
    )
    yield case(
        "score",
        "texts that say no teacher",
        REFUSED,
        r"text\.zarr: has no attribute weights",
        lambda run: edit(run / "text.zarr/zarr.json", lambda c: c["attributes"].pop("weights")),
    )
    yield case("evaluate", "other images than the labels'", REFUSED, r"logits\.zarr: lacks 5 of 9 images", other_images)
    yield case(
        "evaluate",
        "stages of other classes",
        REFUSED,
        r"fused\.zarr: its classes are not those of .*logits\.zarr",
        other_classes,
    )
    yield case(
        "select",
        "fewer images than are asked for",
        REFUSED,
        r"select\.top_k: 2 is more than the 1",
        lambda run: world.write_images(run / "images.parquet", ["train0", "test0"]),
    )
    yield case(
        "report",
        "metrics.json is missing",
        REFUSED,
        r"metrics\.json: no such record",
        lambda run: (run / "metrics.json").unlink(),
    )
    yield case(
        "report",
        "metrics.json of rubbish",
        REFUSED,
        r"metrics\.json: not a readable",
        lambda run: (run / "metrics.json").write_text("{"),
    )


def cases() -> Iterator[Case]:
    yield from sealing()
    yield from of_zarr("score", "views", "crops", "0/0/0", "image")
    yield from of_zarr("fuse", "logits", "crops", "1/0/0", "class")
    yield from of_zarr("correct", "fused", "z", "0/0", "image")
    yield from of_zarr("evaluate", "pseudo", "z", "0/0", "class")
    yield from of_table("select", "images.parquet", "split")
    yield from of_table("evaluate", "truth.parquet", "dog")
    yield from of_zarr("labels_table", "pseudo", "z", "0/0", "class")
    yield from of_table("labels_table", "images.parquet", "split")
    yield from of_table("report", "metrics.csv", "images")
    yield from of_table("report", "per_class.csv", "split")
    yield from not_fitting()
