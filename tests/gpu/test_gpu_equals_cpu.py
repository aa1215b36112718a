"""What runs on a GPU, against the CPU on the same inputs.

Each check runs on a fake device, which refuses mixed devices and counts synchronizations, and, with `make gpu`, on a
real one. A real GPU rounds differently from a CPU, so the bars are tolerances.
"""

import contextlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from fake_gpu import DeviceMismatchError, FakeGpu, fake_gpu
from safetensors.torch import load_file
from sewing_world import CLASSES, TRAIN, backbone, make_world, run_train, settings
from tiny_models import checkpoint
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cutsew.commands import export
from cutsew.config.cutting import RandomCropsConfig
from cutsew.config.loading import DEFAULT
from cutsew.config.method import SewConfig
from cutsew.config.networks import OpenClipStudentConfig, parse_teacher
from cutsew.config.training import AdapterTrainingConfig
from cutsew.errors import UserError
from cutsew.inference.classifier import open_classifier
from cutsew.method.crops import Square
from cutsew.method.em import LabelTable
from cutsew.models import student, teachers
from cutsew.models.view_embedding import Look, Tower, Views, embed_views
from cutsew.pipeline.plan import Plan
from cutsew.runtime import batching
from cutsew.runtime.batching import run_each_ahead
from cutsew.stages import predict
from cutsew.stages.encode import encode
from cutsew.stages.seal_tagclip import seal_tagclip
from cutsew.stages.tagclip import tagclip
from cutsew.stages.text import text
from cutsew.storage.manifest import read_manifest, shard_digests
from cutsew.storage.zarr_layout import view_chunk_file, view_chunk_record
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.training import computed_features as computed_features_module
from cutsew.training import feature_cache
from cutsew.training.feature_cache import FeatureCache, Sizes
from cutsew.training.features import computed_features
from cutsew.training.sewing_plan import read_training_images

MODELS = ["test-resnet", "test-vit"]
LOWEST_COSINE = {"float32": 0.999999, "tf32": 0.9999, "float16": 0.9995, "bfloat16": 0.999}
EXACT = {"train__adapter__dropout": 0.0}


@dataclass
class Gpu:
    """The device of a check: `fake` is None on a real one."""

    fake: FakeGpu | None

    @contextlib.contextmanager
    def little_memory(self, model: teachers.Teacher, images: Tensor, share: float) -> Iterator[None]:
        """Leave this share of the memory that the model takes for a batch; none for 0."""
        if self.fake is not None:
            self.fake.most_rows = int(share * len(images))
            yield
            return
        torch.cuda.empty_cache()
        before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        model.embed_images(images)
        needed = torch.cuda.max_memory_allocated() - before
        batching.halving.most = None
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((reserved + share * needed) / total)
        held = [] if share else list(all_free_memory())
        try:
            yield
        finally:
            held.clear()
            torch.cuda.set_per_process_memory_fraction(1.0)

    @contextlib.contextmanager
    def synchronizations(self) -> Iterator[list[int]]:
        """Count how often the host waits for the device inside the block: the list's one number, afterwards."""
        counted = [0]
        if self.fake is not None:
            before = self.fake.counts["sync"]
            yield counted
            counted[0] = self.fake.counts["sync"] - before
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield counted
            finally:
                torch.cuda.set_sync_debug_mode("default")
            # Switching the mode on warns too, of itself.
            counted[0] = sum("called a synchronizing" in str(warning.message) for warning in caught)


def all_free_memory() -> Iterator[Tensor]:
    """Allocate what is left below the process's limit, down to the allocator's smallest block."""
    size = 2**26
    while size >= 512:
        try:
            yield torch.empty(size, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError:
            size //= 2


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request, monkeypatch):
    monkeypatch.setattr(batching, "halving", batching.OOMBatchSplitter())
    if request.param == "real":
        if not torch.cuda.is_available():
            pytest.skip("no GPU that torch can use")
        yield Gpu(None)
        return
    with fake_gpu() as fake:
        fake.tf32 = True
        yield Gpu(fake)


def views(count, side, seed=0):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.manual_seed(seed))


def section(path, precision="float32"):
    model = {"model": path.stem, "pretrained": str(path), "image_size": None}
    return {"kind": "open_clip", "precision": precision, "open_clip": model}


def teacher(path, device, precision="float32"):
    return teachers.build(parse_teacher(section(path, precision)), device)


