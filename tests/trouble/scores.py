"""Scores made elsewhere: npz, Zarr, parquet."""

from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pandas as pd
import zarr

from cutsew.stages.import_scores import import_scores
from cutsew.storage.manifest import write_manifest
from trouble.case import ACCEPTED, OUT, REFUSED, Case

IDS, CLASSES = ["a", "b", "c"], ["cat", "dog"]
WHOLE = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
CROPS = np.stack([WHOLE / 2, WHOLE / 4])


def taken(folder: Path, file: str, values: str = "probabilities", missing: str = "error", crops: object = None) -> str:
    """Run the stage import_scores; return what it wrote of the first image."""
    table = pd.DataFrame({"id": IDS, "path": "", "width": 0, "height": 0, "bytes": 0, "digest": IDS})
    write_manifest(folder / "images.parquet", table.assign(split="train", shard=0))
    scores = {"file": str(folder / file), "values": values, "missing": missing}
    scores["crops"] = (["one"] if file.endswith("parquet") else ["crops"]) if crops is None else crops
    settings = {"teacher": {"scores": scores}, "score": {"epsilon": 1e-6}, "classes": CLASSES}
    import_scores(folder / "images.parquet", folder / OUT / "logits.zarr", settings=settings)
    result = zarr.open_group(folder / OUT / "logits.zarr", mode="r")
    return (
        f"{result['zero_shot'].shape} {np.asarray(result['crops']).shape} {np.asarray(result['zero_shot'])[0].round(2)}"
    )


def npz(folder: Path, **changes) -> None:
    arrays = {"ids": np.array(IDS), "classes": np.array(CLASSES), "zero_shot": WHOLE, "crops": CROPS} | changes
    np.savez(folder / "s.npz", **{name: array for name, array in arrays.items() if array is not None})


def spoilt(value: float, array: np.ndarray = WHOLE) -> np.ndarray:
    bad = array.astype(float).copy()
    bad[(*(0 for _ in range(array.ndim - 2)), 1, 1)] = value
    return bad


def case(name: str, outcome: str, says: str, write: Callable[[Path], object], file: str = "s.npz", **how) -> Case:
    def act(folder: Path) -> str:
        write(folder)
        return taken(folder, file, **how)

    return Case("scores", name, outcome, says, act)


def of_npz(name: str, outcome: str, says: str, how: dict | None = None, **changes) -> Case:
    return case(f"npz: {name}", outcome, says, lambda folder: npz(folder, **changes), **(how or {}))


def values() -> Iterator[Case]:
    at = r"teacher\.scores\.file: .*s\.npz: array zero_shot, image b, class dog: "
    yield of_npz(
        "an id of no Unicode", REFUSED, r"s\.npz: damaged, or not the kind", ids=np.array(["a", "b", "\udc80"])
    )
    for value, why in ((np.nan, "nan is not finite"), (np.inf, "inf is not finite"), (-np.inf, "-inf is not finite")):
        yield of_npz(f"{value}", REFUSED, at + why, zero_shot=spoilt(value))
        yield of_npz(f"{value} among logits", REFUSED, at + why, {"values": "logits"}, zero_shot=spoilt(value))
    for value in (-0.1, 1.2, 14.0):
        yield of_npz(f"a probability of {value}", REFUSED, at + f"{value:g} is no probability", zero_shot=spoilt(value))
    within = r"array crops, pass 0, image b, class dog: nan is not finite"
    yield of_npz("NaN in a crop", REFUSED, within, crops=spoilt(np.nan, CROPS))
    huge = r"image b, class dog: 1e\+300 is no probability"
    yield of_npz("a probability of 1e300", REFUSED, huge, zero_shot=spoilt(1e300))
    stats = r"^\(3, 2\) \(2, 3, 2\) \[-2\.2 +2\.2\]"
    yield of_npz("logits of 1e300", ACCEPTED, r"^\(3, 2\)", {"values": "logits"}, zero_shot=spoilt(1e300))
    yield of_npz("exact 0 and 1", ACCEPTED, r"\[-13\.82 +13\.8", zero_shot=np.array([[0.0, 1.0]] * 3))
    yield of_npz("float16", ACCEPTED, stats, zero_shot=WHOLE.astype(np.float16))
    yield of_npz("numbers as text", ACCEPTED, stats, zero_shot=WHOLE.astype(str))
    no_numbers = r"array zero_shot is damaged or holds no numbers"
    yield of_npz("words", REFUSED, no_numbers, zero_shot=np.full((3, 2), "high"))
    yield of_npz("complex numbers", REFUSED, no_numbers, zero_shot=WHOLE + 1j)
    yield of_npz("dates", REFUSED, no_numbers, zero_shot=np.full((3, 2), np.datetime64("2020-01-01")))
    yield of_npz("objects (a pickle)", REFUSED, r"s\.npz", zero_shot=WHOLE.astype(object))
    yield of_npz("truth values", ACCEPTED, r"\[-13\.82 +13\.8", zero_shot=np.array([[False, True]] * 3))


