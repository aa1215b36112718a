"""Images in tars, in Parquet files and behind URLs: the same rows as of the folder that was packed."""

import json
import tarfile

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_server import serve_listed
from packed_images import add, pack_huggingface, pack_img2dataset, pack_tars
from PIL import Image

from cutsew.config import load
from cutsew.config.dataset import ParquetDatasetConfig
from cutsew.data import remote
from cutsew.data.containers import expand_braces, find_containers, list_members
from cutsew.data.image_bytes import ParquetRow, TarMember, parse
from cutsew.data.images import BadImage, read_image
from cutsew.data.listing import listing_fingerprint
from cutsew.errors import UserError
from cutsew.stages.manifest import manifest
from cutsew.storage.manifest import read_manifest

SAME = ["id", "width", "height", "bytes", "digest", "split", "shard"]
NAMES = ["a/1.jpg", "a/2.png", "b.png", "c ü.png", "d.webp", f"{'long/' * 30}e.png"]


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(NAMES):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (5 + seed, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def make(out, workers=0, **dataset):
    settings = {"version": 1, "dataset": {"shard_size": 4, "name": "x", **dataset}}
    manifest(out / "images.parquet", settings=settings, workers=workers)
    return read_manifest(out / "images.parquet")


@pytest.fixture
def expected(tmp_path, folder):
    return make(tmp_path / "of-folder", kind="folder", root=str(folder))


def upload(folder, url):
    system = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{url}/{path.relative_to(folder)}".removeprefix("memory:/"), path.read_bytes())


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("kind", ["tar", "img2dataset", "huggingface", "folder"])
def test_rows_equal_the_folders(tmp_path, folder, expected, kind, far, workers):
    place = tmp_path / "packed"
    if kind == "tar":
        pack_tars(folder, place)
    elif kind == "folder":
        place = folder
    else:
        (pack_img2dataset if kind == "img2dataset" else pack_huggingface)(folder, place / "part-0.parquet")
    root = f"memory://{tmp_path.name}/{kind}" if far else str(place)
    if far:
        upload(place, root)
    made = make(tmp_path / "out", workers, kind=kind if kind in ("tar", "folder") else "parquet", root=root)
    pd.testing.assert_frame_equal(made[SAME], expected[SAME])
    assert (tmp_path / "out" / "skipped.csv").read_text() == "path,reason\n"
    for left, right in zip(made["path"], expected["path"], strict=True):
        assert read_image(left).tobytes() == read_image(right).tobytes()
    for index in (5, 0, 3, 1):  # in any order
        assert np.array_equal(
            np.asarray(read_image(made["path"][index])), np.asarray(read_image(expected["path"][index]))
        )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["tar", "parquet", "folder"])
def test_a_web_server_that_drops_connections(tmp_path, folder, expected, kind):
    pytest.importorskip("aiohttp")
    place = tmp_path / "packed"
    if kind == "tar":
        pack_tars(folder, place)
    elif kind == "parquet":
        pack_huggingface(folder, place / "part-0.parquet")
    place = folder if kind == "folder" else place
    files = {"tar": "photos-{000000..000001}.tar", "parquet": "part-0.parquet"}.get(kind)
    chosen = {"kind": kind} | ({"files": files} if files else {})
    with serve_listed(place) as server:
        server.breaks, server.busy = 1, 1
        made = make(tmp_path / "out", root=server.url, **chosen)
        pd.testing.assert_frame_equal(made[SAME], expected[SAME])
        server.breaks = 1 if kind == "parquet" else 2
        assert read_image(made["path"][1]).tobytes() == read_image(expected["path"][1]).tobytes()
        if kind == "tar":
            server.resumes = False
            with pytest.raises(UserError, match="does not serve parts of files"):
                read_image(made["path"][2])
            server.resumes = True
        server.busy = 100
        with pytest.raises(UserError, match=rf"^{server.url}.*: cannot be read \(the server answered 503\); check"):
            make(tmp_path / "other", root=server.url, on_bad_image="skip", **chosen)
    if kind != "parquet":  # whose rows are read ahead
        with pytest.raises(UserError, match="cannot be read"):
            read_image(made["path"][0])
    assert not (tmp_path / "other").exists()


def test_a_tar_is_read_in_growing_parts_and_members_alone_in_any_order(tmp_path, monkeypatch):
    url = f"memory://{tmp_path.name}/a.tar"
    system, data = fsspec.filesystem("memory"), np.random.default_rng(0).bytes(400_000)
    system.pipe_file(f"/{tmp_path.name}/a.tar", data)
    fetched = []
    read = type(system).cat_file

    def cat_file(self, path, start=None, end=None, **options):
        fetched.append(end - start)
        return read(self, path, start=start, end=end, **options)

    monkeypatch.setattr(type(system), "cat_file", cat_file)
    for offset in range(0, 400_000, 10_000):  # with gaps, as between images and their labels
        assert remote.read_range(url, offset, 9_000) == data[offset : offset + 9_000]
    assert len(fetched) <= 8 and sum(fetched) <= 400_000 + 8 * 9_000
    fetched.clear()
    for offset in (200_000, 10_000, 300_000):
        assert remote.read_range(url, offset, 9_000) == data[offset : offset + 9_000]
    assert fetched == [9_000] * 3
    assert len(remote.read_range(url, 395_000, 9_000)) == 5_000  # where the file ends


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{a,b}/{1..2}.tar", ["a/1.tar", "a/2.tar", "b/1.tar", "b/2.tar"]),
        ("{9..10}.tar", ["9.tar", "10.tar"]),
        ("a{b}c{1..2}", ["a{b}c1", "a{b}c2"]),
        ("*.tar", ["*.tar"]),
    ],
)
def test_braces(pattern, expanded):
    assert expand_braces(pattern) == expanded


