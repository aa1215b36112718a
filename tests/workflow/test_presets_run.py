"""Every benchmark's preset runs to its end; only the weights, the images and the sizes are swapped."""

import hashlib
import tarfile

import pandas as pd
import pytest
import yaml
from benchmark_copies import NUS_CONCEPTS, VOC_CLASSES, make_coco, make_nus, make_voc
from file_server import serve
from workflow_run import ROOT, SETTINGS, Workflow

from cutsew.config import override

pytestmark = pytest.mark.workflow

SMALL = {
    "dataset.allow_incomplete": True,
    "cut.passes": 1,
    "select.top_k": 1,
    "train": {"adapter": SETTINGS["train"]["adapter"]},
    "train.batch_size": 4,
    "explain.kind": "none",
    "compute": {"device": "cpu"},
    **{f"{part}.open_clip": SETTINGS[part]["open_clip"] for part in ("teacher", "student")},
}


def preset(name, **changes):
    """Load a preset with a tiny CLIP, tiny sizes and a reduced copy; all else as it is."""
    return override(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()), {**SMALL, **changes})


def runs_to_its_end(folder, name, settings, **counts):
    workflow = Workflow(folder, settings)
    jobs = workflow.run()
    assert jobs["train"] == jobs["evaluate"] == jobs["report"] == 1
    home = folder / "results" / name / "default"
    metrics = pd.read_csv(home / "metrics.csv")
    assert {"zero_shot", "fused", "pseudo", "refined", "student"} == set(metrics["stage"])
    assert pd.read_parquet(home / "images.parquet")["split"].value_counts().to_dict() == counts
    labels = pd.read_parquet(home / "truth.parquet")
    assert len(labels) == sum(counts.values()) and list(labels.columns[1:]) == settings["classes"]
    return jobs


def test_voc2007_and_its_protocols(tmp_path):
    lists = {"train": ["000012", "000017"], "val": ["000005"], "test": ["000001", "000002"]}
    lists["trainval"] = [*lists["train"], *lists["val"]]
    make_voc(tmp_path / "VOC2007", lists, VOC_CLASSES.split())
    runs_to_its_end(tmp_path, "voc2007", preset("voc2007", **{"dataset.root": "VOC2007"}), train=2, test=1)
    common = preset("voc2007", **{"dataset.root": "VOC2007", "dataset.protocol": "common", "dataset.name": "other"})
    Workflow(tmp_path, common).run("results/other/default/images.parquet")
    images = pd.read_parquet(tmp_path / "results" / "other" / "default" / "images.parquet")
    assert images["split"].value_counts().to_dict() == {"train": 3, "test": 2}


def test_voc2012_with_its_download(tmp_path):
    result = tmp_path / "made" / "VOCdevkit" / "VOC2012"
    make_voc(result, {"train": ["2008_000008", "2008_000015"], "val": ["2008_000002"]}, VOC_CLASSES.split())
    archive = tmp_path / "served" / "VOCtrainval_11-May-2012.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        tar.add(result, "VOCdevkit/VOC2012")
    settings = preset("voc2012", **{"explain.kind": "maps", "explain.num_maps": 2})
    (entry,) = settings["dataset"]["download"]["archives"]
    assert entry["url"].endswith(f"/{archive.name}") and entry["digest"].startswith("md5:")
    entry["digest"] = f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}"
    with serve(archive.parent) as server:
        server.breaks = 1
        settings["dataset"]["download"]["mirror"] = server.url
        jobs = runs_to_its_end(tmp_path, "voc2012", settings, train=2, test=1)
    assert jobs["download"] == 1
    assert "Nothing to be done" in Workflow(tmp_path, settings).snakemake().stderr
    assert [expected is None for _, expected in server.requests] == [True, False]
    assert not (tmp_path / "data" / "voc2012.archives").exists()


def test_coco2014(tmp_path):
    settings = preset("coco2014")
    make_coco(tmp_path / "data" / "coco2014", settings["classes"], train=4, test=3)
    runs_to_its_end(tmp_path, "coco2014", settings, train=3, test=2)


def test_nuswide(tmp_path):
    make_nus(tmp_path / "data" / "nuswide", NUS_CONCEPTS.split(), train=3, test=2)
    (tmp_path / "data" / "nuswide" / "Flickr" / "actor" / "0050_2124494229.jpg").unlink()
    runs_to_its_end(tmp_path, "nuswide", preset("nuswide"), train=3, test=1)