def shapes() -> Iterator[Case]:
    for name, array in (
        ("one row less", WHOLE[:2]),
        ("turned over", WHOLE.T),
        ("flat", WHOLE.ravel()),
        ("a number", WHOLE[0, 0]),
    ):
        yield of_npz(
            f"whole images {name}", REFUSED, r"zero_shot: array zero_shot .*should end in \(3, 2\)", zero_shot=array
        )
    yield of_npz("whole images with passes", REFUSED, "zero_shot holds passes", zero_shot=CROPS)
    yield of_npz("crops of four dimensions", REFUSED, r"array crops .*should end in", crops=CROPS[None])
    yield of_npz("crops of another size", REFUSED, r"array crops .*should end in", crops=CROPS[:, :2])
    yield of_npz("no passes", ACCEPTED, r"^\(3, 2\) \(0, 3, 2\)", crops=CROPS[:0])
    yield of_npz("ids of two dimensions", REFUSED, r"s\.npz", ids=np.array([IDS]))
    yield of_npz("no ids", REFUSED, r"s\.npz has no ids", ids=None)
    yield of_npz("no classes", REFUSED, r"s\.npz has no classes", classes=None)
    yield of_npz("no whole images", REFUSED, r"teacher\.scores\.zero_shot: .* has no array zero_shot", zero_shot=None)
    yield of_npz("no crops", REFUSED, r"teacher\.scores\.crops: .* has no array crops", crops=None)
    yield of_npz("an id twice", REFUSED, "holds the id a more than once", ids=np.array(["a", "b", "a"]))
    yield of_npz("a class twice", REFUSED, "holds the class cat more than once", classes=np.array(["cat", "cat"]))
    less = r"^classes: teacher\.scores\.file: .*s\.npz names not all of the 2 classes, and not dog; .*other names: cow"
    yield of_npz("a class less", REFUSED, less, classes=np.array(["cat", "cow"]))
    none = r"s\.npz names none of the 2 classes, and not cat, dog; correct .*other names: kat, hund"
    yield of_npz("other classes", REFUSED, none, classes=np.array(["kat", "hund"]))
    yield of_npz(
        "ids of other images", REFUSED, r"s\.npz has no scores of 3 of 3 images", ids=np.array(["x", "y", "z"])
    )
    yield of_npz(
        "one image's scores missing", REFUSED, r"no scores of 1 of 3 images \(c\)", ids=np.array(["a", "b", "z"])
    )
    yield of_npz("ids that are numbers", REFUSED, r"no scores of 3 of 3 images", ids=np.array([1, 2, 3]))
    yield of_npz("ids that are objects", REFUSED, r"s\.npz", ids=np.array(IDS, dtype=object))
    yield of_npz("rows in another order", ACCEPTED, r"\[-0\.85 +0\.85\]", ids=np.array(["c", "b", "a"]))


