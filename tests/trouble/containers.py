"""Tars, Parquet files and URLs: damage stops the manifest in one line, or what is readable is used and the rest listed."""

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cutsew.config import load
from cutsew.config.dataset import TarDatasetConfig
from cutsew.data.containers import list_members
from cutsew.errors import UserError
from cutsew.pipeline.preflight import validate_inputs
from cutsew.stages.manifest import manifest
from cutsew.storage.manifest import read_manifest
from trouble.case import ACCEPTED, OUT, REFUSED, SKIPPED, Case
from trouble.images import draw_image, encoded

GOOD = encoded(draw_image(seed=99), "PNG")


def tar_of(members: dict[str, bytes], mode: str = "w", links: tuple[str, ...] = ()) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    return stream.getvalue()


def parquet_of(table: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(table), stream, row_group_size=2)
    return stream.getvalue()


def claiming(size: int) -> bytes:
    """Return a tar whose second image claims to be larger than it is."""
    member = tarfile.TarInfo("2.png")
    member.size = size
    one = tar_of({"1.png": GOOD})
    end = BLOCK + -(-len(GOOD) // BLOCK) * BLOCK
    return one[:end] + member.tobuf(tarfile.GNU_FORMAT) + GOOD


BLOCK = tarfile.BLOCKSIZE
TWO = tar_of({"1.png": GOOD, "2.png": encoded(draw_image(seed=1), "PNG")})
ROWS = {"key": ["1", "2", "3"], "jpg": [GOOD, None, GOOD], "status": ["success", "failed_to_download", "success"]}
WHOLE = parquet_of({"key": ["1", "2"], "jpg": [GOOD, encoded(draw_image(seed=1), "PNG")]})
BROKEN = WHOLE[:60] + bytes(120) + WHOLE[180:]

DAMAGED = [  # name, kind, content, reason, images that are left
    ("a tar cut in its last image", "tar", TWO[: TWO.index(b"2.png") + tarfile.BLOCKSIZE + 90], "truncated", 1),
    ("a tar cut in a header", "tar", TWO[: TWO.index(b"2.png") + 90], "truncated", 1),
    ("a tar cut between two images", "tar", TWO[: TWO.index(b"2.png")], "truncated", 1),
    ("a tar whose image claims 8 GB", "tar", claiming(8 * 10**9), "truncated", 1),
    ("a tar whose image claims a million TB", "tar", claiming(10**18), "truncated|damaged", 1),
    ("a tar with a header of junk", "tar", TWO[: TWO.index(b"2.png")] + b"junk" * 400, "damaged", 1),
    ("a tar with an image that is none", "tar", tar_of({"1.png": GOOD, "2.png": b"not an image"}), "not an image", 1),
    ("a tar with an empty image", "tar", tar_of({"1.png": GOOD, "2.png": b""}), "empty file", 1),
    ("a Parquet file with a row without image", "parquet", parquet_of(ROWS), "no image in this row", 2),
    ("a Parquet file with bytes that are no image", "parquet", parquet_of({"jpg": [GOOD, b"x"]}), "not an image", 1),
]
USELESS = [  # name, kind, content, the line
    ("a tar of nothing", "tar", b"", "photos.tar: not a tar"),
    ("a compressed tar", "tar", tar_of({"1.png": GOOD}, "w:gz"), "photos.tar: compressed, .*gunzip"),
    ("a tar without images", "tar", tar_of({"1.cls": b"3", "1.txt": b"cat"}), "dataset.files: .* hold no image"),
    ("a Parquet file that is cut", "parquet", WHOLE[:-40], "photos.parquet: truncated, damaged or not a Parquet file"),
    ("a Parquet file of text", "parquet", b"hello", "photos.parquet: truncated, damaged or not a Parquet file"),
    ("a Parquet file whose pages are zeros", "parquet", BROKEN, "damaged"),
    ("a Parquet file without bytes", "parquet", parquet_of({"label": [1]}), r"dataset.image: .*label \(int64\); write"),
    ("a Parquet file of lists of images", "parquet", parquet_of({"jpg": [[GOOD]]}), r"dataset.image: .*jpg \(list\)"),
    (
        "a Parquet file of two images a row",
        "parquet",
        parquet_of({"a": [GOOD], "b": [GOOD]}),
        "dataset.image: .*name a, b",
    ),
    ("a Parquet file with lists as ids", "parquet", parquet_of({"key": [["1"]], "jpg": [GOOD]}), "dataset.id: .*lists"),
    ("a Parquet file with NUL in an id", "parquet", parquet_of({"key": ["a\0b"], "jpg": [GOOD]}), "dataset.id: .*NUL"),
    (
        "a Parquet file with odd bytes as ids",
        "parquet",
        parquet_of({"key": [b"\xff"], "jpg": [GOOD]}),
        "dataset.id: .*UTF-8",
    ),
]


def make(folder: Path, kind: str, data: bytes, bad: str, **dataset) -> pd.DataFrame:
    """Run the manifest over a folder that holds one tar or Parquet file."""
    root = folder / "packed"
    root.mkdir(parents=True)
    (root / f"photos.{kind}").write_bytes(data)
    settings = {"dataset": {"kind": kind, "root": str(root), "shard_size": 4, "on_bad_image": bad, **dataset}}
    manifest(folder / OUT / "images.parquet", settings=settings)
    return read_manifest(folder / OUT / "images.parquet")


def damaged(name: str, kind: str, data: bytes, reason: str, left: int) -> Iterator[Case]:
    def goes_on(folder: Path) -> str:
        table, listed = make(folder, kind, data, "skip"), pd.read_csv(folder / OUT / "skipped.csv")
        if len(table) != left:
            return f"{len(table)} images are in the manifest, not {left}"
        return f"skipped: {'; '.join(listed['reason'])}"

    yield Case("containers", name, REFUSED, f"photos.*{reason}", lambda folder: make(folder, kind, data, "stop"))
    yield Case("containers", f"{name} (on_bad_image: skip)", SKIPPED, reason, goes_on)


def set_to(**dataset) -> Callable[[Path], object]:
    """Load settings and check them before the first job."""

    def act(folder: Path) -> object:
        root = folder / "packed"
        root.mkdir(parents=True, exist_ok=True)
        (root / "1.tar").write_bytes(TWO)
        raw = {"classes": ["cat", "dog"], "dataset": {"root": str(root), **dataset}}
        return validate_inputs(load(raw | {"teacher": {"open_clip": {"model": "cutsew-tiny", "pretrained": "demo"}}}))

    return act


SETTINGS = [
    ("a pattern that matches nothing", {"kind": "tar", "files": "train-*.tar"}, "dataset.files: no file below .*train"),
    ("a shard that is missing", {"kind": "tar", "files": "{1..2}.tar"}, r"dataset.files: .*/2\.tar does not exist"),
    ("held-out files that are missing", {"kind": "tar", "test": {"files": "v*.tar"}}, r"dataset\.test\.files: no file"),
    ("two ways of holding out", {"kind": "tar", "test": {"files": "1.tar", "fraction": 0.5}}, "name only one of"),
    ("a column for tars", {"kind": "tar", "image": "jpg"}, "dataset.image: is a setting of kind parquet"),
    ("a pattern for a folder", {"kind": "folder", "files": "*.tar"}, "dataset.files: is a setting of kind tar or parq"),
    (
        "a protocol that nobody knows",
        {"kind": "folder", "root": "klingon://x"},
        "klingon:// is not a protocol that fsspec knows",
    ),
    ("a password in a URL", {"kind": "tar", "root": "s3://me:hush@bucket/x"}, r"dataset\.root: is a URL with a pass"),
    ("a token in a URL", {"kind": "folder", "root": "https://hush@host/x"}, "password or token"),
    ("a token behind #", {"kind": "folder", "root": "https://host/x#hush"}, "is a URL with a fragment"),
    ("a chain of URLs", {"kind": "folder", "root": "simplecache::https://me:hush@host/x"}, "is a chain of URLs"),
    ("a tar behind a URL", {"kind": "folder", "root": "tar://a::https://me:hush@host/x"}, "is a chain of URLs"),
    ("a URL with one slash", {"kind": "folder", "root": "https:/me:hush@host/x"}, "https:// with two slashes"),
    (
        "a URL for a benchmark",
        {"kind": "voc", "root": "https://me:hush@host/x"},
        "dataset.root: is a URL; name a file or",
    ),
    ("a URL of a CSV", {"kind": "tar", "truth": "https://me:hush@host/x"}, "dataset.truth: is a URL; name a file or"),
    ("a URL as pattern", {"kind": "tar", "files": "https://me:hush@host/1.tar"}, "`files` is a URL or holds a query"),
    ("a signed pattern", {"kind": "tar", "root": "https://host", "files": "1.tar?sig=hush"}, "`files` .* a query"),
    (
        "a signed pattern of held-out files",
        {"kind": "tar", "root": "https://host", "test": {"files": "1.tar?sig=hush"}},
        "`test.files` .* a query",
    ),
    ("a signed URL", {"kind": "parquet", "root": "https://host/x?sig=hush"}, "is a URL with a query"),
    (
        "a URL where nothing is",
        {"kind": "folder", "root": "memory://nowhere/at/all"},
        "dataset.root: (no images below memory://nowhere|memory://nowhere.* does not exist)",
    ),
]


def without_secret(act: Callable[[Path], object]) -> Callable[[Path], object]:
    def guarded(folder: Path) -> object:
        try:
            return act(folder)
        except UserError as error:
            if "hush" in str(error):
                return f"the secret is in the line: {error}"
            raise

    return guarded


def twice(folder: Path) -> str:
    """Add a member of the same name to a tar, as `tar -r` does: the last one counts."""
    data = tar_of({"1.png": b"old", "2.png": GOOD})
    newer = tar_of({"1.png": GOOD})
    table = make(folder, "tar", data[: data.index(b"2.png")] + newer, "stop")
    return f"{table['id'].tolist()}"


def with_a_huge_member(folder: Path) -> str:
    """Put a tar of holes, whose second image has 2 GB, next to a good one."""
    root = folder / "packed"
    root.mkdir(parents=True)
    (root / "huge.tar").write_bytes(claiming(2 * 10**9)[: -len(GOOD)])
    with (root / "huge.tar").open("r+b") as file:
        file.truncate(2 * 10**9 + 2**20)
    make(folder / "made", "tar", TWO, "skip", root=str(root), files="huge.tar")
    listed = pd.read_csv(folder / "made" / OUT / "skipped.csv")
    return f"skipped: {'; '.join(listed['reason'])}"


def edited_later(folder: Path) -> object:
    """Replace a tar by one whose members have the same names, places and sizes."""
    from cutsew.data.images import read_image

    row = make(folder, "tar", TWO, "stop").iloc[0]
    other = encoded(draw_image(seed=7), "PNG")
    (folder / "packed" / "photos.tar").write_bytes(TWO.replace(GOOD, other[: len(GOOD)].ljust(len(GOOD), b"\0")))
    (folder / OUT).rename(folder / "made")
    return read_image(row["path"], digest=row["digest"])


def changed_later(folder: Path) -> object:
    """Replace a tar after the manifest has listed it."""
    from cutsew.data.images import read_image

    path = make(folder, "tar", TWO, "stop")["path"].iloc[1]
    (folder / "packed" / "photos.tar").write_bytes(tar_of({"0.png": GOOD, "1.png": GOOD, "3.png": GOOD}))
    (folder / OUT).rename(folder / "made")
    return read_image(path)


def ids_of(tars: dict[str, dict[str, bytes]]) -> Callable[[Path], object]:
    """List the members of several tars."""

    def act(folder: Path) -> object:
        for name, members in tars.items():
            (folder / "packed" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "packed" / name).write_bytes(tar_of(members))
        dataset = TarDatasetConfig(kind="tar", root=folder / "packed", files="**/*.tar*")
        return [name for name, _, _ in list_members(dataset, folder / "packed")]

    return act


SHARED_IDS = [  # name, tars and their members, ids
    ("two tars with an id", {"a.tar": ["1.png"], "b.tar": ["1.png", "2.png"]}, ["a/1.png", "b/1.png", "2.png"]),
    (
        "two tars with an id, and a third image of the name it gets",
        {"a.tar": ["1.png"], "b.tar": ["1.png", "a/1.png"]},
        ["a.tar/1.png", "b.tar/1.png", "b.tar/a/1.png"],
    ),
    (
        "two tars with an id, whose names differ in the suffix alone",
        {"a.tar": ["1.png"], "a.tar2": ["1.png"]},
        ["a.tar/1.png", "a.tar2/1.png"],
    ),
    ("two tars of one name in two folders", {"x/a.tar": ["1.png"], "y/a.tar": ["1.png"]}, ["x/a/1.png", "y/a/1.png"]),
]


def cases() -> Iterator[Case]:
    for name, tars, ids in SHARED_IDS:
        content = {tar: dict.fromkeys(members, GOOD) for tar, members in tars.items()}
        yield Case("containers", name, ACCEPTED, re.escape(str(ids)), ids_of(content))
    coded = parquet_of({"jpg": pa.array([GOOD, GOOD]).dictionary_encode(), "key": [b"1", b"2"]})
    yield Case(
        "containers",
        "a Parquet file whose images and ids are coded in another way",
        ACCEPTED,
        r"\['1', '2'\]",
        lambda folder: make(folder, "parquet", coded, "stop")["id"].tolist(),
    )
    for one in DAMAGED:
        yield from damaged(*one)
    for name, kind, data, line in USELESS:
        yield Case("containers", name, REFUSED, line, lambda f, k=kind, d=data: make(f, k, d, "stop"))
    for name, dataset, line in SETTINGS:
        yield Case("containers", name, REFUSED, line, without_secret(set_to(**dataset)))
    yield Case("containers", "a tar with an image of 2 GB", SKIPPED, r"too large: 1\.9 GiB", with_a_huge_member)
    yield Case("containers", "a tar with a member twice", ACCEPTED, r"\['1\.png'\]", twice)
    yield Case(
        "containers",
        "a tar with a link to a file outside",
        ACCEPTED,
        r"1 images",
        lambda f: f"{len(make(f, 'tar', tar_of({'1.png': GOOD}, links=('2.png',)), 'stop'))} images",
    )
    yield Case(
        "containers", "a tar that was changed after it was listed", REFUSED, "no such member.*run", changed_later
    )
    yield Case(
        "containers", "a tar whose images were edited later", REFUSED, "photos.*changed.*run the wo", edited_later
    )
