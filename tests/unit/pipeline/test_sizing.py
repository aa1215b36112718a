"""What a job asks a cluster for grows with its work and never with a result."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutsew.config import load
from cutsew.errors import UserError
from cutsew.pipeline.memory_check import _lacks as lacks
from cutsew.pipeline.memory_check import check_memory
from cutsew.pipeline.network_work import WORK
from cutsew.pipeline.sizing import (
    BLOCK_BYTES,
    IMAGES_AT_ONCE,
    SLACK_MINUTES,
    SLICE_BYTES,
    TARGETS_BYTES,
    Job,
    estimate_memory_mb,
    estimate_runtime_min,
    head_megabytes,
)
from cutsew.runtime.machine import _limits as limits
from cutsew.runtime.machine import usable_memory_mb
from cutsew.stages import targets
from cutsew.storage import predictions

PAPER = load({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": "x", "name": "x"}})
STAGES = st.sampled_from(
    ["text", "encode", "tagclip", "train", "predict", "explain", "score", "fuse", "import_scores", "tiny_clip"]
    + ["manifest", "truth", "seal", "seal_tagclip", "targets", "override", "corrections", "reference_labels"]
    + ["correct", "select", "thresholds", "labels_table", "evaluate", "report", "demo_world", "download"]
)


ALL = {"adapter": {"query_group": 30_000}}
"""All queries attend to each other, however many there are."""


def of(classes, **changes):
    """Settings of the paper with so many classes."""
    dataset = {"kind": "folder", "root": "x", "shard_size": 4096}
    raw = {"classes": [f"c{i}" for i in range(classes)], "dataset": dataset, **changes}
    return load(raw)


TRAINED = [  # classes, batch, settings of the adapter, strong_weight, side of the input; measured MB above the start
    (20, 16, {}, 0.0, 448, 415),
    (80, 16, {}, 0.0, 448, 536),
    (300, 16, {}, 0.0, 448, 1129),
    (600, 8, {}, 0.0, 448, 1403),
    (600, 16, {}, 0.0, 448, 2394),
    (1203, 8, {}, 0.0, 448, 3552),
    (600, 8, {"layers": 1}, 0.0, 448, 832),
    (600, 8, {"layers": 3}, 0.0, 448, 1936),
    (600, 8, {"dropout": 0.0}, 0.0, 448, 891),
    (600, 8, {"heads": 4}, 0.0, 448, 987),
    (600, 8, {}, 0.7, 448, 2374),
    (600, 8, {}, 0.0, 640, 1680),
    (1203, 8, {"query_group": 512}, 0.0, 448, 963),
    (1203, 8, {"query_group": 256}, 0.0, 448, 604),
    (9605, 8, {"query_group": 512}, 0.0, 448, 1734),
]
START = 150
"""MB of weights, moments and libraries in those numbers; a job's request has them in PYTHON_MB."""


@pytest.mark.parametrize(("classes", "batch", "adapter", "strong", "side", "measured"), TRAINED)
def test_training_asks_for_what_was_measured(classes, batch, adapter, strong, side, measured):
    """Peak resident memory of two steps on a CPU, two threads, 2048 channels, in a process of its own."""
    train = {"batch_size": batch, "strong_weight": strong, "adapter": {"query_group": classes, **adapter}}
    student = {"open_clip": {"image_size": side}}
    config = of(classes, train=train, student=student)
    requested = START + head_megabytes(config, "train", Job(64, 1, 2, gpu=False))
    assert 0.85 * measured <= requested <= 1.3 * measured


@pytest.mark.parametrize(("classes", "measured"), [(1203, 638), (2400, 1913)])
def test_answering_asks_for_what_was_measured(classes, measured):
    """The head's answers to a batch of 32 in evaluation mode, above those of 80 classes (119 MB); two threads."""
    job = Job(64, 1, 2, gpu=False)
    requested = head_megabytes(of(classes, train=ALL), "predict", job) - head_megabytes(of(80), "predict", job)
    assert measured - 119 <= requested <= 1.4 * (measured - 119)


