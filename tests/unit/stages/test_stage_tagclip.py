"""TagCLIP on a tiny vision transformer: the tower looked into, the stages, and the run that they end in."""

import json

import numpy as np
import pytest
import torch
from manifests import make_manifest_of
from PIL import Image
from tiny_models import checkpoint
from torch.nn.functional import normalize

from cutsew.audit.image import image_audit
from cutsew.audit.run import Run
from cutsew.audit.summary import summary
from cutsew.audit.text import image_lines, summary_lines
from cutsew.config import load
from cutsew.config.loading import DEFAULT
from cutsew.config.networks import parse_teacher
from cutsew.errors import UserError
from cutsew.inference.test_time_ensembles import TeacherEnsemble
from cutsew.method.ensemble import ScoreStats
from cutsew.models.clip_teacher import OpenClipTeacher
from cutsew.models.tagclip_teacher import PatchTower
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.preflight import validate_inputs
from cutsew.provenance.lineage import ProvenanceIndex
from cutsew.provenance.tree import explain, lines
from cutsew.provenance.verification import Verifier
from cutsew.stages.correct import correct
from cutsew.stages.encode import encode
from cutsew.stages.evaluate import evaluate
from cutsew.stages.fuse import fuse
from cutsew.stages.report import report
from cutsew.stages.score import score
from cutsew.stages.seal import seal
from cutsew.stages.seal_tagclip import seal_tagclip
from cutsew.stages.tagclip import tagclip
from cutsew.stages.text import text
from cutsew.storage.manifest import shard_digests
from cutsew.storage.result_tables import write_score_statistics as write_reference
from cutsew.storage.zarr_layout import tagclip_chunk_file, tagclip_chunk_record
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read

SIZES = [(70, 40), (32, 32), (40, 90), (64, 48), (200, 100)]
CLASSES = ["cat", "dog", "bus"]