def test_the_fake_device_refuses_what_cuda_refuses():
    with fake_gpu() as fake:
        weight = torch.ones(3, device="cuda")
        with pytest.raises(DeviceMismatchError):
            weight + torch.ones(3)
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            weight.numpy()
        assert float((weight * 2).sum()) == 6
        assert fake.counts["sync"] == 1


@pytest.mark.parametrize("precision", LOWEST_COSINE)
@pytest.mark.parametrize("name", MODELS)
def test_image_embeddings(gpu, tmp_path, name, precision):
    path, _ = checkpoint(tmp_path, name)
    expected = teacher(path, "cpu").embed_images(views(9, 64 if name == "test-resnet" else 32))
    embedded = teacher(path, "cuda", precision).embed_images(views(9, 64 if name == "test-resnet" else 32))
    assert embedded.device.type == "cpu" and embedded.dtype == torch.float32 and embedded.isfinite().all()
    assert cosine_similarity(embedded, expected).min() >= LOWEST_COSINE[precision]


@pytest.mark.parametrize("precision", LOWEST_COSINE)
def test_texts_and_maps_are_computed_in_float32_whatever_the_encoders_precision(gpu, tmp_path, precision):
    path, _ = checkpoint(tmp_path, "test-resnet")
    on_cpu, on_gpu = teacher(path, "cpu"), teacher(path, "cuda", precision)
    words = ["a photo of a cat", "a photo of a dog"]
    on_gpu.embed_images(views(2, 64))
    torch.testing.assert_close(on_gpu.embed_texts(words), on_cpu.embed_texts(words), atol=1e-5, rtol=0)
    images, classes = views(4, 64), torch.tensor([0, 1, 0, 1])
    texts = on_cpu.embed_texts(words)
    torch.testing.assert_close(
        on_gpu.maps(images, texts, classes), on_cpu.maps(images, texts, classes), atol=2e-3, rtol=0
    )


def test_the_batch_does_not_matter(gpu, tmp_path):
    path, _ = checkpoint(tmp_path, "test-resnet")
    model, images = teacher(path, "cuda"), views(64, 64)
    parts = torch.cat([model.embed_images(part) for part in torch.split(images, 7)])
    assert cosine_similarity(model.embed_images(images), parts).min() >= 0.999999


def test_a_batch_that_does_not_fit_is_halved_and_the_result_is_the_same(gpu, tmp_path, caplog):
    path, _ = checkpoint(tmp_path, "test-resnet")
    model, images = teacher(path, "cuda"), views(256, 64)
    expected = torch.cat([model.embed_images(part) for part in torch.split(images, 8)])
    with gpu.little_memory(model, images, 0.4):
        embedded = model.embed_images(images)
    assert batching.halving.most is not None and batching.halving.most < 256
    assert "do not fit into the GPU's memory" in caplog.text
    assert cosine_similarity(embedded, expected).min() >= 0.999999


def test_one_view_that_does_not_fit_is_one_line(gpu, tmp_path):
    path, _ = checkpoint(tmp_path, "test-resnet")
    model, images = teacher(path, "cuda"), views(4, 64)
    refusal = r"^compute\.batch_size: the GPU's memory .*$"
    with gpu.little_memory(model, images, 0), pytest.raises(UserError, match=refusal):
        model.embed_images(images)


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path / "world")


def encoded(world, out, path, device, **options):
    chosen = {"teacher": section(path), "cut": {"passes": 4}, "dataset": {"shard_size": 5}}
    encode(world / "images.parquet", out, chosen, shard=1, block=0, passes=4, device=device, **options)
    chunk = view_chunk_file(out, "crops", 1, 0)
    return chunk.read_bytes(), json.loads(view_chunk_record(out, 1, 0).read_text())["facts"]


def test_encode_records_the_gpu_and_does_not_depend_on_workers(gpu, world, tmp_path):
    path, _ = checkpoint(tmp_path, "test-resnet")
    alone, facts = encoded(world, tmp_path / "one.zarr", path, "cuda", workers=0)
    shared, _ = encoded(world, tmp_path / "two.zarr", path, "cuda", workers=2)
    assert alone == shared
    assert facts["device"] == "cuda" and facts["gpu"] == torch.cuda.get_device_name()
    assert {"cuda", "cudnn", "batch_size"} <= set(facts)