LIGHT = [  # stage, images, classes, passes; measured peak of the whole process in MB
    ("evaluate", 10_000, 80, 1, 414),
    ("evaluate", 250_000, 80, 1, 762),
    ("evaluate", 1_000_000, 80, 1, 1033),
    ("evaluate", 4_096, 1_203, 1, 742),
    ("evaluate", 1_024, 9_605, 1, 933),
    ("report", 10_000, 80, 1, 431),
    ("report", 100_000, 80, 1, 647),
    ("report", 4_096, 1_203, 1, 809),
    ("report", 82_081, 1_203, 1, 2010),
    ("report", 4_096, 9_605, 1, 2072),
    ("labels_table", 4_096, 9_605, 1, 1223),
    ("thresholds", 4_096, 9_605, 1, 1142),
    ("thresholds", 10_000, 80, 1, 275),
    ("thresholds", 100_000, 80, 1, 405),
    ("score", 8_192, 1_203, 20, 381),
    ("score", 4_096, 9_605, 4, 516),
    ("fuse", 82_081, 80, 20, 210),
    ("fuse", 8_192, 1_203, 20, 1330),
    ("correct", 8_192, 1_203, 1, 430),
    ("correct", 8_192, 9_605, 1, 533),
    ("select", 8_192, 9_605, 1, 520),
    ("seal", 1_000_000, 10, 1, 249),
    ("import_scores", 1_000_000, 10, 1, 550),
    ("reference_labels", 1_000_000, 10, 1, 443),
    ("truth", 1_000_000, 10, 1, 1036),
]


@pytest.mark.parametrize(("stage", "images", "classes", "passes", "measured"), LIGHT)
def test_other_stages_ask_for_what_was_measured(stage, images, classes, passes, measured):
    requested = estimate_memory_mb(of(classes), stage, Job(images, passes, 2, gpu=False))
    assert measured <= requested <= 2 * measured + 600


def test_the_report_does_not_ask_for_the_square_of_the_classes():
    few, many = (estimate_memory_mb(of(classes), "report", Job(2, 1, 2, gpu=False)) for classes in (10_000, 20_000))
    assert 0 < many - few < 1000  # 10,000 squared are 100 million pairs, of 8 bytes and more


def test_training_with_a_linear_head_or_on_a_gpu_does_not_grow_with_the_classes_squared():
    few, many = of(80), of(2_500, train=ALL)
    on_gpu = Job(1000, 1, 2, gpu=True)
    assert estimate_memory_mb(many, "train", on_gpu) - estimate_memory_mb(few, "train", on_gpu) < 100
    linear = [of(n, train={"head": "linear"}) for n in (80, 2_500)]
    requested = [estimate_memory_mb(config, "train", Job(1000, 1, 2, gpu=False)) for config in linear]
    assert requested[1] - requested[0] < 100
    assert estimate_memory_mb(many, "train", Job(1000, 1, 2, gpu=False)) > 27_000


def test_what_does_not_fit_is_refused_and_names_the_settings():
    job = Job(1000, 1, 2, gpu=False)
    assert lacks(of(80), "train", job, 25_000) is None
    text = lacks(of(2_500, train=ALL), "train", job, 25_000)
    assert text.startswith(
        "train: 2,500 classes with train.batch_size 16 need about 27.1 GB of memory, and this machine "
    )
    assert text.endswith(
        "has 25.0 GB; set train.batch_size to 14 or less, or set train.adapter.query_group to 512, or name fewer "
        "classes, or set train.head: linear"
    )
    assert lacks(of(2_500, train=ALL | {"batch_size": 14}), "train", job, 25_000) is None
    assert lacks(of(2_500, train=ALL | {"batch_size": 15}), "train", job, 25_000) is not None
    assert "batch_size to" not in lacks(of(21_841, train=ALL), "train", job, 25_000)
    assert lacks(of(9_605, train=ALL), "predict", job, 25_000).startswith(
        "predict: 9,605 classes with 2 threads need about "
    )
    for config in (of(2_500, train=ALL), of(9_605, train=ALL | {"batch_size": 1})):
        with pytest.raises(
            UserError, match=r"need about .* this machine has 25\.0 GB; .*train\.head: linear"
        ) as caught:
            check_memory(config, job, 25_000)
        assert "\n" not in str(caught.value)


