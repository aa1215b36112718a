"""How busy a GPU is kept: each path beside the bare model on the same card, in one run.

    python benchmarks/gpu.py               # on a GPU; some ten minutes
    python benchmarks/gpu.py --tiny        # tiny models on any device, to see that it runs

Weights are random, which changes no time. It needs no snakemake, no network and no weights. The teacher is RN50x64 at
448 pixels, the student RN101 at 448; images are JPEGs as large as VOC's.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.profiler import ProfilerActivity, profile

from common import RESULTS, Out, Repeats, Tiny
from cutsew.config.cutting import RandomCropsConfig
from cutsew.config.method import SewConfig
from cutsew.config.networks import parse_student, parse_teacher
from cutsew.config.training import AdapterConfig, AdapterTrainingConfig
from cutsew.data.images import inspect
from cutsew.data.loader import batches
from cutsew.inference.new_images import load_batches
from cutsew.method.crops import Square
from cutsew.models import backbones, teachers
from cutsew.models.frozen_backbone import Backbone
from cutsew.models.student import Student
from cutsew.models.view_embedding import Look, Tower, Views, embed_views
from cutsew.runtime.batching import run_ahead
from cutsew.runtime.device import device_facts, pick_device
from cutsew.training.computed_features import FeatureBatch
from cutsew.training.distributed import SINGLE
from cutsew.training.features import computed_features, feature_source
from cutsew.training.sewing_plan import TrainingImages
from cutsew.training.sewn_dataset import collate
from cutsew.training.trainer import Checkpoint, Trainer, new_adapter
from images import write_images
from synthetic import write_clip
from tables import Measured, publish_measured

CLASSES = 80
DTYPES = {"tf32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Size:
    """What is measured."""

    teacher: str = "RN50x64"
    student: str = "RN101"
    side: int = 448
    batch: int = 64
    batches: tuple[int, ...] = (16, 64, 128, 256)
    images: int = 512
    times: int = 8
    """How often the images are shown where each gives one view only, so that the start does not count."""
    passes: int = 10
    train_batch: int = 16
    seconds: float = 2.0
    precisions: tuple[str, ...] = ("tf32", "float16", "bfloat16")


SMALL = Size("cutsew-tiny", "cutsew-tiny", 32, 4, (2, 4), 8, 1, 2, 4, 0.01, ("tf32",))


@dataclass
class Bench:
    """One run of the benchmark: where its files lie, and what it measured."""

    folder: Path
    device: str
    size: Size
    repeats: int
    workers: int
    rows: list[Measured] = field(default_factory=list)

    def note(self, name: str, value: float, unit: str, bar: str = "") -> float:
        """Keep and print a measurement."""
        self.rows.append(Measured(name, value, unit, bar))
        print(f"{name}: {value:.4g} {unit}" + (f" (aim: {bar})" if bar else ""), flush=True)
        return value

    def wait(self) -> None:
        """Wait until the device is idle."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], object]) -> float:
        """Measure one call: the median of several samples, each of as many calls as fill `Size.seconds`."""
        function()
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        calls = max(1, int(self.size.seconds / self.repeats / max(1e-6, time.perf_counter() - start)))
        samples = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            self.wait()
            samples.append((time.perf_counter() - start) / calls)
        return statistics.median(samples)

    @contextmanager
    def timed(self) -> Iterator[list[float]]:
        """Measure the block once; the list's one number is its seconds."""
        seconds = [0.0]
        self.wait()
        start = time.perf_counter()
        yield seconds
        self.wait()
        seconds[0] = time.perf_counter() - start


def main(
    tiny: Tiny = False,
    repeats: Repeats = 5,
    out: Out = RESULTS,
    workers: Annotated[int, typer.Option(help="Processes that decode.")] = 8,
) -> None:
    """Measure encoding, start-up, training and prediction."""
    if not tiny and not torch.cuda.is_available():
        print("benchmarks/gpu.py: no GPU that torch can use; nothing measured (--tiny runs on a CPU)", file=sys.stderr)
        raise typer.Exit(0)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), pick_device("auto"), SMALL if tiny else Size(), repeats, 0 if tiny else workers)
        images = listed(write_images(bench.folder, bench.size.images))
        encoding(bench, images)
        copies(bench)
        training(bench, images)
        predicting(bench, images)
    conditions = device_facts(bench.device) | {"clocks": clocks(bench.device), "workers": bench.workers}
    sizes = {name: getattr(bench.size, name) for name in ("teacher", "student", "side", "batch", "images", "passes")}
    publish_measured("gpu", "GPU", bench.rows, conditions | sizes, out, tiny)