def test_batches_that_are_queued_ahead_are_those_of_the_cpu(gpu, world, tmp_path):
    path, _ = checkpoint(tmp_path, "test-resnet")
    images, cutting = read_manifest(world / "images.parquet"), RandomCropsConfig(passes=3)
    per_device = []
    for device in ("cpu", "cuda"):
        model = teacher(path, device)
        dataset = Views(images, [Look(Square(model.image_size, "bicubic"), range(3), whole=True)], cutting)
        tower = Tower(model.at_side(model.image_size), batch_size=4)
        per_device.append(embed_views(dataset, [tower], device, model.width, workers=0))
    (on_cpu, boxes), (on_gpu, same_boxes) = per_device
    assert np.array_equal(boxes, same_boxes)
    assert np.abs(on_gpu.astype(np.float32) - on_cpu.astype(np.float32)).max() <= 1e-3


def test_encode_waits_for_the_gpu_once_a_batch(gpu, world, tmp_path):
    path, _ = checkpoint(tmp_path, "test-resnet")
    model, images = teacher(path, "cuda"), views(16, 64)
    model.embed_images(images)
    with gpu.synchronizations() as count:
        for _ in range(3):
            model.embed_images(images)
    assert count[0] <= 3
    manifest = read_manifest(world / "images.parquet")
    dataset = Views(manifest, [Look(Square(model.image_size, "bicubic"), range(3), whole=True)], RandomCropsConfig())
    tower = Tower(model.at_side(model.image_size), batch_size=8)
    with gpu.synchronizations() as count:
        embed_views(dataset, [tower], "cuda", model.width, workers=0)
    assert count[0] <= -(-4 * len(manifest) // 8)


def test_the_host_does_not_put_batches_together(gpu, tmp_path, monkeypatch):
    """It copies the workers' parts to the GPU, which joins them."""
    path, _ = checkpoint(tmp_path, "test-resnet")
    model, images = teacher(path, "cuda"), views(8, 64)
    expected, joined, cat = model.embed_images(images), [], torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts, **how: joined.append({p.device.type for p in parts}) or cat(parts))
    parts = [("key", model.at_side(model.image_size), list(images.split(3)))]
    ((_, embedded),) = run_each_ahead(parts, "cuda")
    assert set().union(*joined) == {"cuda"} and cosine_similarity(embedded, expected).min() >= 0.999999


def read_z(folder, name="refined.zarr"):
    return read(array_of(open_group(folder / name), "z"))


def trained(world, out, device, **changes):
    run_train(world, out, settings(**EXACT, **changes), device=device)
    return pd.read_csv(out / "history.csv"), read_z(out)


@pytest.mark.parametrize("strong", [0.0, 0.7])
def test_training(gpu, world, tmp_path, strong):
    on_cpu, on_gpu = (
        trained(world, tmp_path / device, device, train__strong_weight=strong, train__epochs=5)
        for device in ("cpu", "cuda")
    )
    for name in ("m_loss", "e_loss"):
        assert np.abs(on_gpu[0][name] - on_cpu[0][name]).max() <= 1e-4
    assert np.abs(on_gpu[1] - on_cpu[1]).max() <= 1e-4


def test_the_linear_head(gpu, world, tmp_path):
    result = []
    for device in ("cpu", "cuda"):
        linear = {"head": "linear", "steps": 10, "batch_size": 4, "sewn_epochs": 2, "rates": [1e-3, 1e-2]}
        run_train(world, tmp_path / device, settings(train=linear), device=device)
        result.append(load_file(tmp_path / device / "adapter.safetensors"))
    for name, weight in result[0].items():
        torch.testing.assert_close(result[1][name], weight, atol=1e-4, rtol=1e-3)


def test_a_checkpoint_is_resumed_on_the_other_device(gpu, world, tmp_path, monkeypatch):
    expected = trained(world, tmp_path / "whole", "cpu")[1]
    for first, then in (("cpu", "cuda"), ("cuda", "cpu")):
        out = tmp_path / f"{first}-{then}"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at_step(patch, 3)
            trained(world, out, first)
        z = trained(world, out, then)[1]
        assert np.abs(z - expected).max() <= 1e-4


def stop_at_step(patch, number):
    step = LabelTable.step

    def stopped(self, *args):
        if self.steps == number:
            raise KeyboardInterrupt
        step(self, *args)

    patch.setattr(LabelTable, "step", stopped)