def test_what_may_not_fit_draws_a_warning():
    job = Job(1000, 1, 2, gpu=False)
    assert check_memory(of(80), job, 25_000) is None
    needed = estimate_memory_mb(of(80), "train", job)
    assert check_memory(of(80), job, needed) is None
    text = check_memory(of(80), job, needed - 1)
    assert text.startswith("train may need up to ")
    assert "set train.batch_size or compute.batch_size lower, or train.head: linear" in text
    assert check_memory(of(2_500, train={"head": "linear"}), job, 25_000) is None


def test_larger_prediction_batches_ask_for_more():
    small, large = (of(80, compute={"batch_size": n}) for n in (32, 4096))
    job = Job(10_000, 1, 2, gpu=False)
    assert estimate_memory_mb(large, "predict", job) - estimate_memory_mb(small, "predict", job) > 10_000


def test_a_control_group_limits_the_machine(tmp_path):
    groups, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    (mounted / "slice" / "job").mkdir(parents=True)
    (mounted / "slice" / "memory.max").write_text("8000000000\n")
    (mounted / "slice" / "job" / "memory.max").write_text("max\n")
    groups.write_text("0::/slice/job\n")
    assert limits(groups, mounted) == ["max", "8000000000"]
    (mounted / "memory" / "job").mkdir(parents=True)
    (mounted / "memory" / "job" / "memory.limit_in_bytes").write_text("4000000000\n")
    groups.write_text("5:cpu,cpuacct:/job\n4:memory:/job\n")
    assert limits(groups, mounted) == ["4000000000"]
    assert limits(tmp_path / "none", mounted) == []
    assert 0 < usable_memory_mb() < 10**9


def test_encoding_by_hand():
    job = Job(
        4096, 10, 8, gpu=True
    )  # RN50x64 at 448: 529 GFLOP a view, 30,000 GFLOP/s; 20 ms to read an image, 8 cores
    seconds = 40960 * 529 / 30_000 + 4096 * 0.02 / 8
    assert estimate_runtime_min(PAPER, "encode", job) == SLACK_MINUTES + int(2 * seconds / 60) == 34
    assert estimate_memory_mb(PAPER, "encode", job) == 1200 + 2 * 2500 + 8 * 500 + 2000 + 4096 * 11 * 6144 // 10**6


@pytest.mark.parametrize("stage", ["encode", "tagclip", "train", "predict", "tiles", "explain"])
def test_a_slower_gpu_has_more_time_and_a_cpu_as_much_as_before(stage):
    slow, job = of(80, compute={"gpu_tflops": 5}), Job(4096, 10, 8, gpu=True)
    assert estimate_runtime_min(slow, stage, job) > 2 * estimate_runtime_min(of(80), stage, job) - SLACK_MINUTES
    on_cpu = Job(4096, 10, 8, gpu=False)
    assert estimate_runtime_min(slow, stage, on_cpu) == estimate_runtime_min(of(80), stage, on_cpu)


def test_a_t4_encodes_a_block_within_its_first_time_limit():
    """40,960 views of 529 GFLOP at 5 TFLOP/s take 72 minutes (no T4 was at hand)."""
    job = Job(4096, 10, 8, gpu=True)
    assert estimate_runtime_min(of(2, compute={"gpu_tflops": 5}), "encode", job) > 72


@pytest.mark.parametrize(("classes", "measured"), [(1203, 5.9 / 8), (20, 0.064 / 16)])
def test_the_adapters_own_steps_have_time_where_the_backbone_takes_little(classes, measured):
    """Seconds per image of a step on two cores: 1,203 classes on features of 2,048 channels, and the demo."""
    tiny = {"student": {"open_clip": {"model": "cutsew-tiny", "image_size": 448}}}
    job = Job(100_000, 1, 2, gpu=False)
    minutes = estimate_runtime_min(of(classes, **tiny), "train", job)
    assert minutes > SLACK_MINUTES + 100_000 * measured / 60


def test_a_training_on_a_gpu_has_time_to_launch_its_kernels():
    """75 ms a step were measured on an H200 whose workers had all cores."""
    tiny = {"student": {"open_clip": {"model": "cutsew-tiny", "image_size": 64}}, "train": {"batch_size": 2}}
    assert estimate_runtime_min(of(2, **tiny), "train", Job(100_000, 1, 16, gpu=True)) > 50_000 * 0.075 / 60