def encoding(bench: Bench, images: pd.DataFrame) -> None:
    """From JPEGs to embeddings, beside the bare image tower on a batch that lies on the device."""
    size = bench.size
    named = write_clip(bench.folder / f"{size.teacher}.safetensors", size.teacher, size.side)
    views = torch.randint(0, 256, (size.batch, 3, size.side, size.side), dtype=torch.uint8)
    exact: Tensor | None = None
    for precision in ("float32", *size.precisions):
        settings = parse_teacher({"kind": "open_clip", "precision": precision, "open_clip": named})
        with bench.timed() as built:
            model = teachers.build(settings, bench.device)
        with bench.timed() as first:
            embedded = model.embed_images(views)
        if exact is None:
            exact = embedded
            continue
        lowest = float(cosine_similarity(embedded, exact).min())
        bench.note(f"{precision}: 1 - lowest cosine with float32", max(1 - lowest, 1e-12), "")
        bench.note(f"{precision}: build the teacher", built[0], "s")
        bench.note(f"{precision}: first batch", first[0], "s")
        bare = size.batch / bench.seconds(bare_tower(model, views, precision))
        bench.note(f"{precision}: bare tower", bare, "views/s")
        rate = size.batch / bench.seconds(partial(model.embed_images, views))
        bench.note(f"{precision}: embed_images", rate, "views/s")
        bench.note(f"{precision}: embed_images / bare", rate / bare, "", "at least 0.93")
    if bench.device == "cuda":
        memory_by_batch(bench, model)
    for name, passes, bar in (
        ("crops", range(size.passes), "at least 0.90"),
        ("whole images", range(0), "at least 0.85"),
    ):
        shown = images if passes else pd.concat([images] * size.times, ignore_index=True)
        look = Look(Square(size.side, "bicubic"), passes, whole=not passes)
        dataset = Views(shown, [look], RandomCropsConfig())

        def embed(dataset: Views = dataset) -> None:
            tower = Tower(model.at_side(size.side), size.batch)
            embed_views(dataset, [tower], model.device, model.width, bench.workers)

        with bench.timed() as taken:
            embed()
        rate = len(shown) * look.count / taken[0]
        bench.note(f"{precision}: embed_views, {name}", rate, "views/s")
        bench.note(f"{precision}: embed_views, {name} / bare", rate / bare, "", bar)
        if bench.device == "cuda" and passes:
            bench.note(f"{precision}: GPU idle over embed_views, {name}", idle(embed), "", "at most 0.10")
    nothing = torch.zeros(size.batch, model.width, device=bench.device)
    tower = Tower(lambda views: nothing[: len(views)], size.batch)
    dataset = Views(images, [Look(Square(size.side, "bicubic"), range(size.passes), whole=False)], RandomCropsConfig())
    start = time.thread_time()
    embed_views(dataset, [tower], bench.device, model.width, bench.workers)
    spent = 64e3 * (time.thread_time() - start) / (len(images) * size.passes)
    bench.note("host: CPU time of the main thread per 64 views, without the encoder", spent, "ms", "at most 3")
    command = [sys.executable, "-c", "import cutsew.stages.encode, cutsew.models.clip_teacher"]
    with bench.timed() as taken:
        subprocess.run(command, check=True)
    bench.note("start: interpreter and imports", taken[0], "s")


def bare_tower(model: "teachers.Teacher", views: Tensor, precision: str) -> Callable[[], object]:
    """Call torch alone on a batch that lies on the device."""
    on_device = views.to(model.device)
    dtype = DTYPES[precision]

    @torch.inference_mode()
    def run() -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        with torch.autocast(model.device, dtype, enabled=dtype is not None):
            model.visual(model.pixels(on_device))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    return run


def memory_by_batch(bench: Bench, model: "teachers.Teacher") -> None:
    """Measure speed and peak memory by the size of the batch."""
    for count in bench.size.batches:
        views = torch.randint(0, 256, (count, 3, bench.size.side, bench.size.side), dtype=torch.uint8)
        model.embed_images(views)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        rate = count / bench.seconds(partial(model.embed_images, views))
        peak = (torch.cuda.max_memory_allocated() - before) / count / 2**20
        bench.note(f"batch {count}: embed_images", rate, "views/s")
        bench.note(f"batch {count}: peak memory", peak, "MiB a view")


