"""Images in tars, in Parquet files and behind URLs: the same rows as of the folder that was packed."""

import fsspec
import numpy as np
import pandas as pd
import pytest
from file_server import serve_listed
from packed_images import pack_huggingface, pack_img2dataset, pack_tars
from PIL import Image

from cutsew.data import remote
from cutsew.data.images import read_image
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
        server.breaks = 2
        assert read_image(made["path"][1]).tobytes() == read_image(expected["path"][1]).tobytes()
        if kind == "tar":
            server.resumes = False
            with pytest.raises(UserError, match="does not serve parts of files"):
                read_image(made["path"][2])
        server.busy = 100
        with pytest.raises(UserError, match=rf"^{server.url}.*: cannot be read \(\w+\); check the connection and run"):
            make(tmp_path / "other", root=server.url, on_bad_image="skip", **chosen)
    if kind != "parquet":  # whose rows are read ahead
        with pytest.raises(UserError, match="cannot be read"):
            read_image(made["path"][0])
    assert not (tmp_path / "other").exists()
