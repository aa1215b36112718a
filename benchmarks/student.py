"""What a student costs relative to its bare backbone and to one view of the teacher: parameters, and time per image.

python benchmarks/student.py [results/demo/default] [--batch 8] [--threads 2]

Without a run the student is the paper's: RN101 at 448 pixels and an adapter for 80 classes, relative to RN50x64. Its
weights are random, which changes neither.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import onnx
import onnxruntime
import torch
import typer
from torch import Tensor, nn
from torch.nn.functional import normalize

from common import REPEATS, RESULTS, Out, Repeats, Thing, Tiny, measure
from cutsew.config.base import OpenClipModelConfig
from cutsew.config.networks import OpenClipStudentConfig
from cutsew.inference.model_files import INPUT, OUTPUTS, Graph, write_graph
from cutsew.method.adapter import Adapter
from cutsew.models import clip as clip_models
from cutsew.models.backbones import GridOfFeatures
from cutsew.models.frozen_backbone import Backbone
from cutsew.models.image_encoder import Normalize
from cutsew.models.student import Student, load
from tables import Report, publish, ratio, row

CLASSES = 80


class Bare(nn.Module):
    """The backbone alone: normalization and tower."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.pixels, self.tower = graph.pixels, graph.tower

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 to (B, D, H, W) features."""
        features: Tensor = self.tower(self.pixels(pixels))
        return features


class ZeroShot(nn.Module):
    """The teacher's single view of the whole image; the texts are embedded beforehand."""

    def __init__(self, model: str, size: int) -> None:
        super().__init__()
        clip = clip_models.load_clip(
            OpenClipModelConfig(model=model, image_size=size), "teacher.open_clip", weights=False
        )
        self.pixels = Normalize(clip.preprocessing.mean, clip.preprocessing.std)
        self.tower = clip.model.get_submodule("visual")
        width = self.tower(torch.zeros(1, 3, size, size)).shape[1]
        self.register_buffer("texts", normalize(torch.randn(CLASSES, width), dim=-1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 to (B, C) cosines."""
        result: Tensor = normalize(self.tower(self.pixels(pixels)), dim=-1) @ self.get_buffer("texts").T
        return result


def main(
    run: Annotated[Path | None, typer.Argument(help="A run's folder, or an exported one, for its own student.")] = None,
    tiny: Tiny = False,
    repeats: Repeats = REPEATS,
    out: Out = RESULTS,
    batch: Annotated[int, typer.Option(min=1, help="Images in a call.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a call.")] = 1,
) -> None:
    """Measure backbone, student and teacher with torch, and the first two with onnxruntime."""
    torch.set_num_threads(threads)
    names = ("cutsew-tiny", "cutsew-tiny", 32) if tiny else ("RN101", "RN50x64", 448)
    student = load(run) if run else random_student(names[0], names[2])
    size = student.image_size
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    graph = Graph(student)
    models: dict[str, nn.Module] = {"backbone": Bare(graph), "student": graph}
    things, facts = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            path = Path(folder, f"{name}.onnx")
            write_graph(path, model, size, OUTPUTS if name == "student" else ["features"])
            facts[f"parameters, {name}"] = held(path)
            things += [in_torch(name, model, images), in_onnxruntime(name, path, images, threads)]
        if run is None:
            teacher = ZeroShot(names[1], names[2]).eval()
            facts["parameters, teacher"] = sum(value.numel() for value in teacher.parameters())
            things.append(in_torch("teacher", teacher, images))
        rounds = measure(things, repeats, warm=0 if tiny else 1)
    pairs = [("student", "backbone", "torch"), ("student", "backbone", "onnxruntime")]
    pairs += [] if run else [("teacher", "student", "torch")]
    ratios = [ratio(f"{a} / {b}, {c}", f"{a}, {c}", f"{b}, {c}", rounds) for a, b, c in pairs]
    conditions = {"pixels": size, "batch": batch, "threads": threads, "models": names if run is None else "of a run"}
    publish(Report("student", "Student", [row(t, rounds) for t in things], ratios, conditions, facts), out, tiny)
    print(", ".join(f"{name}: {value / 1e6:.2f} M" for name, value in facts.items()))


def random_student(model: str, size: int) -> Student:
    """Build a student whose backbone and adapter have random weights."""
    clip = clip_models.load_clip(OpenClipModelConfig(model=model, image_size=size), "student.open_clip", weights=False)
    tower = GridOfFeatures(clip.model.get_submodule("visual"))
    backbone = Backbone(tower, clip.preprocessing, size, OpenClipStudentConfig(), "cpu")
    return Student(backbone, Adapter(backbone.width, CLASSES), [str(number) for number in range(CLASSES)])


def in_torch(name: str, model: nn.Module, images: Tensor) -> Thing:
    """Call a model with torch, as it is."""

    @torch.inference_mode()
    def run() -> None:
        model(images)

    return Thing(f"{name}, torch", run, units=len(images), unit="photo")


def in_onnxruntime(name: str, path: Path, images: Tensor, threads: int) -> Thing:
    """Call an exported model with onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {INPUT: images.numpy()}
    return Thing(f"{name}, onnxruntime", lambda: session.run(None, given), units=len(images), unit="photo")


def held(path: Path) -> int:
    """Count the float parameters that a graph holds."""
    tensors = onnx.load(path).graph.initializer
    return sum(int(torch.Size(tensor.dims).numel()) for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT)


if __name__ == "__main__":
    typer.run(main)
