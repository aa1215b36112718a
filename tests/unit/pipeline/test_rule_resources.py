"""What the rules' jobs ask for, from the settings and the shards."""

import re
from pathlib import Path
from types import SimpleNamespace as Wildcards

import pytest

from cutsew.data.listing import list_images
from cutsew.errors import UserError
from cutsew.pipeline import network_work, sizing
from cutsew.pipeline import rule_resources as resources
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.rule_resources import Site
from cutsew.runtime import gpus

BASE = {"classes": ["cat", "dog"]}
CPU = Site("cpu", 0, local=True)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan(*shards, **changes):
    """Plan one run, `one`, with shards of so many images."""
    result = Plan({**BASE, "runs": {"one": changes}})
    table = result.on_disk("one", "manifest") / "shards.csv"
    if shards:
        table.parent.mkdir(parents=True)
        rows = [f"{shard},{images},a,b,c" for shard, images in enumerate(shards)]
        table.write_text("\n".join(["shard,images,digest,listed,placed", *rows]) + "\n")
    return result


def workload(made, stage, block=None):
    return resources.workload(made, "one", stage, 2, block, gpu=False)


@pytest.mark.parametrize(
    ("site", "on_gpu", "requested", "occupied"),
    [
        (Site("cpu", 0, local=True), False, (0, 0), (0, 0)),
        (Site("cpu", 0, local=False), False, (0, 0), (0, 0)),
        (Site("auto", 0, local=True), False, (1, 2), (0, 0)),
        (Site("auto", 1, local=True), True, (1, 2), (1, 1)),
        (Site("cuda", 4, local=True), True, (1, 2), (1, 2)),
        (Site("auto", 0, local=False), True, (1, 2), (0, 0)),
        (Site("auto", 4, local=False), True, (1, 2), (0, 0)),
    ],
)
def test_gpus_are_requested_from_a_cluster_or_occupied_here(site, on_gpu, requested, occupied):
    assert site.computes_on_gpu == on_gpu
    assert (site.requested_gpus(), site.requested_gpus(2)) == requested
    assert (site.occupied_gpus(), site.occupied_gpus(2)) == occupied


def test_the_driver_is_not_asked_where_no_gpu_is_used(monkeypatch):
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    assert resources.visible_gpus("auto") == 2
    monkeypatch.setattr(resources, "list_visible_gpus", lambda: pytest.fail("asked"))
    assert resources.visible_gpus("cpu") == 0


def test_before_the_manifest_one_full_shard_is_assumed():
    result = plan(**{"dataset.shard_size": 7})
    assert workload(result, "train") == sizing.Job(7, 1, 2, gpu=False)
    assert workload(result, "encode") == sizing.Job(7, 11, 2, gpu=False)


@pytest.mark.parametrize(
    ("stage", "images", "passes"),
    [("encode", 4, 4), ("tagclip", 4, 1), ("train", 10, 1), ("predict", 10, 1), ("report", 10, 1)]
    + [("score", 10, 4), ("import_scores", 10, 4), ("fuse", 10, 4), ("explain", 8, 1)],
)
def test_jobs_read_a_shard_or_all_images(stage, images, passes):
    result = plan(
        4, 4, 2, **{"dataset.shard_size": 4, "cut.passes": 3, "explain.num_embeddings": 4, "explain.num_maps": 2}
    )
    assert workload(result, stage) == sizing.Job(images, passes, 2, gpu=False)


def test_a_block_of_random_crops_costs_a_view_per_pass():
    result = plan(4, **{"cut.passes": 7, "cut.passes_per_job": 3})
    assert [workload(result, "encode", block=block).passes for block in "012"] == [4, 3, 1]


TILES = {"cut.layout": "tiles", "teacher.open_clip": {"model": "ViT-B-16", "pretrained": "openai", "image_size": 224}}


def test_a_block_of_small_tiles_costs_less_than_a_view_per_pass():
    tiles = [{"grid": 2, "share": 0.5}, {"grid": 3, "share": 1 / 3, "side": 112}]
    result = plan(4, **TILES, **{"cut.tiles": tiles, "cut.passes_per_job": 8})
    # The first block: the whole image, 4 tiles of that side and 4 of a quarter of its pixels; the second: 5 of these.
    assert [workload(result, "encode", block=block).passes for block in "01"] == [6, 2]


def test_all_windows_cost_one_larger_view():
    result = plan(4, **{"cut.layout": "windows"})
    config = result.runs["one"]
    side = network_work.teacher_side(config)
    large = config.cut.view_sides(side)[1]
    passes = workload(result, "encode", block="0").passes
    assert large > side and passes - 2 < (large / side) ** 2 <= passes - 1 < config.cut.num_passes


