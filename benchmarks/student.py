"""What a student costs beside its bare backbone: parameters, and milliseconds per photo on this machine's CPU.

python benchmarks/student.py results/demo/default [--batch 1 --batch 8] [--threads 1] [--repeats 30]
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import onnx
import onnxruntime
import pandas as pd
import torch
import typer
from torch import Tensor, nn

from cutsew.deploy.graph import Graph, write_graph
from cutsew.student import load


class Bare(nn.Module):
    """The backbone alone: normalisation and tower."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.pixels, self.tower = graph.pixels, graph.tower

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 to (B, D, H, W) features."""
        features: Tensor = self.tower(self.pixels(pixels))
        return features


def main(
    run: Annotated[Path, typer.Argument(help="A run's folder, or an exported one.")],
    batch: Annotated[list[int] | None, typer.Option(help="Photos in a call; may be repeated.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of one call.")] = 1,
    repeats: Annotated[int, typer.Option(help="Calls, of which the quickest counts.")] = 30,
) -> None:
    """Print a table: parameters in use, and milliseconds per photo with torch and with onnxruntime."""
    student = load(run)
    torch.set_num_threads(threads)
    graph = Graph(student)
    rows = []
    for name, model, outputs in (("backbone", Bare(graph), ["features"]), ("student", graph, ["logits", "p"])):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            write_graph(path, model, student.image_size, outputs)
            held = sum(_size(tensor) for tensor in onnx.load(path).graph.initializer)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for count in batch or [1, 8]:
                photos = torch.randint(0, 256, (count, 3, student.image_size, student.image_size), dtype=torch.uint8)
                given = {"pixels": photos.numpy()}
                rows.append(
                    {"model": name, "parameters": held, "batch": count}
                    | {"torch ms": _milliseconds(lambda m=model, p=photos: m(p), repeats) / count}  # type: ignore[misc]
                    | {"onnxruntime ms": _milliseconds(lambda s=session, g=given: s.run(None, g), repeats) / count}  # type: ignore[misc]
                )
    print(f"{student.image_size} x {student.image_size} pixels, {threads} thread(s), ms per photo, least of {repeats}")
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:.1f}"))


def _size(tensor: onnx.TensorProto) -> int:
    count = 1
    for side in tensor.dims:
        count *= side
    return count if tensor.data_type == onnx.TensorProto.FLOAT else 0


@torch.inference_mode()
def _milliseconds(call: Callable[[], Any], repeats: int) -> float:
    found = []
    for _ in range(repeats + 2):  # the first two warm up
        start = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - start))
    return min(found[2:])


if __name__ == "__main__":
    typer.run(main)
