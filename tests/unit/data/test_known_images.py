"""The manifest made again: what it reads, what it decodes, and that the result is always that of a fresh one."""

import json
import os

import fsspec
import numpy as np
import pytest
from packed_images import pack_huggingface, pack_tars
from PIL import Image

from cutsew.data import images as opening
from cutsew.data import known_images
from cutsew.errors import UserError
from cutsew.stages.manifest import manifest

NAMES = ["b.png", "a/1.png", "a/2.png", "c.png", "d.png"]


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4 + seed % 3, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(NAMES):
        draw(tmp_path / "images" / name, seed)
    return tmp_path / "images"


@pytest.fixture
def out(tmp_path, root):
    make(tmp_path / "out", root)
    return tmp_path / "out"


@pytest.fixture
def work(monkeypatch):
    """Counts the images that are read, and those that are decoded."""
    counted = {"read": 0, "decoded": 0}
    read, decode = opening._read_bytes, opening._decode

    def reading(address):
        counted["read"] += 1
        return read(address)

    def decoding(*words):
        counted["decoded"] += 1
        return decode(*words)

    monkeypatch.setattr(opening, "_read_bytes", reading)
    monkeypatch.setattr(opening, "_decode", decoding)
    return counted


def make(folder, root, workers=2, **dataset):
    chosen = {"kind": "folder", "root": str(root), "shard_size": 2, **dataset}
    manifest(folder / "images.parquet", settings={"version": 1, "dataset": chosen}, workers=workers)
    return work_of(folder)


def work_of(folder):
    return json.loads((folder / "images.json").read_text())["work"]


def content(folder):
    return [(folder / name).read_bytes() for name in ("images.parquet", "shards.csv", "skipped.csv")]


def require_fresh(folder, root, tmp_path, **dataset):
    """Compare with a manifest whose images are all decoded, and which has the same earlier one."""
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "images.parquet").write_bytes((folder / "images.parquet").read_bytes())
    make(fresh, root, **dataset)
    assert content(fresh) == content(folder)