def test_scoring_and_fusing_by_hand_and_their_memory_does_not_grow_with_the_images():
    for images in (10, 10**6):
        job = Job(images, 20, 2, gpu=False)
        assert estimate_memory_mb(PAPER, "score", job) == 600 + 2 * 4096 * (6 * 4096 + 16 * 2) // 10**6
        assert estimate_memory_mb(PAPER, "fuse", job) == 600 + 12 * 4096 * 2 * 22 // 10**6
    assert estimate_memory_mb(PAPER, "import_scores", Job(10**6, 20, 1, gpu=False)) == 600 + 300 + 8 * 20 * 2


@given(STAGES, st.integers(1, 10**6), st.integers(1, 30), st.booleans())
def test_more_work_never_asks_for_less(stage, images, passes, gpu):
    less, more = Job(images, passes, 4, gpu), Job(2 * images, passes + 1, 4, gpu)
    assert estimate_runtime_min(PAPER, stage, less) <= estimate_runtime_min(PAPER, stage, more)
    assert 0 < estimate_memory_mb(PAPER, stage, less) <= estimate_memory_mb(PAPER, stage, more)


def test_an_encoding_jobs_memory_grows_by_its_embeddings_alone():
    few, many = (estimate_memory_mb(PAPER, "encode", Job(n, 10, 4, True)) for n in (10, 8192))
    assert many - few == pytest.approx((8192 - 10) * 11 * 3 * 2 * 1024 / 10**6, abs=2)


@pytest.mark.parametrize("teacher", [{"kind": "conse"}, {"open_clip": {"model": "nobody-knows"}}])
def test_other_teachers_have_a_size_too(teacher):
    config = load({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": "x"}, "teacher": teacher})
    job = Job(1000, 10, 4, gpu=False)
    assert (estimate_runtime_min(config, "encode", job) < 20) == (teacher.get("kind") == "conse")


def test_larger_models_ask_for_more():
    views = [WORK[name][0] for name in ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "RN50x64")]
    assert views == sorted(views)


def test_patches_by_hand():
    """1600 patches of 16 pixels are an image of 640: 35 GFLOP * (640 / 224) ** 2, and five regions of 35 each."""
    vit = {"model": "ViT-B-16", "image_size": None}
    config = load({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": "x"}, "teacher": {"open_clip": vit}})
    job = Job(4096, 1, 8, gpu=True)
    seconds = 4096 * (35 * (640 / 224) ** 2 + 5 * 35) / 30_000 + 4096 * 0.02 / 8
    assert estimate_runtime_min(config, "tagclip", job) == SLACK_MINUTES + int(2 * seconds / 60)
    assert estimate_memory_mb(config, "tagclip", job) == 1200 + 2 * 600 + 8 * (500 + 40 * 1600**2 * 4 // 10**6) + 2000


def test_the_models_own_side_and_a_timm_model_with_its_tag():
    changes = {"teacher": {"open_clip": {"model": "ViT-L-14-336", "image_size": None}}}
    changes["student"] = {"kind": "timm", "timm": {"model": "tf_efficientnet_lite0.in1k", "image_size": 448}}
    config = load({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": "x"}, **changes})
    job = Job(4096, 10, 8, gpu=True)
    seconds = 40960 * 395 / 30_000 + 4096 * 0.02 / 8
    assert estimate_runtime_min(config, "encode", job) == SLACK_MINUTES + int(2 * seconds / 60)
    assert estimate_memory_mb(config, "predict", job) == estimate_memory_mb(PAPER, "predict", job) + 2 * (30 - 480)


def test_blocks_are_those_that_the_stages_read():
    assert (BLOCK_BYTES, SLICE_BYTES, IMAGES_AT_ONCE, TARGETS_BYTES) == (
        predictions.BLOCK_BYTES,
        predictions.SLICE_BYTES,
        predictions.IMAGES_AT_ONCE,
        targets.SAMPLE_BYTES,
    )


def test_evaluating_asks_for_little_more_than_the_names_of_many_images():
    """Logits, 4 bytes a pair or more, are never held of all images."""
    fewer, more = (estimate_memory_mb(PAPER, "evaluate", Job(n, 1, 1, gpu=False)) for n in (10**8, 2 * 10**8))
    assert more - fewer == 2 * 300 * 100