def test_ids_that_several_tars_hold_begin_with_the_tars_name(tmp_path, folder):
    for number in (1, 2):
        with tarfile.open(tmp_path / f"s{number}.tar", "w") as tar:
            add(tar, "x.png", (folder / "b.png").read_bytes())
            add(tar, f"{number}.png", (folder / "b.png").read_bytes())
    table = make(tmp_path / "out", kind="tar", root=str(tmp_path), test={"files": "s2.tar"})
    assert table["id"].tolist() == ["s1/x.png", "1.png", "s2/x.png", "2.png"]
    assert table["split"].tolist() == ["train", "train", "test", "test"]
    assert json.loads((tmp_path / "out" / "images.json").read_text())["facts"]["listed"] == "tar"


def test_rows_without_key_or_path_are_numbered_and_columns_can_be_named(tmp_path, folder):
    images = [(folder / name).read_bytes() for name in ("b.png", "d.webp")]
    columns = {"photo": images, "mask": images[::-1], "name": ["one", "two"]}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="dataset.image: .*; name photo, mask"):
        make(tmp_path / "out", kind="parquet", root=str(tmp_path))
    table = make(tmp_path / "out", kind="parquet", root=str(tmp_path), image="photo")
    assert table["id"].tolist() == ["p/00000000", "p/00000001"]
    table = make(tmp_path / "named", kind="parquet", root=str(tmp_path), image="mask", id="name")
    assert table["id"].tolist() == ["one", "two"]
    assert table["height"].tolist() == [9, 7]


def test_addresses():
    for place in (TarMember("s3://b/a@1+2.tar", "x@3+4::y.png", 512, 7), ParquetRow("a::b.parquet", "image.bytes", 5)):
        assert str(parse(str(place))) == str(place)
    assert parse("images/a.png") == "images/a.png" and parse("s3://b/a.png") == "s3://b/a.png"


def test_a_file_that_is_replaced_changes_the_fingerprint(tmp_path, folder):
    pack_tars(folder, tmp_path / "packed")

    def fingerprint():
        dataset = {"kind": "tar", "root": str(tmp_path / "packed")}
        return listing_fingerprint(load({"classes": ["a", "b"], "dataset": dataset}))

    before = fingerprint()
    assert fingerprint() == before
    with tarfile.open(tmp_path / "packed" / "photos-000001.tar", "a") as tar:
        add(tar, "new.png", b"x")
    assert fingerprint() != before


def test_a_missing_package_is_named_in_one_line(tmp_path, monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"^s3://b/x: s3:// needs a package; pip install 'cutsew\[s3\]'$"):
        make(tmp_path / "out", kind="tar", root="s3://b/x")


def test_nothing_is_read_of_labels_next_to_images(tmp_path, folder, monkeypatch):
    """Members with labels are passed over by their headers; no byte of one is read."""
    (path,) = pack_tars(folder, tmp_path / "packed", 1)
    table = make(tmp_path / "out", kind="tar", root=str(tmp_path / "packed"))
    places = [parse(address) for address in table["path"]]
    assert all(isinstance(place, TarMember) for place in places)
    with tarfile.open(path) as tar:
        members = {member.offset_data: member.name for member in tar}
    assert {members[place.offset] for place in places} == set(NAMES)
    with pytest.raises(BadImage, match="no such member"):
        read_image(str(TarMember(str(path), "a/1.cls.png", places[0].offset, places[0].length)))


def test_find_containers_takes_folders_and_patterns(tmp_path):
    root = tmp_path / "photos [2024]*"  # a name that is no pattern
    for name in ("a/1.tar", "b/2.tar", "3.tar"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    found = [str(path)[len(str(root)) + 1 :] for path in find_containers(root, "**/*.tar")]
    assert found == ["3.tar", "a/1.tar", "b/2.tar"]
    assert len(find_containers(root, "{a,b}/*.tar")) == 2


def test_patterns_behind_a_web_server(tmp_path):
    pytest.importorskip("aiohttp")
    for name in ("a/1.tar", "a/2.tar", "b/2.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with serve_listed(tmp_path) as server:
        assert find_containers(server.url, "a/*.tar") == [f"{server.url}/a/1.tar", f"{server.url}/a/2.tar"]
        assert find_containers(f"{server.url}/a/", "{1..2}.tar") == [f"{server.url}/a/1.tar", f"{server.url}/a/2.tar"]


def test_of_a_parquet_file_far_away_only_ids_are_fetched_to_list_it(tmp_path):
    pytest.importorskip("aiohttp")
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    pack_huggingface(folder, tmp_path / "packed" / "a.parquet")
    with serve_listed(tmp_path / "packed") as server:
        dataset = ParquetDatasetConfig(root=server.url, files="a.parquet")
        assert len(list_members(dataset, server.url)) == 8
        ranges = [value.removeprefix("bytes=").split("-") for _, value in server.requests if value]
        fetched = sum(int(end) - int(start) + 1 for start, end in ranges)
        assert 0 < fetched < (tmp_path / "packed" / "a.parquet").stat().st_size / 4
        server.resumes = False
        with pytest.raises(UserError, match="does not serve parts of files"):
            list_members(dataset, server.url)
