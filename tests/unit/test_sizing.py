"""What a job asks a cluster for grows with its work and never with a result."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutsew.config import load
from cutsew.sizing import SLACK_MINUTES, WORK, Job, megabytes, minutes

PAPER = load({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": "x", "name": "x"}})
STAGES = st.sampled_from(["encode", "tagclip", "train", "predict", "explain", "score", "fuse", "import_scores"])


def test_encoding_by_hand():
    job = Job(4096, 10, 8, gpu=True)  # RN50x64 at 448: 529 GFLOP a view, 30,000 GFLOP/s; 20 ms to read a photo, 8 cores
    seconds = 40960 * 529 / 30_000 + 4096 * 0.02 / 8
    assert minutes(PAPER, "encode", job) == SLACK_MINUTES + int(2 * seconds / 60) == 34
    assert megabytes(PAPER, "encode", job) == 1200 + 2 * 2500 + 8 * 500 + 2000


def test_scoring_and_fusing_by_hand_and_their_memory_does_not_grow_with_the_photos():
    for photos in (10, 10**6):
        job = Job(photos, 20, 2, gpu=False)
        assert megabytes(PAPER, "score", job) == 600 + 2 * 4096 * (6 * 4096 + 40 * 2) // 10**6
        assert megabytes(PAPER, "fuse", job) == 600 + 32 * 4096 * 2 * 22 // 10**6
    assert megabytes(PAPER, "import_scores", Job(10**6, 20, 1, gpu=False)) == 600 + 8 * 20 * 2


@given(STAGES, st.integers(1, 10**6), st.integers(1, 30), st.booleans())
def test_more_work_never_asks_for_less(stage, photos, passes, gpu):
    less, more = Job(photos, passes, 4, gpu), Job(2 * photos, passes + 1, 4, gpu)
    assert minutes(PAPER, stage, less) <= minutes(PAPER, stage, more)
    assert 0 < megabytes(PAPER, stage, less) <= megabytes(PAPER, stage, more)


def test_an_encoding_jobs_memory_does_not_grow_with_its_photos():
    assert len({megabytes(PAPER, "encode", Job(n, 10, 4, True)) for n in (10, 10**6)}) == 1


@pytest.mark.parametrize("teacher", [{"kind": "conse"}, {"open_clip": {"model": "nobody-knows"}}])
def test_other_teachers_have_a_size_too(teacher):
    config = load({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": "x"}, "teacher": teacher})
    job = Job(1000, 10, 4, gpu=False)
    assert (minutes(config, "encode", job) < 20) == (teacher.get("kind") == "conse")


def test_larger_models_ask_for_more():
    views = [WORK[name][0] for name in ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "RN50x64")]
    assert views == sorted(views)


def test_patches_by_hand():
    """1600 patches of 16 pixels are a photo of 640: 35 GFLOP * (640 / 224) ** 2, and five regions of 35 each."""
    vit = {"model": "ViT-B-16", "image_size": None}
    config = load({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": "x"}, "teacher": {"open_clip": vit}})
    job = Job(4096, 1, 8, gpu=True)
    seconds = 4096 * (35 * (640 / 224) ** 2 + 5 * 35) / 30_000 + 4096 * 0.02 / 8
    assert minutes(config, "tagclip", job) == SLACK_MINUTES + int(2 * seconds / 60)
    assert megabytes(config, "tagclip", job) == 1200 + 2 * 600 + 8 * (500 + 40 * 1600**2 * 4 // 10**6) + 2000


def test_the_models_own_side_and_a_timm_model_with_its_tag():
    changes = {"teacher": {"open_clip": {"model": "ViT-L-14-336", "image_size": None}}}
    changes["student"] = {"kind": "timm", "timm": {"model": "tf_efficientnet_lite0.in1k", "image_size": 224}}
    config = load({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": "x"}, **changes})
    job = Job(4096, 10, 8, gpu=True)
    seconds = 40960 * 395 / 30_000 + 4096 * 0.02 / 8
    assert minutes(config, "encode", job) == SLACK_MINUTES + int(2 * seconds / 60)
    assert megabytes(config, "predict", job) == megabytes(PAPER, "predict", job) + 2 * (30 - 480)