LOCAL = [
    [0.2262, 0.1834, 0.1138],
    [0.0739, 0.2297, 0.2165],
    [0.1030, 0.2175, 0.2296],
    [0.0760, 0.0937, 0.2068],
    [0.1705, 0.1926, 0.2379],
]
AGAIN = [
    [0.2957, 0.3526, np.nan],
    [np.nan, 0.3460, 0.2439],
    [np.nan, 0.2930, 0.2131],
    [np.nan, np.nan, 0.2493],
    [0.2641, 0.2609, 0.2178],
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path, _ = checkpoint(tmp_path_factory.mktemp("weights"), "test-vit")
    return path


def raw(weights, shard_size=2, **tagclip):
    chosen = {"patches": 20, "blocks": 1, "votes": 1, "candidates": 0.5, "background": ["sky", "Dog"], **tagclip}
    return {
        "classes": CLASSES,
        "dataset": {"kind": "folder", "root": "images", "shard_size": shard_size},
        "teacher": {"open_clip": {"model": "test-vit", "pretrained": str(weights), "image_size": None}},
        "score": {"rule": "tagclip", "tagclip": chosen},
        "student": {"kind": "none"},
    }


def build(weights, model="test-vit"):
    section = {"model": model, "pretrained": str(weights), "image_size": None}
    return OpenClipTeacher(parse_teacher({"open_clip": section}), "cpu")


def pixels(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.manual_seed(seed))


def test_a_look_is_the_tower_with_each_token_alone_in_the_last_block(weights):
    teacher = build(weights)
    image = pixels(3, 32, 32)
    patches, attention = PatchTower(teacher, "test-vit", "float32").encode_patches(image)
    visual = teacher.visual
    first, last = visual.transformer.resblocks
    alone = torch.full((5, 5), -torch.inf).fill_diagonal_(0)
    with torch.no_grad():
        tokens = visual._embeds(teacher.pixels(image[None]))
        inside = first.ln_1(tokens)
        expected = first.attn(inside, inside, inside, need_weights=True)[1][:, 1:, 1:]
        out = visual.ln_post(last(first(tokens), attn_mask=alone)) @ visual.proj
    torch.testing.assert_close(attention, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(patches, normalize(out[0, 1:], dim=-1), rtol=0, atol=1e-6)


def test_a_image_of_another_shape_has_as_many_patches(weights):
    patches, attention = PatchTower(build(weights), "test-vit", "tf32").encode_patches(pixels(3, 48, 80))
    assert patches.shape == (15, 24) and attention.shape == (1, 15, 15)
    assert (attention.sum(dim=-1) < 1).all()  # the class token has a share


def test_asking_is_the_teachers_own_answer_where_all_is_seen_and_none_where_nothing_is(weights):
    teacher = build(weights)
    tower, views = PatchTower(teacher, "test-vit", "tf32"), pixels(2, 3, 32, 32)
    with torch.no_grad():
        seen = tower.encode_masked(views.float(), torch.ones(2, 4, dtype=torch.bool))
        unseen = tower.encode_masked(views.float(), torch.zeros(2, 4, dtype=torch.bool))
        corner = torch.tensor([[True, False, False, False]] * 2)
        some = tower.encode_masked(views.float(), corner)
    torch.testing.assert_close(seen, teacher.embed_images(views), rtol=0, atol=1e-6)
    torch.testing.assert_close(unseen[0], unseen[1])
    assert (some - seen).abs().max() > 1e-3 and (some[0] - some[1]).abs().max() > 1e-3


def test_in_bfloat16_the_answers_are_nearly_the_same(weights):
    teacher, image, own_values = build(weights), pixels(3, 48, 32), torch.tensor([[True, False, True, False]])
    plain, short = (PatchTower(teacher, "test-vit", precision) for precision in ("float32", "bfloat16"))
    with torch.no_grad():
        pairs = [*zip(plain.encode_patches(image), short.encode_patches(image), strict=True)]
        views = image[None, :, :32].float()
        pairs.append((plain.encode_masked(views, own_values), short.encode_masked(views, own_values)))
    for exact, near in pairs:
        assert near.dtype == torch.float32 and 0 < (exact - near).abs().max() < 0.02


def test_other_towers_are_refused_before_anything_is_loaded_and_when_built(tmp_path):
    path, _ = checkpoint(tmp_path, "test-resnet")
    line = r"^score\.rule: tagclip reads .* teacher\.open_clip\.model {} has a .*softmax$"
    with pytest.raises(UserError, match=line.format("test-resnet")):
        PatchTower(build(path, "test-resnet"), "test-resnet", "tf32")
    tagged = {"classes": CLASSES, "score": {"rule": "tagclip"}, "student": {"kind": "none"}}
    for model, tag in (("RN50x64", "openai"), ("cutsew-tiny", "demo"), ("ViT-B-16-SigLIP", "webli")):
        with pytest.raises(UserError, match=line.format(model)):
            validate_inputs(load({**tagged, "teacher": {"open_clip": {"model": model, "pretrained": tag}}}))
    validate_inputs(load({**tagged, "teacher": {"open_clip": {"model": "ViT-B-16"}}}))
    with pytest.raises(UserError, match=r"^score\.rule: tagclip needs teacher\.kind: open_clip"):
        load({**tagged, "teacher": {"kind": "conse"}})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, (width, height) in enumerate(SIZES):
        noise = np.random.default_rng(i).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def make_manifest(folder, images, shard_size):
    paths = [images / f"{i}.png" for i in range(len(SIZES))]
    splits = ["train" if i < 3 else "test" for i in range(len(SIZES))]
    return make_manifest_of(folder / "images.parquet", paths, splits, shard_size)


def run_tagclip(folder, images, weights, shard_size=2, batch_size=32, workers=0, **changes):
    settings = Plan(raw(weights, shard_size, **changes)).settings
    table = make_manifest(folder, images, shard_size)
    manifest_path, words, group = (folder / name for name in ("images.parquet", "text.zarr", "tagclip.zarr"))
    text(words, settings(DEFAULT, "text"), "cpu")
    for shard in shard_digests(table):
        tagclip(manifest_path, words, group, settings(DEFAULT, "tagclip"), shard, "cpu", batch_size, workers)
    seal_tagclip(manifest_path, words, group, settings(DEFAULT, "seal_tagclip"))
    return open_group(group)


@pytest.fixture(scope="module")
def run(tmp_path_factory, images, weights):
    """Make everything from the images to the report, in the folder of a run."""
    folder = tmp_path_factory.mktemp("tagclip") / "results" / "folder" / "default"
    run_tagclip(folder, images, weights)
    settings = Plan(raw(weights)).settings
    manifest_path, views, words, logits, scored, fused, pseudo = (
        folder / name
        for name in (
            *("images.parquet", "views.zarr", "text.zarr", "logits.zarr", "tagclip.zarr", "fused.zarr", "pseudo.zarr"),
        )
    )
    for shard in range(3):
        encode(manifest_path, views, settings(DEFAULT, "encode"), shard, device="cpu")
    seal(manifest_path, views, settings(DEFAULT, "seal"))
    score(views, words, logits, settings(DEFAULT, "score"))
    fuse(logits, fused, settings(DEFAULT, "fuse"), tagclip=scored)
    correct(fused, pseudo, settings(DEFAULT, "correct"))
    given = {"logits": logits, "fused": fused, "pseudo": pseudo}
    evaluate(manifest_path, folder / "metrics.csv", settings=settings(DEFAULT, "evaluate"), **given)
    report(folder / "report.html", metrics=folder / "metrics.csv", images=manifest_path, views=views, **given)
    return folder


def scores(group):
    return read(array_of(group, "local_score")), read(array_of(group, "global_score"))


def test_scores_are_what_they_were(run):
    """Golden: raise the stage's version in plan.py where these change."""
    local, again = scores(open_group(run / "tagclip.zarr"))
    assert local == pytest.approx(np.array(LOCAL), abs=2e-4)
    assert again == pytest.approx(np.array(AGAIN), abs=2e-4, nan_ok=True)
    result = json.loads(tagclip_chunk_record(run / "tagclip.zarr", 0).read_text())
    assert result["facts"]["background"] == 1  # Dog is a class


@pytest.mark.parametrize(("shard_size", "batch_size", "workers"), [(5, 1, 0), (3, 2, 1)])
def test_scores_do_not_depend_on_how_the_work_is_cut(run, tmp_path, images, weights, shard_size, batch_size, workers):
    result = run_tagclip(tmp_path, images, weights, shard_size, batch_size, workers)
    for ours, plain in zip(scores(result), scores(open_group(run / "tagclip.zarr")), strict=True):
        assert np.array_equal(ours, plain, equal_nan=True)


def test_no_refinement_and_no_second_look(tmp_path, images, weights):
    local, again = scores(run_tagclip(tmp_path, images, weights, blocks=0, candidates=1, background=[]))
    assert np.isnan(again).all() and (local > 0.3).all() and (local <= 1).all()  # somewhere each beats a third


@pytest.mark.parametrize(("name", "value", "there"), [("blocks", 2, 1), ("votes", 3, 2)])
def test_more_blocks_than_there_are(tmp_path, images, weights, name, value, there):
    line = rf"^score\.tagclip\.{name}: {value} of the {there} blocks; lower it$"
    with pytest.raises(UserError, match=line):
        run_tagclip(tmp_path, images, weights, **{name: value})


def test_both_answers_are_fused_and_no_crop_wins(run):
    local, again = scores(open_group(run / "tagclip.zarr"))
    fused, logits = open_group(run / "fused.zarr"), open_group(run / "logits.zarr")
    p = np.where(np.isnan(again), local, (local.astype(np.float64) + again) / 2)
    assert 1 / (1 + np.exp(-read(array_of(fused, "z")).astype(np.float64))) == pytest.approx(p, abs=1e-6)
    assert (read(array_of(fused, "winner")) == -1).all() and read(array_of(logits, "crops")).shape == (0, 5, 3)
    assert labels_of(fused, "class") == CLASSES


def test_the_rule_without_its_scores_is_refused(run, weights, tmp_path):
    with pytest.raises(UserError, match=r"--tagclip"):
        fuse(run / "logits.zarr", tmp_path / "fused.zarr", Plan(raw(weights)).settings(DEFAULT, "fuse"))
    assert not list(tmp_path.iterdir())


def test_new_images_are_not_asked_about_crops_that_the_run_never_fused(run):
    stats = ScoreStats(np.zeros(3), np.ones(3))
    write_reference(run / "ensemble.csv", CLASSES, {"student": stats, "teacher": stats})
    with pytest.raises(
        UserError, match=r"^--ensemble: .* fused tagclip's scores, and new images are scored by crops; omit it$"
    ):
        TeacherEnsemble(run, CLASSES, "cpu", 4)
    (run / "ensemble.csv").unlink()


def test_report_and_audit_tell_of_it(run):
    assert "<html" in (run / "report.html").read_text()
    result = Run(run)
    reported = image_audit(result, "0")
    assert reported["fusion"] == {"rule": "tagclip", "weight": 0.5} and not any(
        view["fused"] for view in reported["views"]
    )
    local, again = scores(open_group(run / "tagclip.zarr"))
    for row in reported["classes"]:
        c = CLASSES.index(row["class"])
        assert row["best_patch"] == pytest.approx(local[0, c])
        assert (row["second_look"] is None) == bool(np.isnan(again[0, c]))
    drawn = list(image_lines(reported))
    assert any(line.split()[:1] == ["class"] and "best patch" in line and "second look" in line for line in drawn)
    assert any("fused" in line for line in summary_lines(summary(result)))


def test_records_lead_from_the_fusion_to_the_images_and_verify_notices_a_flipped_bit(run):
    drawn = "\n".join(lines(explain(run / "fused.zarr", ProvenanceIndex())))
    assert "tagclip.zarr: seal_tagclip v1" in drawn and "tagclip v3 (and 2 more jobs" in drawn
    record = explain(tagclip_chunk_file(run / "tagclip.zarr", "global_score", 1), ProvenanceIndex())
    assert record.facts["stage"] == "tagclip"
    result = [
        finding for finding in Verifier(ProvenanceIndex()).findings(run) if "images.parquet" not in str(finding.path)
    ]
    assert result == []
    chunk = tagclip_chunk_file(run / "tagclip.zarr", "local_score", 1)
    before = chunk.read_bytes()
    try:
        chunk.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        wrong = {finding.path: finding.target for finding in Verifier(ProvenanceIndex()).findings(run)}
        assert wrong[chunk] == chunk
        tagclip_chunk_record(run / "tagclip.zarr", 1).rename(run / "kept")
        wrong = [finding.wrong for finding in Verifier(ProvenanceIndex()).findings(run) if finding.path == chunk]
        assert wrong == ["has no record of its TagCLIP job"]
    finally:
        chunk.write_bytes(before)
        (run / "kept").rename(tagclip_chunk_record(run / "tagclip.zarr", 1))