def files() -> Iterator[Case]:
    def write(name: str, content: bytes) -> Callable[[Path], object]:
        return lambda folder: (folder / name).write_bytes(content)

    def cut(folder: Path) -> None:
        npz(folder)
        data = (folder / "s.npz").read_bytes()
        (folder / "s.npz").write_bytes(data[: len(data) // 2])

    def flipped(folder: Path) -> None:
        npz(folder)
        data = bytearray((folder / "s.npz").read_bytes())
        at = data.index(WHOLE.tobytes()) + 3
        data[at] ^= 0xFF
        (folder / "s.npz").write_bytes(data)

    def bomb(folder: Path) -> None:
        npz(folder)
        with ZipFile(folder / "s.npz", "a", ZIP_DEFLATED) as packed:
            packed.writestr("unused.npy", bytes(10_000_000))

    yield case("npz: missing", REFUSED, r"teacher\.scores\.file: .*s\.npz: no such file", lambda folder: None)
    for name in ("npz", "parquet"):
        for what, content in (("empty", b""), ("rubbish", b"rubbish" * 9), ("NUL bytes", bytes(200))):
            yield case(f"{name}: {what}", REFUSED, rf"s\.{name}: damaged", write(f"s.{name}", content), f"s.{name}")
    yield case("npz: cut in the middle", REFUSED, r"s\.npz: damaged", cut)
    yield case("npz: a flipped byte", REFUSED, r"s\.npz", flipped)
    yield case("npz: a member that swells, not read", ACCEPTED, r"^\(3, 2\)", bomb)
    yield case("npz that is a npy", REFUSED, r"s\.npz", lambda folder: np.save((folder / "s.npz").open("wb"), WHOLE))
    yield case("CSV", REFUSED, r"s\.csv: not a kind that can be read", write("s.csv", b"id,cat\n"), "s.csv")
    pickled = b"cos\nsystem\n(S'touch x'\ntR."
    yield case("a pickle named .npz", REFUSED, r"s\.npz: damaged", write("s.npz", pickled))


def parquet() -> Iterator[Case]:
    def table(**changes) -> Callable[[Path], object]:
        columns = {"id": IDS, "zero_shot/cat": WHOLE[:, 0], "zero_shot/dog": WHOLE[:, 1]}
        columns |= {"one/cat": WHOLE[:, 0], "one/dog": WHOLE[:, 1]} | changes
        result = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
        return lambda folder: result.to_parquet(folder / "s.parquet")

    def of_parquet(name: str, outcome: str, says: str, **changes) -> Case:
        return case(f"parquet: {name}", outcome, says, table(**changes), "s.parquet")

    yield of_parquet("sound", ACCEPTED, r"^\(3, 2\) \(1, 3, 2\)")
    yield of_parquet("no ids", REFUSED, r"s\.parquet has no column id", id=None)
    yield of_parquet("an id missing", REFUSED, r"no scores of 1 of 3 images", id=["a", None, "c"])
    yield of_parquet("a class less in a crop", REFUSED, r"one .*should end in \(3, 2\)", **{"one/dog": None})
    yield of_parquet(
        "another class in a crop", REFUSED, r"has no column one/dog", **{"one/dog": None, "one/cow": WHOLE[:, 0]}
    )
    yield of_parquet("a number missing", REFUSED, "class cat: nan is not finite", **{"zero_shot/cat": [0.1, None, 0.3]})
    yield of_parquet("words", REFUSED, "holds no numbers", **{"zero_shot/cat": ["x", "y", "z"]})
    yield of_parquet("lists", REFUSED, "holds no numbers", **{"zero_shot/cat": [[1], [2], [3]]})


def zarrs() -> Iterator[Case]:
    def group(change: Callable[[Path], object] = lambda path: None) -> Callable[[Path], object]:
        def write(folder: Path) -> None:
            path = folder / "s.zarr"
            result = zarr.open_group(path, mode="w", zarr_format=3)
            for name, labels in (("image", IDS), ("class", CLASSES)):
                result.create_array(name, shape=(len(labels),), dtype="string")[...] = np.array(labels, dtype=object)
            result.create_array("zero_shot", data=WHOLE, chunks=(2, 2))
            result.create_array("crops", data=CROPS, chunks=(1, 2, 2))
            change(path)

        return write

    def of_zarr(name: str, outcome: str, says: str, change: Callable[[Path], object]) -> Case:
        return case(f"Zarr: {name}", outcome, says, group(change), "s.zarr")

    def write(name: str, content: bytes) -> Callable[[Path], object]:
        return lambda path: (path / name).write_bytes(content)

    yield of_zarr("sound", ACCEPTED, r"^\(3, 2\) \(2, 3, 2\)", lambda path: None)
    missing = r"array zero_shot lacks 1 of its 2 chunks"
    yield of_zarr("a lost chunk", REFUSED, missing, lambda path: (path / "zero_shot/c/1/0").unlink())
    yield of_zarr("a chunk of rubbish", REFUSED, "array zero_shot is damaged", write("zero_shot/c/1/0", b"x"))
    yield of_zarr("an empty chunk", REFUSED, "array zero_shot is damaged", write("zero_shot/c/1/0", b""))
    yield of_zarr("a chunk of ids of rubbish", REFUSED, r"s\.zarr", write("image/c/0", b"rubbish"))
    yield of_zarr("no zarr.json", REFUSED, r"s\.zarr", lambda path: (path / "zarr.json").unlink())
    yield of_zarr("a zarr.json of rubbish", REFUSED, r"s\.zarr", write("zarr.json", b"{"))
    yield of_zarr(
        "a foreign version", REFUSED, r"s\.zarr", write("zarr.json", b'{"zarr_format": 9, "node_type": "group"}')
    )
    yield of_zarr("an array's zarr.json of rubbish", REFUSED, r"s\.zarr", write("zero_shot/zarr.json", b"[]"))
    yield of_zarr(
        "an empty folder", REFUSED, r"s\.zarr", lambda path: __import__("shutil").rmtree(path) or path.mkdir()
    )


def cases() -> Iterator[Case]:
    for part in (values, shapes, files, parquet, zarrs):
        yield from part()
