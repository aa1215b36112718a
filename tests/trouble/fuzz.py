"""Fuzzing of each parser: sound files, damaged at random, end in one line or are read; nothing else may come of them.

The suite tries a few of each. `make fuzz MINUTES=3` (python -m trouble.fuzz in tests/) goes on for that long with each
parser; inputs that fail are kept in .fuzz, tried first the next time, and printed.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from safetensors.torch import save

from cutsew.config import load
from cutsew.config.networks import ScoresFileConfig
from cutsew.config.sweep import read_sweep, variants_of
from cutsew.config.yaml_file import read_yaml
from cutsew.data import coco, nus, voc
from cutsew.data.corrections_csv import corrections_of
from cutsew.data.csv_file import ImageNames
from cutsew.data.fetch import unpack
from cutsew.data.images import read_image
from cutsew.data.scores import Scores
from cutsew.data.truth_csv import from_csv
from cutsew.errors import UserError
from cutsew.models.checkpoints import read_state_dict
from cutsew.models.student import read_model_spec
from cutsew.provenance.lineage import BadRecord
from cutsew.provenance.lineage import read_record as read_trace
from cutsew.storage.manifest import read_manifest
from cutsew.storage.tables import read_record
from cutsew.storage.zarr_reader import array_of, open_group, read
from trouble import annotations, configs, images, models, scores, world
from trouble.case import time_boxed

Read = Callable[[Path], object]
KEPT = Path(__file__).parents[2] / ".fuzz"


@cache
def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def at(name: str, read_it: Read) -> Callable[[bytes], None]:
    """Give a target: the bytes are written to a file of that name, which is read."""

    def target(data: bytes) -> None:
        path = scratch() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        read_it(path)

    return target


def of_coco(path: Path) -> None:
    root = path.parents[1]
    (root / "train2014").mkdir(exist_ok=True)
    coco.list_images(root, "train2014", "dataset.coco.train", drop=True)
    coco.read_instances(root, "train2014", "dataset.coco.train")


def of_nus(path: Path) -> None:
    root = path.parents[1]
    for name, text in {
        "ConceptsList/Concepts81.txt": "cat\n",
        "Groundtruth/AllLabels/Labels_cat.txt": "1\n0\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    names = nus.read_list(root, "Imagelist", "dataset.nus.train")
    nus.read_labels(root).rows_of(names)


def of_scores(path: Path) -> None:
    result = Scores(
        ScoresFileConfig(file=path, crops=["one"] if path.suffix == ".parquet" else ["crops"]), scores.CLASSES
    )
    rows = np.maximum(result.rows_of(scores.IDS), 0)
    result.zero_shot(rows)
    for k in range(min(result.passes, 3)):
        result.crops(k, rows)


def of_chunk(data: bytes) -> None:
    """Either the chunk is refused, or its numbers are what they were."""
    run = sound_run()
    (run / "fused.zarr/z/c/0/0").write_bytes(data)
    values = read(array_of(open_group(run / "fused.zarr"), "z"))
    assert np.array_equal(values, read(array_of(open_group(world.base() / "fused.zarr"), "z"))), (
        "damage was taken for values"
    )


def of_metadata(data: bytes) -> None:
    run = sound_run()
    (run / "fused.zarr/z/c/0/0").write_bytes((world.base() / "fused.zarr/z/c/0/0").read_bytes())
    (run / "fused.zarr/z/zarr.json").write_bytes(data)
    try:
        read(array_of(open_group(run / "fused.zarr"), "z"))
    finally:
        (run / "fused.zarr/z/zarr.json").write_bytes((world.base() / "fused.zarr/z/zarr.json").read_bytes())


def of_record(path: Path) -> None:
    with contextlib.suppress(BadRecord):
        read_trace(path)
    read_record(path, "facts", "width")


@cache
def sound_run() -> Path:
    return world.copy(scratch())


def of_archive(path: Path) -> None:
    unpack(path, scratch() / "unpacked")


@cache
def sound(make: Callable[[Path], object], name: str) -> bytes:
    folder = Path(tempfile.mkdtemp(prefix="sound-"))
    make(folder)
    return (folder / name).read_bytes()


SOUND: dict[str, Callable[[], list[bytes]]] = {
    "image": lambda: (
        [images.encoded(images.draw_image(), name) for name in (*images.KINDS, *(["HEIF"] if images.HEIF else []))]
        + [
            images.sixteen_bits(),
            images.turned(6),
        ]
    ),
    "VOC XML": lambda: [
        annotations.things("cat", "dog").encode(),
        *(content for _, content, _ in annotations.GOOD_XML[:3]),
    ],
    "COCO JSON": lambda: [json.dumps(annotations.instances()).encode()],
    "NUS list": lambda: [b"actor\\0001_1.jpg\nbeach\\0002_2.jpg\n"],
    "truth CSV": lambda: [content for _, content, _ in annotations.GOOD_CSVS],
    "corrections": lambda: (
        [content for _, content, _ in annotations.GOOD_CORRECTIONS]
        + [b'image,class,present,by,at\r\na,cat,1,"A, B",x\r\n']
    ),
    "table of labels": lambda: [content for _, content, _ in annotations.GOOD_TABLES],
    "Label Studio": lambda: [
        content if isinstance(content, bytes) else json.dumps(content).encode()
        for _, content, _ in annotations.GOOD_EXPORTS
    ],
    "scores npz": lambda: [sound(scores.npz, "s.npz")],
    "scores parquet": lambda: [sound(next(scores.parquet()).act, "s.parquet")],
    "config YAML": lambda: (
        [content for _, content, *_ in configs.CONTENT]
        + [yaml.safe_dump(load(configs.BASE).model_dump(mode="json")).encode()]
    ),
    "sweep": lambda: [content for _, content, _ in configs.SWEEPS if content],
    "model.yaml": lambda: [yaml.safe_dump(models.DESCRIPTION).encode()],
    "weights .pt": lambda: [
        models.saved(models.STATE),
        models.saved({"model": models.Model()}, _use_new_zipfile_serialization=False),
        models.traced(),
    ],
    "weights .safetensors": lambda: [save(models.STATE)],
    "chunk": lambda: [(world.base() / "fused.zarr/z/c/0/0").read_bytes()],
    "zarr.json": lambda: [(world.base() / "fused.zarr/z/zarr.json").read_bytes()],
    "record": lambda: [(world.base() / "views.records/0-0.json").read_bytes()],
    "manifest": lambda: [(world.base() / "images.parquet").read_bytes()],
    "tar": lambda: [models.tar()(scratch()).read_bytes()],
    "zip": lambda: [models.zipped("a.jpg")(scratch()).read_bytes()],
}
"""Parser -> sound files, to be damaged."""

PARSERS: dict[str, Callable[[bytes], None]] = {
    "image": at("a.jpg", read_image),
    "VOC XML": at("a.xml", voc.read_annotation),
    "COCO JSON": at("coco/annotations/instances_train2014.json", of_coco),
    "NUS list": at("nus/ImageList/Imagelist.txt", of_nus),
    "truth CSV": at("truth.csv", lambda path: from_csv(path, ImageNames(["a", "b"]), annotations.CLASSES)),
    "corrections": at("c.csv", lambda path: corrections_of(path, annotations.IDS, annotations.CLASSES)),
    "table of labels": at("t.csv", lambda path: corrections_of(path, annotations.IDS, annotations.CLASSES)),
    "Label Studio": at("l.json", lambda path: corrections_of(path, annotations.IDS, annotations.CLASSES)),
    "scores npz": at("s.npz", of_scores),
    "scores parquet": at("s.parquet", of_scores),
    "config YAML": at("c.yaml", lambda path: load(read_yaml(path, "a config file"))),
    "sweep": at("s.yaml", lambda path: variants_of(read_sweep(path), configs.BASE, str(path))),
    "model.yaml": at("model.yaml", read_model_spec),
    "weights .pt": at("w.pt", lambda path: read_state_dict(path, models.SETTING)),
    "weights .safetensors": at("w.safetensors", lambda path: read_state_dict(path, models.SETTING)),
    "chunk": of_chunk,
    "zarr.json": of_metadata,
    "record": at("r.json", of_record),
    "manifest": at("images.parquet", read_manifest),
    "tar": at("a.tar", of_archive),
    "zip": at("a.zip", of_archive),
}

TOKENS = (
    *(
        b"\0",
        b"\xff",
        b"\n",
        b'"',
        b"'",
        b"<",
        b"&",
        b"{",
        b"[",
        b"}",
        b"]",
        b":",
        b",",
        b";",
        b"-",
        b"*a",
        b"&a ",
        b"!!",
        b"<<: ",
    ),
    *(b"NaN", b".inf", b"1e999", b"-1", b"null", b"true", b"0x7f", b"../", b"$(touch x)", b"<!DOCTYPE a>", b"&amp;"),
    *(b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", bytes(8), b"\xef\xbb\xbf", "\u202e".encode()),
)
change = st.tuples(
    st.sampled_from(("flip", "cut", "drop", "insert", "token", "repeat", "overwrite")),
    st.floats(0, 1),
    st.floats(0, 1),
    st.one_of(st.binary(max_size=8), st.sampled_from(TOKENS)),
)


def damage(data: bytes, changes: Sequence[tuple[str, float, float, bytes]]) -> bytes:
    """Change a file in some places; places are shares of its length, so that examples shrink well."""
    for kind, where, far, new in changes:
        start = int(where * len(data))
        end = min(len(data), start + 1 + int(far**3 * len(data)))
        if kind == "flip" and start < len(data):
            data = data[:start] + bytes([data[start] ^ (1 << int(far * 7))]) + data[start + 1 :]
        elif kind == "cut":
            data = data[:start]
        elif kind == "drop":
            data = data[:start] + data[end:]
        elif kind in ("insert", "token"):
            data = data[:start] + new + data[start:]
        elif kind == "repeat" and len(data) < 100_000:
            data = data[:end] + data[start:end] + data[end:]
        elif kind == "overwrite":
            data = data[:start] + new + data[start + len(new) :]
    return data


LINE_PER_SETTING = ("config YAML", "sweep")
"""Parsers of settings, each wrong one of which has a line of its own."""


def attempt(parser: str, data: bytes) -> bool:
    """Try an input; tell whether it was refused. Raises whatever else comes of it."""
    try:
        with time_boxed(10):
            PARSERS[parser](data)
    except UserError as error:
        lines = str(error).split("\n")
        assert len(lines) == 1 or parser in LINE_PER_SETTING, f"more than one line: {str(error)!r}"
        assert all(line and line.isprintable() for line in lines), f"not a plain line: {str(error)!r}"
        return True
    return False


def examples(parser: str) -> st.SearchStrategy[bytes]:
    sound_ones = st.sampled_from(SOUND[parser]())
    return st.one_of(st.builds(damage, sound_ones, st.lists(change, min_size=1, max_size=4)), st.binary(max_size=64))


class OutOfTime(Exception):  # noqa: N818
    pass


def fuzz(parser: str, seconds: float) -> tuple[int, int, list[str]]:
    """Fuzz a parser for some time; return how many inputs were tried, how many refused, and what was found."""
    tried = refused = 0
    end = time.monotonic() + seconds

    @settings(
        max_examples=100_000,
        deadline=None,
        database=DirectoryBasedExampleDatabase(KEPT / parser.replace(" ", "-")),
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @given(examples(parser))
    def run(data: bytes) -> None:
        nonlocal tried, refused
        if time.monotonic() > end:
            raise OutOfTime
        tried += 1
        refused += attempt(parser, data)

    result = []
    while time.monotonic() < end:
        try:
            run()
        except OutOfTime:
            break
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            if time.monotonic() > end and isinstance(error.__cause__ or error.__context__, OutOfTime):
                break
            notes = " ".join(getattr(error, "__notes__", []))[:300]
            result.append(f"{type(error).__name__}: {str(error)[:200]} {notes}")
            break
    return tried, refused, result


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=1.0, help="for each parser")
    options.add_argument("parsers", nargs="*", default=list(PARSERS))
    chosen = options.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    print("| parser | minutes | inputs | refused in one line | found |\n|---|---|---|---|---|", flush=True)
    for parser in chosen.parsers:
        tried, refused, result = fuzz(parser, 60 * chosen.minutes)
        print(
            f"| {parser} | {chosen.minutes:g} | {tried:,} | {refused:,} | {'; '.join(result) or 'nothing'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
