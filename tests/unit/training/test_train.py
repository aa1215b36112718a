"""Stage train: golden numbers, resuming, independence of workers."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from sewing_world import CLASSES, TRAIN, backbone, make_world, run_train, settings

from cutsew.config.method import NoSewConfig, SewConfig
from cutsew.config.networks import OpenClipStudentConfig
from cutsew.config.training import AdapterConfig as AdapterSettings
from cutsew.data.images import read_image
from cutsew.data.loader import Images
from cutsew.errors import UserError
from cutsew.method.correct import correct
from cutsew.method.crops import Square
from cutsew.method.random import torch_seed
from cutsew.method.schedule import FEWEST_STEPS, automatic_epochs, rate_factors
from cutsew.method.sew import compose, plan
from cutsew.runtime import batching
from cutsew.storage.manifest import read_manifest
from cutsew.storage.zarr_layout import label_spec
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read
from cutsew.storage.zarr_writer import write_group
from cutsew.training.features import should_cache_plain_features
from cutsew.training.sewing_plan import TrainingImages
from cutsew.training.sewn_dataset import EpochSampler, SewnDataset, collate, steps_per_epoch
from cutsew.training.trainer import NAME, Checkpoint, Trainer, new_adapter


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    return run_train(world, tmp_path_factory.mktemp("out"), settings()).parent


def z_of(folder: Path, name="refined.zarr"):
    return read(array_of(open_group(folder / name), "z"))


def assert_same(one: Path, other: Path):
    first, second = (load_file(folder / "adapter.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert np.array_equal(z_of(one), z_of(other))
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()


# Golden numbers


def test_golden(trained):
    history = pd.read_csv(trained / "history.csv")
    assert list(history.columns) == ["step", "epoch", "m_loss", "e_loss", "lr_adapter", "lr_estimator"]
    assert history["step"].tolist() == [0, 1, 2, 3, 4, 5]
    assert history["epoch"].tolist() == [0, 0, 0, 1, 1, 1]
    assert history["lr_adapter"].tolist() == [0.001] * 6
    assert history["lr_estimator"].tolist() == [0.01] * 6
    assert history["m_loss"].tolist() == pytest.approx(GOLDEN_M, abs=1e-4)
    assert history["e_loss"].tolist() == pytest.approx(GOLDEN_E, abs=1e-4)
    assert z_of(trained)[:3].ravel().tolist() == pytest.approx(GOLDEN_Z, abs=1e-4)


GOLDEN_M = [0.785027, 0.77974, 0.738609, 0.719305, 0.823214, 0.758598]
GOLDEN_E = [1.094587, 0.921226, 0.968524, 0.817676, 1.041975, 1.000306]
GOLDEN_Z = [0.102923, -0.099915, -1.376525, -0.128802, -3.137314, 1.611662, -1.335608, 1.651532, -0.74268]


def test_it_does_what_algorithm_1_says(world, tmp_path):
    """The same training written down plainly: a dense AdamW over adapter, decoder and all rows of Z."""
    changes = {"lr_decoder": 5e-4, "schedule": "cosine", "warmup": 0.2, "em_weight": 0.5, "weight_decay": 0.1}
    out = run_train(world, tmp_path, settings(**{f"train__{name}": value for name, value in changes.items()})).parent
    images = read_manifest(world / "images.parquet", split="train")
    sizes, digests = images[["width", "height"]].to_numpy(np.int64), images["digest"].tolist()
    pool = np.array(sorted({images["row"].tolist().index(r) for r in patch_rows(world)}), np.int64)
    z = torch.nn.Parameter(torch.from_numpy(z_of(world, "fused.zarr")[images["row"]]))
    tower, adapter = backbone(OpenClipStudentConfig()), start_adapter().train()
    decoder = list(adapter.decoder.parameters())
    rest = [w for name, w in adapter.named_parameters() if not name.startswith("decoder.")]
    groups = [{"params": rest}, {"params": decoder}, {"params": [z]}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.1)
    factors = rate_factors(6, "cosine", 0.2)
    for number in range(6):
        image_rows, used = [], []
        for _, i in next(EpochSampler(TRAIN, 4, 2, 9).batches([number])):
            drawn = plan(i, digests[i], pool, sizes, seed=9, epoch=number // 3, **SEWING)
            overlays = [read_image(Path(images["path"][j])) for j in drawn.overlays]
            sewn = compose(read_image(Path(images["path"][i])), overlays, drawn.boxes)
            image_rows.append(
                torch.from_numpy(np.array(sewn.resize((16, 16), Image.Resampling.BICUBIC))).permute(2, 0, 1)
            )
            used.append([i, *drawn.overlays.tolist()])
        torch.manual_seed(torch_seed(9, "step", number))
        p = adapter(tower(torch.stack(image_rows)))
        label = torch.stack([z[rows].max(dim=0).values for rows in used])
        bce = torch.nn.functional.binary_cross_entropy
        m = bce(torch.sigmoid(p), torch.sigmoid(label).detach())
        e = bce(torch.sigmoid(label), torch.sigmoid(p).detach())
        for group, rate in zip(optimizer.param_groups, (1e-3, 5e-4, 1e-2), strict=True):
            group["lr"] = rate * factors[number]
        optimizer.zero_grad()
        (m + 0.5 * e).backward()
        optimizer.step()
    result = start_adapter().eval()
    result.load_state_dict(load_file(out / "adapter.safetensors"))
    features = tower(torch.stack(image_rows))
    assert torch.allclose(result(features), adapter.eval()(features), atol=1e-3)
    assert np.allclose(z_of(out), z.detach().numpy(), atol=1e-4)


SEWING = {"p": 0.6, "q": 0.6, "ratio": "area", "max_overlays": 2, "at_least_one": False}


def patch_rows(world):
    return set(pd.read_parquet(world / "patches.parquet")["row"])


def start_adapter():
    return new_adapter(12, 3, AdapterSettings.model_validate(settings()["train"]["adapter"]), (4, 4), 9)


def test_queries_in_groups_learn_the_same_whatever_the_workers(world, trained, tmp_path):
    for workers in (0, 2):
        (tmp_path / str(workers)).mkdir()
        run_train(world, tmp_path / str(workers), settings(train__adapter__query_group=2), workers)
    assert_same(tmp_path / "0", tmp_path / "2")
    weights = [load_file(folder / "adapter.safetensors") for folder in (trained, tmp_path / "0")]
    assert {name: w.shape for name, w in weights[0].items()} == {name: w.shape for name, w in weights[1].items()}
    assert not torch.equal(weights[0]["queries"], weights[1]["queries"])  # the third class attends to itself alone


# What is written


def test_artifacts_fit_together(world, trained):
    images = read_manifest(world / "images.parquet", split="train")
    group = open_group(trained / "refined.zarr")
    assert labels_of(group, "image") == images["id"].tolist()
    assert labels_of(group, "class") == CLASSES
    before, after = z_of(world, "fused.zarr")[images["row"]], z_of(trained)
    assert before.shape == after.shape == (TRAIN, 3)
    assert 0 < np.abs(after - before).max() < 0.1  # six steps of at most about 0.01
    record = json.loads((trained / "adapter.json").read_text())
    assert set(record["outputs"]) == {"adapter.safetensors", "model.yaml", "history.csv"}
    sibling = json.loads((trained / "refined.json").read_text())
    assert sibling["outputs"] == {"refined.zarr": group.attrs["digest"]}
    assert record["facts"]["images"] == TRAIN
    assert not (trained / NAME).exists()


def test_zero_shot_labels_are_taken_where_there_is_no_z(world, tmp_path):
    z = z_of(world, "fused.zarr")
    coordinates = {"image": labels_of(open_group(world / "fused.zarr"), "image"), "class": CLASSES}
    write_group(world / "logits.zarr", {"zero_shot": (label_spec(*z.shape, 5), z + 1)}, coordinates, {})
    out = run_train(world, tmp_path, settings(train__em_weight=0.0), labels="logits.zarr").parent
    rows = read_manifest(world / "images.parquet", split="train")["row"]
    assert np.array_equal(z_of(out), z[rows] + 1)


def test_correct_after_lifts_the_refined_labels_once_more(world, trained, tmp_path):
    out = run_train(world, tmp_path, settings(train__correct_refined=True)).parent
    lifted, _ = correct(z_of(trained), "sqrt", 1)
    assert np.array_equal(z_of(out), lifted)


def test_em_weight_zero_keeps_the_labels(world, tmp_path):
    out = run_train(world, tmp_path, settings(train__em_weight=0.0)).parent
    images = read_manifest(world / "images.parquet", split="train")
    assert np.array_equal(z_of(out), z_of(world, "fused.zarr")[images["row"]])
    assert pd.read_csv(out / "history.csv")["lr_estimator"].tolist() == [0] * 6


def test_the_held_out_images_are_never_opened(world, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Images, "read", lambda self, path, old=Images.read: seen.append(path) or old(self, path))
    run_train(world, tmp_path, settings())
    test = read_manifest(world / "images.parquet", split="test")["path"]
    assert seen
    assert not set(seen) & set(test)


def test_learning_moves_the_student_towards_the_labels(world, tmp_path):
    chosen = settings(train__epochs=40, train__lr_adapter=0.01, train__em_weight=0.0, sew={"kind": "none"})
    history = pd.read_csv(run_train(world, tmp_path, chosen).with_name("history.csv"))
    assert history["m_loss"].tail(3).mean() < history["m_loss"].head(3).mean() - 0.05


def test_the_decoder_has_its_own_rate(world, tmp_path, trained):
    out = run_train(world, tmp_path, settings(train__lr_decoder=1e-12)).parent
    slow, fast = load_file(out / "adapter.safetensors"), load_file(trained / "adapter.safetensors")
    name = "decoder.layers.0.linear1.weight"
    start = start_adapter().state_dict()[name]
    assert torch.allclose(slow[name], start, atol=1e-6)
    assert (fast[name] - start).abs().max() > 1e-3


# Independence of how the work is done


@pytest.mark.parametrize("workers", [1, 2])
def test_the_result_does_not_depend_on_workers(world, tmp_path, workers):
    chosen = settings(train__strong_weight=0.7)
    run_train(world, tmp_path / "0", chosen)
    run_train(world, tmp_path / "n", chosen, workers)
    assert_same(tmp_path / "0", tmp_path / "n")


def test_the_result_does_not_depend_on_threads(world, tmp_path, trained):
    batching.worker_pool.cache_clear()
    torch.set_num_threads(2)
    out = run_train(world, tmp_path, settings()).parent
    assert torch.get_num_threads() == 1  # the others are steadily's own
    assert_same(trained, out)


def test_training_leaves_torchs_generator_alone(world, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run_train(world, tmp_path, settings(train__epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"sew": {"kind": "none"}}, True),
        ({"train__epochs": 5}, True),
        ({"train__epochs": 1}, False),
        ({"sew__at_least_one": True}, False),
    ],
)
def test_features_of_plain_images_are_computed_once(world, tmp_path, monkeypatch, changes, kept):
    """CachePolicy features changes how often the backbone runs and nothing else."""
    from cutsew.models.backbones import Backbone

    calls = []
    forward = Backbone.forward
    monkeypatch.setattr(Backbone, "forward", lambda self, x: calls.append(len(x)) or forward(self, x))
    chosen = settings(**changes)
    run_train(world, tmp_path / "a", chosen)
    computed, shown = sum(calls), chosen["train"]["epochs"] * TRAIN
    if "sew" in changes:
        assert computed == TRAIN
    calls.clear()
    monkeypatch.setattr("cutsew.training.features.should_cache_plain_features", lambda *_: not kept)
    run_train(world, tmp_path / "b", chosen)
    if kept:
        assert sum(calls) == shown > computed
    assert_same(tmp_path / "a", tmp_path / "b")


def test_when_features_are_kept():
    sew = SewConfig()  # p = 0.6: two images of five stay plain
    assert not should_cache_plain_features(10, 100, 2, sew)
    assert should_cache_plain_features(10, 100, 3, sew)
    assert not should_cache_plain_features(10**9, 100, 3, sew)
    assert not should_cache_plain_features(10, 100, 1, NoSewConfig())
    assert should_cache_plain_features(10, 100, 2, NoSewConfig())
    assert not should_cache_plain_features(10, 100, 50, SewConfig(at_least_one=True))


# Resuming


class KilledError(Exception):
    pass


def kill_at(monkeypatch, number):
    step = Trainer.training_step

    def killed(self, batch):
        if len(self.losses) == number:
            raise KilledError
        return step(self, batch)

    monkeypatch.setattr(Trainer, "training_step", killed)


@pytest.mark.parametrize("strong", [0.0, 0.7])
@pytest.mark.parametrize("numbers", [(0,), (1, 4), (3,), (2, 3, 5)])
def test_killed_at_any_step_it_ends_the_same(world, trained, tmp_path, monkeypatch, numbers, strong):
    chosen = settings(train__strong_weight=strong)
    reference = trained if strong == 0 else run_train(world, tmp_path / "through", chosen).parent
    for number in numbers:
        with monkeypatch.context() as patch:
            kill_at(patch, number)
            with pytest.raises(KilledError):
                run_train(world, tmp_path / "out", chosen)
        assert (tmp_path / "out" / NAME).exists() == (number > 0)
        assert not (tmp_path / "out" / "adapter.safetensors").exists()
    taken = []
    step = Trainer.training_step
    monkeypatch.setattr(
        Trainer, "training_step", lambda self, batch: taken.append(len(self.losses)) or step(self, batch)
    )
    run_train(world, tmp_path / "out", chosen)
    assert taken == list(range(numbers[-1], 6))  # nothing is done twice
    assert_same(reference, tmp_path / "out")


def test_killed_between_checkpoints_it_repeats_the_steps_since(world, trained, tmp_path, monkeypatch):
    chosen = settings()
    turns = itertools.cycle([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "due", lambda self: next(turns))
        kill_at(patch, 5)
        with pytest.raises(KilledError):
            run_train(world, tmp_path, chosen)
    assert len(torch.load(tmp_path / NAME, weights_only=True)["losses"]) == 4
    assert_same(trained, run_train(world, tmp_path, chosen).parent)


def test_killed_by_sigkill_it_ends_the_same(world, trained, tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sewing_world import run_train, settings\n"
        "from cutsew.training import trainer as checkpoint\n"
        "save = checkpoint.Checkpoint.save\n"
        "def killed(self, state):\n"
        "    if len(state['losses']) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(self, state)\n"
        "checkpoint.Checkpoint.save = killed\n"
        "run_train(Path(sys.argv[1]), Path(sys.argv[2]), settings())\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2] / "support"),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(world), str(tmp_path)], env=environment, check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / NAME).exists()
    assert_same(trained, run_train(world, tmp_path, settings()).parent)


@pytest.mark.parametrize("spoil", ["settings", "damage"])
def test_a_foreign_or_damaged_checkpoint_is_ignored(world, trained, tmp_path, monkeypatch, caplog, spoil):
    caplog.set_level("INFO")
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(KilledError):
            run_train(world, tmp_path, settings(train__lr_adapter=0.5) if spoil == "settings" else settings())
    if spoil == "damage":
        (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:100])
    assert_same(trained, run_train(world, tmp_path, settings()).parent)
    assert "training starts over" in caplog.text


# Batches


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_holds_every_image_once_and_no_lone_one(images, batch_size, epoch):
    per_epoch = steps_per_epoch(images, batch_size)
    sampler = EpochSampler(images, batch_size, epoch + 1, 9)
    result = list(sampler.batches(range(epoch * per_epoch, len(sampler))))
    assert sorted(key for keys in result for key in keys) == [(epoch, index) for index in range(images)]
    assert len(result) == per_epoch == sampler.steps_per_epoch
    assert max(map(len, result)) <= batch_size + 1
    if batch_size > 1 and images > 1:
        assert min(map(len, result)) > 1


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 3), st.data())
def test_any_steps_have_the_keys_that_all_steps_have(images, batch_size, epochs, data):
    sampler = EpochSampler(images, batch_size, epochs, 9)
    every = list(sampler.batches(range(len(sampler))))
    steps = sorted(data.draw(st.sets(st.integers(0, len(every) - 1))))
    assert list(sampler.batches(steps)) == [every[step] for step in steps]
    for step, keys in enumerate(every):
        epoch, start, stop = sampler.span(step)
        assert {epoch} == {key[0] for key in keys} and stop - start == len(keys)


def test_sources_are_background_overlays_and_background_as_padding(world):
    images = read_manifest(world / "images.parquet", split="train")
    sizes = images[["width", "height"]].to_numpy(dtype=np.int64)
    pool = np.array([0, 3, 7, 8], np.int64)
    training = TrainingImages(images["path"].tolist(), images["digest"].tolist(), sizes, pool)
    dataset = SewnDataset(training, SewConfig(), Square(16, "bicubic"), 9, strong=False, skip_plain=True, workers=0)
    items = [dataset[0, place] for place in range(TRAIN)]
    counts = set()
    for place, item in enumerate(items):
        overlays = plan(place, training.digests[place], pool, sizes, seed=9, epoch=0, **SEWING).overlays.tolist()
        counts.add(len(overlays))
        assert item.sources.tolist() == [place, *overlays, *[place] * (2 - len(overlays))]
        assert (item.weak is None) == (overlays == [])
    assert counts == {0, 1, 2}
    batch = collate(items)
    assert batch.weak.shape == (int(batch.has_weak.sum()), 3, 16, 16)


def test_the_image_cache_stays_within_its_budget(world):
    paths = read_manifest(world / "images.parquet")["path"].tolist()
    cache = Images(budget=5000)
    for path in paths * 2:
        cache.read(path)
        held = sum(image.width * image.height * 3 for image in cache._kept.values())
        assert held == cache._held <= 5000
    assert len(cache._kept) >= 1
    assert cache.read(paths[-1]) is cache.read(paths[-1])


# Bad input


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_one_line_whatever_the_workers(tmp_path, workers):
    world = make_world(tmp_path / "world")
    (tmp_path / "world" / "image00.bmp").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"image00\.bmp: not an image") as caught:
        run_train(world, tmp_path / "out", settings(), workers)
    assert "\n" not in str(caught.value)


def test_a_image_that_changed_its_size_is_refused(tmp_path):
    world = make_world(tmp_path / "world")
    Image.new("RGB", (5, 5)).save(tmp_path / "world" / "image00.bmp")
    with pytest.raises(UserError, match=r"image00\.bmp: its size differs from the manifest's"):
        run_train(world, tmp_path / "out", settings(sew__at_least_one=True))


def test_wrong_inputs_are_refused(world, tmp_path):
    chosen = settings()
    chosen["classes"] = ["ant", "bee", "dog"]
    with pytest.raises(UserError, match=r"fused\.zarr: its classes are not those of the settings"):
        run_train(world, tmp_path, chosen)
    with pytest.raises(UserError, match=r"student\.kind: none has nothing to train"):
        run_train(world, tmp_path, settings(student={"kind": "none"}))


def test_patches_of_held_out_images_are_refused(tmp_path):
    world = make_world(tmp_path / "world")
    table = pd.read_parquet(world / "patches.parquet")
    table["row"] = 1  # held out
    table.to_parquet(world / "patches.parquet", index=False)
    with pytest.raises(UserError, match=r"patches\.parquet: has images that are not in the training split"):
        run_train(world, tmp_path / "out", settings())


def test_a_loss_that_diverges_is_told(world, tmp_path):
    with pytest.raises(UserError, match=r"train\.lr_adapter: the loss is not finite at step \d+"):
        run_train(world, tmp_path, settings(train__lr_adapter=1e30, train__epochs=4))


def test_the_test_backbone_is_frozen():
    assert not any(weight.requires_grad for weight in backbone(OpenClipStudentConfig()).parameters())


def test_automatic_epochs_give_enough_steps():
    assert [automatic_epochs(steps) for steps in (1, 19, 75, 800, 5000)] == [800, 43, 11, 1, 1]


def test_automatic_epochs_are_resolved_and_recorded(world, tmp_path, monkeypatch):
    monkeypatch.setattr("cutsew.method.schedule.LEAST_STEPS", 5)
    out = run_train(world, tmp_path, settings(train__epochs="auto")).parent
    assert len(pd.read_csv(out / "history.csv")) == 6  # two epochs of three steps
    assert json.loads((out / "adapter.json").read_text())["facts"]["sewn_epochs"] == 2


def test_a_training_of_few_steps_is_warned_of(world, tmp_path, caplog, monkeypatch):
    run_train(world, tmp_path, settings())
    steps = json.loads((tmp_path / "adapter.json").read_text())["facts"]["steps"]
    assert steps < FEWEST_STEPS and f"trained for {steps} steps only" in caplog.text
    caplog.clear()
    monkeypatch.setattr("cutsew.stages.train.FEWEST_STEPS", steps)
    tmp_path.joinpath("other").mkdir()
    run_train(world, tmp_path / "other", settings())
    assert "steps only" not in caplog.text