def rewrite(path, data):
    """Replace a file's content, keeping its size and modification time."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def later(path, seconds=1):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))


def _swap(root):
    later(root / "b.png")
    for old, new in (("b.png", "x"), ("c.png", "b.png"), ("x", "c.png")):
        (root / old).rename(root / new)


CHANGES = {
    "nothing": (lambda root: None, 0, 0),
    "a new image": (lambda root: draw(root / "0.png", 9), 1, 1),
    "one less": (lambda root: (root / "b.png").unlink(), 0, 0),
    "touched": (lambda root: later(root / "b.png"), 1, 0),
    "other permissions": (lambda root: (root / "b.png").chmod(0o640), 1, 0),
    "edited": (lambda root: later(draw(root / "b.png", 8)), 1, 1),
    "moved": (lambda root: (root / "b.png").rename(root / "a" / "b.png"), 1, 0),
    "copied": (lambda root: (root / "e.png").write_bytes((root / "b.png").read_bytes()), 1, 1),
    "two swapped": (_swap, 2, 0),
}


@pytest.mark.parametrize(("change", "read", "decoded"), CHANGES.values(), ids=CHANGES)
def test_only_new_and_edited_images_are_read(change, read, decoded, out, root, tmp_path, work):
    change(root)
    assert make(out, root) == work == {"read": read, "decoded": decoded}
    require_fresh(out, root, tmp_path)
    work.update(read=0, decoded=0)
    assert make(out, root)["read"] == work["read"] == 0


def test_touching_changes_nothing_that_others_read(out, root):
    before, shards = content(out), (out / "shards.csv").stat()
    for name in NAMES:
        later(root / name)
    assert make(out, root) == {"read": 5, "decoded": 0}
    assert content(out) == before and (out / "shards.csv").stat().st_mtime_ns == shards.st_mtime_ns


def test_an_edit_that_keeps_size_and_time_is_seen_once_the_cache_is_deleted(out, root, tmp_path):
    data, before = (root / "b.png").read_bytes(), content(out)
    rewrite(root / "b.png", data.replace(b"IDAT", b"IDAT", 1)[:-1] + bytes([data[-1] ^ 1]))  # the checksum of the end
    assert make(out, root)["read"] == 0 and content(out) == before
    for path in (out / "images.cache").iterdir():
        path.unlink()
    assert make(out, root)["read"] == 5 and content(out) != before


def test_a_killed_manifest_resumes(tmp_path, root, work, monkeypatch):
    out, inspect = tmp_path / "out", opening._decode
    monkeypatch.setattr(known_images, "PART_SECONDS", -1)

    def killed(path, *words):
        if path.endswith("c.png"):
            raise KeyboardInterrupt
        return inspect(path, *words)

    monkeypatch.setattr(opening, "_decode", killed)
    with pytest.raises(KeyboardInterrupt):
        make(out, root, workers=0)
    assert not (out / "images.parquet").exists() and len(list((out / "images.cache").iterdir())) == 3
    monkeypatch.setattr(opening, "_decode", inspect)
    assert make(out, root) == {"read": 2, "decoded": 2}  # c and d
    assert [path.name for path in (out / "images.cache").iterdir()] == ["1.parquet"]
    make(tmp_path / "fresh", root)
    assert content(out) == content(tmp_path / "fresh")


def test_a_bad_image_costs_only_itself(tmp_path, root):
    out, good = tmp_path / "out", (root / "c.png").read_bytes()
    (root / "c.png").write_bytes(good[:40])
    with pytest.raises(UserError, match=r"c\.png: truncated"):
        make(out, root)
    assert make(out, root, on_bad_image="skip")["read"] == 1  # it may be readable by now
    assert b"c.png,truncated" in (out / "skipped.csv").read_bytes()
    (root / "c.png").write_bytes(good)
    assert make(out, root) == {"read": 1, "decoded": 1}


def _flip(path):
    data = bytearray(path.read_bytes())
    at = data.index(b"PAR1") + 60  # in the first page
    data[at] ^= 255
    path.write_bytes(data)


def _other_columns(path):
    import pandas as pd

    pd.DataFrame({"path": ["x"]}).to_parquet(path)


DAMAGE = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "a byte flipped": _flip,
    "other columns": _other_columns,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_reported_and_ignored(damage, out, root, caplog):
    before = content(out)
    damage(out / "images.cache" / "1.parquet")
    assert make(out, root)["read"] == 5 and content(out) == before
    assert "its images are read again" in caplog.text
    assert make(out, root)["read"] == 0


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_containers_are_read_again_only_where_they_changed(kind, tmp_path, root, work):
    packed = tmp_path / "packed"
    if kind == "tar":
        pack_tars(root, packed)
    else:
        pack_huggingface(root, packed / "0.parquet")
    chosen = {"kind": kind, "files": f"*.{kind}"}
    make(tmp_path / "out", packed, **chosen)
    work.update(read=0, decoded=0)
    assert make(tmp_path / "out", packed, **chosen)["read"] == work["read"] == 0
    changed = sorted(packed.iterdir())[0]
    later(changed)
    assert make(tmp_path / "out", packed, **chosen) == {"read": 3 if kind == "tar" else 5, "decoded": 0}


def test_urls_are_read_again_where_their_file_system_gives_no_mark(tmp_path, root, work, monkeypatch):
    system, url = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
    for name in NAMES:
        system.pipe(f"/{tmp_path.name}/{name}", (root / name).read_bytes())
    make(tmp_path / "out", url)
    assert make(tmp_path / "out", url)["read"] == 0  # by the time of creation
    system.pipe(f"/{tmp_path.name}/b.png", (root / "b.png").read_bytes())
    assert make(tmp_path / "out", url) == {"read": 1, "decoded": 0}
    monkeypatch.setattr(known_images.remote, "MARKS", ())
    assert make(tmp_path / "out", url) == {"read": 5, "decoded": 0}