def test_a_teacher_without_a_model_costs_nothing():
    result = plan(4, **{"teacher.kind": "scores", "teacher.scores.file": "s.npz"})
    assert workload(result, "encode", block="1").passes == 0


def test_the_block_of_a_job_is_among_its_wildcards():
    result = plan(4, **{"cut.passes": 1010, "cut.passes_per_job": 1000})
    first, last = (
        resources.minutes(result, Wildcards(run="one", **block), "encode", 2, 1, CPU) for block in ({}, {"block": "1"})
    )
    assert first > last


@pytest.mark.parametrize(
    ("function", "estimate"), [("megabytes", sizing.estimate_memory_mb), ("minutes", sizing.estimate_runtime_min)]
)
def test_each_attempt_asks_for_more(function, estimate):
    result = plan(4, 4)
    site = Site("auto", 1, local=True)
    job = sizing.Job(8, 1, 3, gpu=True)
    requested = [
        getattr(resources, function)(result, Wildcards(run="one"), "train", 3, attempt, site) for attempt in (1, 2, 3)
    ]
    assert requested == [n * estimate(result.runs["one"], "train", job) for n in (1, 2, 3)]


def test_memory_of_trainings_is_checked_before_they_run(monkeypatch):
    result = plan(100, **{"train.seed": 1})
    runs = ("default", "one")
    monkeypatch.setattr(resources, "usable_memory_mb", lambda: 10**6)
    assert resources.check_training_memory(result, runs, CPU) == []
    monkeypatch.setattr(resources, "usable_memory_mb", lambda: 1000)
    warnings = resources.check_training_memory(result, runs, CPU)
    assert len(warnings) == 1 and "this machine has 1.0 GB" in warnings[0]  # the same for both runs
    assert resources.check_training_memory(result, runs, Site("cpu", 0, local=False)) == []
    monkeypatch.setattr(resources, "usable_memory_mb", lambda: 1)
    with pytest.raises(UserError, match=r"this machine has 0\.0 GB"):
        resources.check_training_memory(result, runs, CPU)
    for run in runs:
        adapter = Path("results/demo", run, "adapter.safetensors")
        adapter.parent.mkdir(exist_ok=True)
        adapter.touch()
    assert resources.check_training_memory(result, runs, CPU) == []


def test_without_a_student_no_memory_is_checked(monkeypatch):
    monkeypatch.setattr(resources, "usable_memory_mb", lambda: 1)
    result = plan(100, **{"student.kind": "none"})
    assert resources.check_training_memory(result, ["one"], CPU) == []


@pytest.mark.parametrize(
    ("images", "classes", "fits"), [(1000, 20, True), (10**8, 20, False), (1000, 9605, True), (100_000, 9605, False)]
)
def test_many_images_or_classes_do_not_fit_a_login_node(images, classes, fits):
    changes = {"classes": [f"c{n}" for n in range(classes)], "dataset.shard_size": 10**6}
    assert resources.fits_login_node(plan(images, **changes)) == fits


RULES = Path(__file__).parents[3] / "workflow" / "rules"
RULE = re.compile(r"^(?:rule|checkpoint) (\w+):\n((?:(?:    .*)?\n)+)", re.MULTILINE)


def test_every_rule_that_runs_a_command_asks_for_memory_and_time():
    rules = dict(pair for file in RULES.glob("*.smk") for pair in RULE.findall(file.read_text()))
    commands = {name: text for name, text in rules.items() if "    shell:" in text}
    assert len(commands) > 25
    for name, text in commands.items():
        assert "mem_mb=" in text and "runtime=" in text, name
    made, job = plan(4), Wildcards(run="one")
    for estimate in (resources.megabytes, resources.minutes):
        for stage in set(re.findall(rf"{estimate.__name__}\(\"(\w+)\"\)", "".join(commands.values()))):
            first, second = (estimate(made, job, stage, 2, attempt, CPU) for attempt in (1, 2))
            assert 0 < 2 * first == second, stage


def test_the_manifest_asks_for_the_images_that_the_main_process_listed():
    Path("images").mkdir()
    for i in range(30):
        Path(f"images/{i}.jpg").write_bytes(b"1")
    result = plan(**{"dataset.kind": "folder", "dataset.root": "images", "dataset.name": "counted"})
    assert workload(result, "manifest").images == result.config.dataset.shard_size
    list_images(result.runs["one"].dataset)
    assert workload(result, "manifest").images == 30