def test_a_training_step_waits_for_the_gpu_at_most_eight_times(gpu, world, tmp_path):
    counts = []
    for epochs in (4, 6):  # fewer keep no features of plain images
        chosen, out = settings(**EXACT, train__epochs=epochs, train__warmup=0), tmp_path / str(epochs)
        with gpu.synchronizations() as count:
            run_train(world, out, chosen, device="cuda", checkpoint_seconds=3600)  # a checkpoint waits for each tensor
        counts.append((len(pd.read_csv(out / "history.csv")), count[0]))
    (few, less), (many, more) = counts
    assert (more - less) / (many - few) <= 2


def features_on(world, device, batch_size, tower=None, **changes):
    images = read_training_images(read_manifest(world / "images.parquet", split="train"), world / "patches.parquet")
    chosen = AdapterTrainingConfig(**{"epochs": 1, "batch_size": batch_size, **changes})
    model = tower or backbone(OpenClipStudentConfig(precision="float32"), device)
    return computed_features(model, images, SewConfig(), chosen, device, 0)


@pytest.mark.parametrize("strong", [0.0, 0.7])
def test_the_images_of_several_steps_share_a_call_of_the_backbone(gpu, world, monkeypatch, strong):
    monkeypatch.setattr(computed_features_module, "CALL_IMAGES", 6)
    expected = features_on(world, "cpu", 2, strong_weight=strong)
    source = features_on(world, "cuda", 2, strong_weight=strong)
    calls, forward = [], source.backbone.forward
    monkeypatch.setattr(source.backbone, "forward", lambda pixels: calls.append(len(pixels)) or forward(pixels))
    steps = range(source.sampler.steps_per_epoch)
    for one, other in zip(source.batches(steps), expected.batches(steps), strict=True):
        assert torch.equal(one.sources, other.sources) and torch.equal(one.has_weak, other.has_weak)
        for name in ("weak", "strong") if strong else ("weak",):
            torch.testing.assert_close(getattr(one, name).cpu(), getattr(other, name), atol=1e-4, rtol=0)
    assert TRAIN == 11 and calls == ([6, 6, 5, 5] if strong else [6, 5])  # the lone last image joins the batch before


def test_features_that_are_not_finite_stop_the_training_before_it_learns_from_them(gpu, world, monkeypatch):
    monkeypatch.setattr(computed_features_module, "CALL_IMAGES", 4)
    source = features_on(world, "cuda", 2)
    calls, forward = [], source.backbone.forward

    def broken(pixels):
        features = forward(pixels)
        calls.append(len(pixels))
        if len(calls) == 2:
            features[-1, 0, 0, 0] = torch.nan
        return features

    monkeypatch.setattr(source.backbone, "forward", broken)
    index = list(source.sampler.batches(range(4)))[3][1][1]
    seen = []
    with pytest.raises(UserError, match=r"the backbone's answer to its weak view is not finite") as caught:
        seen.extend(source.batches(range(source.sampler.steps_per_epoch)))
    assert str(caught.value).startswith(source.dataset.images.paths[index])
    assert len(seen) == 2 and all(batch.weak.isfinite().all() for batch in seen)


def test_features_are_cached_without_waiting_for_the_gpu(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "CHUNK_BYTES", 3 * 4 * 12)
    given, files = torch.rand(6, 3, 2, 2), []
    for device in ("cpu", "cuda"):
        cache = FeatureCache(tmp_path / device, {}, Sizes(1, 6, (3, 2, 2), strong=False, plain=False))
        on_device = given.to(device)
        with gpu.synchronizations() as count:
            for start in (0, 2, 4):
                cache.put(0, start, {"weak": on_device[start : start + 2]})
        cache.flush()
        written = [path for path in (tmp_path / device).rglob("c/**/0") if path.is_file()]
        files.append({path.relative_to(tmp_path / device): path.read_bytes() for path in written})
    assert files[0] == files[1] and len(files[0]) == 2
    assert gpu.fake is not None or count[0] == 0  # the thread that writes waits; the fake device counts it too


