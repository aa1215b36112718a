"""Images in tars, in Parquet files and behind a web server give the results of the folder, bit for bit."""

import copy
import os
import re
import signal
import time

import pandas as pd
import pytest
from file_server import serve_listed
from packed_images import pack_huggingface, pack_tars
from workflow_run import Real, Workflow

from cutsew.storage.manifest import read_manifest

pytestmark = pytest.mark.workflow

OWN = {"images.parquet", "shards.csv", "labels.csv", "labels.parquet", "report.html"}
"""Artifacts that hold paths; records hold settings."""


def content(results):
    """Return all results that do not say where the images lie."""
    files = {path.relative_to(results): path for path in sorted(results.rglob("*")) if path.is_file()}
    return {
        str(name): path.read_bytes()
        for name, path in files.items()
        if name.name not in OWN
        and not {"logs", "features", "images.cache"} & set(name.parts)
        and (path.suffix != ".json" or name.name == "zarr.json")
        and not name.name.startswith(".")
    }


@pytest.fixture(scope="module")
def of_folder(workflow):
    workflow.edit(explain={"kind": "maps", "num_maps": 2, "num_embeddings": 4})
    workflow.run()
    return workflow


def packed(of_folder, folder, name, kind, **dataset):
    """Return a workflow of the packed images, and of the same settings otherwise."""
    settings = copy.deepcopy(of_folder.settings)
    settings["dataset"] |= {"name": name, "kind": kind, "truth": str(of_folder.folder / "truth.csv"), **dataset}
    folder.mkdir(exist_ok=True)
    return Workflow(folder, settings)


def assert_equal(made, of_folder):
    new, old = (content(workflow.results / "default") for workflow in (made, of_folder))
    assert new.keys() == old.keys()
    assert [name for name in old if old[name] != new[name]] == []
    tables = [pd.read_csv(w.results / "default" / "labels.csv").drop(columns="path") for w in (made, of_folder)]
    pd.testing.assert_frame_equal(*tables)
    pages = [(w.results / "default" / "report.html").read_text() for w in (made, of_folder)]
    pictures = [sorted(re.findall(r"data:image/jpeg;base64,[^\"']+", page)) for page in pages]
    assert pictures[0] == pictures[1] != []


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_packed_images(tmp_path, of_folder, kind):
    images = of_folder.folder / "images"
    if kind == "tar":
        pack_tars(images, tmp_path / "packed")
    else:
        pack_huggingface(images, tmp_path / "packed" / "part-0.parquet")
    made = packed(of_folder, tmp_path / "here", kind, kind, root=str(tmp_path / "packed"))
    jobs = made.run()
    assert jobs["manifest"] == 1 and jobs["train"] == 1
    assert_equal(made, of_folder)
    assert made.run() == {}  # nothing is left to do


def test_a_web_server_and_a_run_that_is_killed(tmp_path, of_folder):
    pytest.importorskip("aiohttp")
    with serve_listed(of_folder.folder / "images") as server:
        made = packed(of_folder, tmp_path / "here", "far", "folder", root=server.url)
        process = Real(made.folder, made.settings).start()
        shards = made.results / "default" / "shards.csv"
        while not shards.is_file() and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert read_manifest(shards.with_name("images.parquet"))["path"].str.startswith(server.url).all()
        made.run()
        assert_equal(made, of_folder)
