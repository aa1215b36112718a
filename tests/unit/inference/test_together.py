"""Student and teacher together on new images: what the workflow says of the same images."""

import json
from pathlib import Path

import numpy as np
import pytest
from sewing_world import CLASSES, backbone, make_world, run_train, settings

from cutsew.config.cutting import RandomCropsConfig
from cutsew.config.networks import parse_teacher
from cutsew.errors import UserError
from cutsew.inference.classifier import open_classifier
from cutsew.inference.new_images import PredictOptions
from cutsew.inference.new_images import predict as look
from cutsew.inference.test_time_ensembles import TeacherEnsemble
from cutsew.method.score import sigmoid
from cutsew.models import teachers
from cutsew.pipeline.fusing import FOUND
from cutsew.provenance.record import Record
from cutsew.stages import ensemble, predict
from cutsew.stages.encode import encode
from cutsew.stages.fuse import fuse
from cutsew.stages.score import score
from cutsew.stages.seal import seal
from cutsew.storage import result_tables as table
from cutsew.storage.manifest import read_manifest
from cutsew.storage.zarr_layout import ArraySpec
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.storage.zarr_writer import write_group

TINY = {"kind": "open_clip", "open_clip": {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 96}}
CUT = RandomCropsConfig(passes=3, passes_per_job=3).model_dump(mode="json")
GRID = {"layout": "windows", "windows": {"scale": 1, "share": 0.34, "per_side": 3, "whole": "grid"}}
EPSILON = {"score": {"epsilon": 1e-6}}


@pytest.fixture(
    scope="module",
    params=[
        ({"rule": "soft", "soften": "auto"}, CUT, 3),
        ({"rule": "standard"}, CUT, 3),
        ({"rule": "soft", "soften": "auto"}, GRID, 9),
    ],
    ids=["soft", "standard", "grid"],
)
def world(tmp_path_factory, request):
    """A run with a real teacher: its crops encoded, scored and fused, a student, and both together."""
    fusion, cut, passes = request.param
    folder = make_world(tmp_path_factory.mktemp("together"))
    images, shards = folder / "images.parquet", range(3)
    chosen = {"teacher": TINY, "cut": cut, "dataset": {"shard_size": 5}}
    for shard in shards:
        encode(images, folder / "views.zarr", chosen, shard, block=0, passes=passes, device="cpu")
    seal(images, folder / "views.zarr" / "zarr.json", chosen)
    teacher = teachers.build(parse_teacher(TINY), "cpu")
    texts = teacher.embed_texts([f"a photo of a {name}" for name in ("cat", "dog", "bus")]).numpy()
    words = {"weights": teacher.weights_digest, "logit_scale": teacher.logit_scale}
    write_group(
        folder / "text.zarr",
        {"text": (ArraySpec(texts.shape, "float32", ("class", "embedding"), texts.shape), texts)},
        {"class": CLASSES},
        words,
    )
    Record("text", 1, {}).write_beside(folder / "text.zarr")
    score(folder / "views.zarr", folder / "text.zarr", folder / "logits.zarr", EPSILON)
    rule = {"fuse": fusion | {"passes": 2}}
    fuse(folder / "logits.zarr", folder / "fused.zarr", rule | EPSILON)
    adapter = run_train(folder, folder, settings(train__epochs=1))
    predict.run(images, adapter, folder / "scores.zarr", "cpu", 4, 0, build=backbone)
    given = (folder / f"{name}.zarr" for name in ("ensemble", "scores", "fused", "logits"))
    out, *zarrs = given
    ensemble.run(images, adapter, out, {"fuse": {"passes": 2}}, *zarrs, "cpu", 4, 0, build=backbone)
    return folder


def test_new_images_are_told_what_held_out_ones_are(world, tmp_path):
    images = read_manifest(world / "images.parquet", split="test")
    expected = sigmoid(read(array_of(open_group(world / "ensemble.zarr"), "z")).astype(float))
    together = TeacherEnsemble(world, CLASSES, "cpu", 2)
    assert together.views == 3
    student = open_classifier(world, "cpu", backbone)
    for path, row in zip(images["path"], expected, strict=True):
        for name, how in (("both", PredictOptions(together=together)), ("alone", PredictOptions())):
            look(Path(path), student, tmp_path / f"{name}.csv", how)
        both, alone = ((tmp_path / f"{name}.csv").read_text().splitlines() for name in ("both", "alone"))
        assert [float(x) for x in both[1].split(",")[2:]] == pytest.approx(row.tolist(), abs=2e-3)
        assert both[0] == alone[0] and both[1] != alone[1]


def test_runs_without_an_ensemble_or_a_teacher_are_refused(world, tmp_path):
    with pytest.raises(UserError, match=r"--ensemble: .* has no ensemble\.csv; run it with predict\.ensemble: teacher"):
        TeacherEnsemble(tmp_path, CLASSES, "cpu", 2)
    (tmp_path / "ensemble.csv").write_bytes((world / "ensemble.csv").read_bytes())
    with pytest.raises(UserError, match="its classes are not the model's"):
        TeacherEnsemble(tmp_path, ["other"], "cpu", 2)
    for name in ("images.parquet", "logits.zarr"):
        (tmp_path / name).symlink_to(world / name)
    with pytest.raises(UserError, match="has no teacher that can score new images"):
        TeacherEnsemble(tmp_path, CLASSES, "cpu", 2)


def test_a_record_without_the_number_that_its_fusion_rule_needs_is_refused(world):
    path = world / "fused.json"
    before = path.read_text()
    content = json.loads(before)
    name = FOUND[content["settings"]["fuse"]["rule"]]
    assert content["facts"].pop(name) != 0
    path.write_text(json.dumps(content))
    try:
        with pytest.raises(UserError, match=rf"fused\.json: has no field {name}, so it was written by another version"):
            TeacherEnsemble(world, CLASSES, "cpu", 2)
    finally:
        path.write_text(before)


def test_a_teacher_that_is_preprocessed_in_another_way_than_in_the_run_is_refused(world):
    described = world / "views.zarr" / "zarr.json"
    before = described.read_text()
    changed = json.loads(before)
    changed["attributes"]["preprocessing"]["interpolation"] = "bilinear"
    described.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"views\.zarr: encoded with other preprocessing than the teacher's; delete it"):
        TeacherEnsemble(world, CLASSES, "cpu", 2)
    described.write_text(before)


def test_the_table_is_read_as_it_was_written(tmp_path):
    stats = {m: table.ScoreStats(np.array([1.0, 2.5]), np.array([0.5, 0.0])) for m in table.MODELS[table.ENSEMBLE]}
    table.write_score_statistics(tmp_path / "ensemble.csv", ["a", "b"], stats)
    result = table.read_score_statistics(tmp_path / "ensemble.csv", ["a", "b"])
    assert all(np.array_equal(result[name], stats[name]) for name in stats)
    (tmp_path / "ensemble.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table of score statistics"):
        table.read_score_statistics(tmp_path / "ensemble.csv", ["a", "b"])