def test_the_table_of_labels_steps_as_a_dense_adamw(gpu):
    rng = torch.Generator().manual_seed(0)
    z, rates, decay = torch.randn(40, 5, generator=rng), [0.01] * 300, 0.05
    dense = z.double().requires_grad_()
    optimizer = torch.optim.AdamW([dense], lr=0.01, weight_decay=decay)
    table = LabelTable(z.to("cuda"), rates, decay)
    for _ in range(300):
        index = torch.randperm(40, generator=rng)[:3]
        target = torch.rand(3, 5, generator=rng)
        table.step(index, (table.rows(index).detach().sigmoid() - target.to("cuda")))
        dense.grad = torch.zeros_like(dense)
        dense.grad[index] = dense.detach()[index].sigmoid() - target.double()
        optimizer.step()
    assert (table.materialize().cpu().double() - dense.detach()).abs().max() <= 1e-5


def test_a_step_of_the_labels_launches_at_most_fifty_operators():
    """The host takes longer to launch a step's operators than a GPU to compute them."""
    with fake_gpu() as fake:
        table = LabelTable(torch.randn(40, 5).to("cuda"), [0.01] * 30, 0.05)
        gradient = torch.randn(3, 5).to("cuda")
        for step in range(30):  # some have missed steps
            index = torch.tensor([step, step + 1, step + 2]) % 40
            before = fake.counts["launch"]
            table.rows(index)
            table.step(index, gradient)
    assert fake.counts["launch"] - before <= 50


def test_a_teacher_of_another_precision_leaves_the_students_logits_as_they_are(gpu, world, tmp_path):
    run_train(world, tmp_path, settings())
    path, _ = checkpoint(tmp_path, "test-resnet")
    classifier = student.load(tmp_path, "cuda", backbone)
    images = views(4, 16)
    before = classifier(images).cpu()
    for precision in LOWEST_COSINE:
        teacher(path, "cuda", precision).embed_images(views(2, 64))
        assert torch.equal(classifier(images).cpu(), before)


def test_predict(gpu, world, tmp_path):
    adapter = run_train(world, tmp_path, settings())
    logits = []
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.zarr"
        predict.run(world / "images.parquet", adapter, out, device, 2, 0, build=backbone)
        logits.append(read(array_of(open_group(out), "z")))
    assert np.abs(logits[0] - logits[1]).max() <= 1e-3


def test_a_student_trained_on_the_gpu_runs_on_both_and_is_exported(gpu, world, tmp_path):
    run_train(world, tmp_path, settings(), device="cuda")
    images = views(4, 16)
    expected = student.load(tmp_path, "cuda", backbone)(images).cpu()
    torch.testing.assert_close(student.load(tmp_path, "cpu", backbone)(images), expected, atol=1e-3, rtol=0)
    if gpu.fake is None:  # an ONNX export traces the model, which the fake device does not survive
        pytest.importorskip("onnxruntime")
        export.write(tmp_path, tmp_path / "out", None, None, onnx=True, build=backbone)
        onnx = open_classifier(tmp_path / "out" / "model.onnx", "cpu")
        torch.testing.assert_close(onnx.logits(images), expected, atol=1e-3, rtol=0)


def test_tagclip(gpu, world, tmp_path):
    path, _ = checkpoint(tmp_path, "test-vit")
    chosen = {"patches": 20, "blocks": 1, "votes": 1, "candidates": 0.5, "background": ["sky"]}
    plan = Plan(
        {
            "classes": CLASSES,
            "dataset": {"kind": "folder", "root": "images", "shard_size": 5},
            "teacher": section(path),
            "score": {"rule": "tagclip", "tagclip": chosen},
            "student": {"kind": "none"},
        }
    )
    images, result = world / "images.parquet", []
    for device in ("cpu", "cuda"):
        words, scored = tmp_path / device / "text.zarr", tmp_path / device / "tagclip.zarr"
        text(words, plan.settings(DEFAULT, "text"), device)
        for shard in shard_digests(read_manifest(images)):
            tagclip(images, words, scored, plan.settings(DEFAULT, "tagclip"), shard, device)
        seal_tagclip(images, words, scored, plan.settings(DEFAULT, "seal_tagclip"))
        result.append([read(array_of(open_group(scored), name)) for name in ("local_score", "global_score")])
    for on_cpu, on_gpu in zip(*result, strict=True):
        assert np.array_equal(np.isnan(on_cpu), np.isnan(on_gpu))
        assert np.nanmax(np.abs(on_cpu - on_gpu)) <= 1e-3