def idle(function: Callable[[], object]) -> float:
    """Return the share of a call's time in which no kernel ran."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        wall = time.perf_counter() - start
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, until = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return 1 - busy / 1e6 / wall


def copies(bench: Bench) -> None:
    """Copy a batch to the device from pageable and from pinned memory, and put it together on the host."""
    shape = (bench.size.batch, 3, bench.size.side, bench.size.side)
    parts = list(torch.randint(0, 256, shape, dtype=torch.uint8).split(1))
    kept = torch.empty(shape, dtype=torch.uint8, pin_memory=bench.device == "cuda")
    bench.note("host: torch.cat of a batch", 1e3 * bench.seconds(lambda: torch.cat(parts)), "ms")
    bench.note("host: torch.cat into a kept buffer", 1e3 * bench.seconds(lambda: torch.cat(parts, out=kept)), "ms")
    if bench.device == "cuda":
        pageable = torch.cat(parts)
        bench.note("copy to the GPU, pageable", 1e3 * bench.seconds(lambda: pageable.to("cuda")), "ms")
        bench.note("copy to the GPU, pinned", 1e3 * bench.seconds(lambda: kept.to("cuda")), "ms")


def training(bench: Bench, images: pd.DataFrame) -> None:
    """One step of training: its parts alone, and a training that computes all features."""
    size, device = bench.size, bench.device
    backbone = student_backbone(bench)
    pixels = torch.randint(0, 256, (size.train_batch, 3, size.side, size.side), dtype=torch.uint8)
    alone = bench.note("train: backbone", 1e3 * bench.seconds(lambda: backbone(pixels)), "ms a batch")
    train = AdapterTrainingConfig(batch_size=size.train_batch, epochs=size.times)
    z = torch.randn(len(images), CLASSES).to(device)
    config, count = AdapterConfig(), len(images)

    def trainer(epochs: int) -> Trainer:
        adapter = new_adapter(backbone.width, CLASSES, config, backbone.grid, 0).to(device)
        chosen = train.model_copy(update={"epochs": epochs})
        return Trainer(adapter, z, chosen, -(-count // size.train_batch), Checkpoint(bench.folder, "", 1e9))

    features = backbone(pixels)
    sources = torch.randint(0, count, (size.train_batch, 3))
    batch = FeatureBatch(sources, torch.ones(size.train_batch, dtype=torch.bool), features, None)
    one = trainer(10**4)
    step = bench.note(
        "train: adapter and labels", 1e3 * bench.seconds(lambda: one.training_step(batch)), "ms a step", "at most 6"
    )
    listed_images = TrainingImages(
        images["path"].tolist(),
        images["digest"].tolist(),
        images[["width", "height"]].to_numpy(np.int64),
        np.arange(0, count, 4),
    )
    computed = computed_features(backbone, listed_images, SewConfig(), train, device, bench.workers)
    keys = list(computed.sampler.batches(range(size.times * -(-count // size.train_batch))))
    with bench.timed() as spent:
        for _ in batches(computed.dataset.__getitem__, count, iter(keys), collate, bench.workers):
            pass
    loader = bench.note("train: sewing workers alone", 1e3 * spent[0] / len(keys), "ms a batch")
    with bench.timed() as spent, feature_source(computed, SINGLE, None) as source:
        trainer(size.times).fit(source)
    whole = bench.note("train: all", 1e3 * spent[0] / len(keys), "ms a step")
    bench.note("train: slowest part / all", max(alone + step, loader) / whole, "", "at least 0.8")


def predicting(bench: Bench, images: pd.DataFrame) -> None:
    """Score images with a student, from JPEGs on."""
    backbone = student_backbone(bench)
    adapter = new_adapter(backbone.width, CLASSES, AdapterConfig(), backbone.grid, 0).to(bench.device).eval()
    student = Student(backbone, adapter, [str(number) for number in range(CLASSES)])
    size = bench.size
    pixels = torch.randint(0, 256, (size.batch, 3, size.side, size.side), dtype=torch.uint8)
    bare = bench.note("predict: student", size.batch / bench.seconds(lambda: student(pixels)), "images/s")
    paths = images["path"].tolist() * size.times
    with bench.timed() as spent:
        for _ in load_batches(paths, student.square, size.batch, bench.workers):
            pass
    loader = bench.note("predict: decoding alone", len(paths) / spent[0], "images/s")
    with bench.timed() as spent:
        read = load_batches(paths, student.square, size.batch, bench.workers)
        for _ in run_ahead(student, (((), batch.pixels) for batch in read), bench.device):
            pass
    rate = bench.note("predict: from JPEGs", len(paths) / spent[0], "images/s")
    bench.note("predict: from JPEGs / slower part", rate / min(bare, loader), "", "at least 0.9")


def student_backbone(bench: Bench) -> Backbone:
    """Build the student's backbone with random weights."""
    size = bench.size
    named = write_clip(bench.folder / f"student-{size.student}.safetensors", size.student, size.side)
    return backbones.build(parse_student({"kind": "open_clip", "open_clip": named}), bench.device)


def listed(paths: list[Path]) -> pd.DataFrame:
    """List images as the manifest does."""
    seen = [inspect(path) for path in paths]
    columns: dict[str, Any] = {"path": [str(path) for path in paths], "digest": [one.digest for one in seen]}
    return pd.DataFrame(columns | {"width": [one.width for one in seen], "height": [one.height for one in seen]})


def clocks(device: str) -> dict[str, str] | None:
    """Return the GPU's driver and clocks as nvidia-smi gives them."""
    if device != "cuda":
        return None
    names = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit")
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None
    return dict(zip(names, answer.split(", "), strict=False))


if __name__ == "__main__":
    typer.run(main)
