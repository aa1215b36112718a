"""Encoding on a CPU: from JPEGs to embeddings, next to the bare encoder on tensors that are already there.

python benchmarks/encode.py

The encoder is RN50, with random weights: they change no time. Torch's bfloat16 is left out on a processor that has no
instructions for it.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from common import REPEATS, RESULTS, Out, Repeats, Thing, Tiny, measure
from cutsew.config.base import OpenClipModelConfig
from cutsew.config.cutting import RandomCropsConfig
from cutsew.config.networks import parse_teacher
from cutsew.data.images import inspect
from cutsew.method.crops import Square
from cutsew.models import clip as clip_models
from cutsew.models.image_encoder import Normalize, image_encoder
from cutsew.models.view_embedding import Look, Tower, Views, embed_views
from cutsew.runtime import batching
from cutsew.runtime.batching import run_batch_invariant
from cutsew.runtime.device import cpu_supports_bf16
from images import write_images
from tables import Report, publish, ratio, row

BARE, GROUPS, ENCODE = "bare encoder", "bare encoder, by groups", "encode: torch"
WAYS = {
    ENCODE: {"precision": "float32"},
    **({"encode: torch, bfloat16": {"precision": "bfloat16"}} if cpu_supports_bf16() else {}),
    "encode: openvino": {"precision": "float32", "runtime": "openvino"},
    "encode: openvino, bfloat16": {"precision": "bfloat16", "runtime": "openvino"},
}


@dataclass
class Encoder:
    """An image encoder as a teacher."""

    run: Callable[[Tensor], Tensor]
    image_size: int
    width: int

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed (B, 3, S, S) uint8 views: (B, D)."""
        return run_batch_invariant(self.run, images, "cpu")


def main(
    tiny: Tiny = False,
    repeats: Repeats = REPEATS,
    out: Out = RESULTS,
    images: Annotated[int, typer.Option(help="Images of 20 crops each.")] = 8,
    workers: Annotated[int, typer.Option(help="Workers that cut.")] = 2,
) -> None:
    """Embed 20 crops of each image at 224 pixels (tiny: 1 crop, at 32 pixels, by a tiny model)."""
    name = "cutsew-tiny" if tiny else "RN50"
    threads, passes, size = batching.num_workers(), 1 if tiny else 20, 32 if tiny else 224
    count = 1 if tiny else images
    clip = clip_models.load_clip(OpenClipModelConfig(model=name, image_size=size), "teacher.open_clip", weights=False)
    tower = clip.model.get_submodule("visual").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module = nn.Sequential(Normalize(clip.preprocessing.mean, clip.preprocessing.std), tower)
    ways = {name: parse_teacher(chosen) for name, chosen in WAYS.items()}
    encoders = {name: image_encoder(module, size, way, "cpu") for name, way in ways.items()}
    ready = torch.randn(count * passes, 3, size, size).contiguous(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        look = Look(Square(size, "bicubic"), range(passes), whole=False)
        views = Views(_listed(write_images(Path(folder), count)), [look], RandomCropsConfig())
        width = int(tower(ready[:1]).shape[1])

        def encode(way: str) -> None:
            teacher = Encoder(encoders[way], size, width)
            tower = Tower(teacher.embed_images, batch_size=64)
            embed_views(views, [tower], "cpu", width, workers=0 if tiny else workers)

        runs: dict[str, Callable[[], object]] = {
            BARE: lambda: _bare(tower, ready),
            GROUPS: lambda: run_batch_invariant(tower, ready, "cpu"),
        }
        runs |= {way: lambda way=way: encode(way) for way in WAYS}  # type: ignore[misc]
        things = [
            Thing(what, run, lambda w=what: torch.set_num_threads(threads if w == BARE else 1), len(ready), "view")  # type: ignore[misc]
            for what, run in runs.items()
        ]
        rounds = measure(things, repeats, warm=0 if tiny else 1)
        seen = torch.cat([views[index][0][0] for index in range(count)])
    torch.set_num_threads(1)
    stated = {name: run_batch_invariant(encoder, seen, "cpu") for name, encoder in encoders.items()}
    facts = {f"lowest cosine, {name}": float(cosine_similarity(stated[name], stated[ENCODE]).min()) for name in WAYS}
    ratios = [
        ratio("encode: torch / bare encoder", ENCODE, BARE, rounds, bar="at most 1.05"),
        ratio("encode: torch / bare encoder, by groups", ENCODE, GROUPS, rounds, bar="at most 1.05"),
        *(ratio(f"{name} / encode: torch", name, ENCODE, rounds) for name in WAYS if name != ENCODE),
    ]
    conditions = {
        "model": f"{name}, random weights",
        "pixels": size,
        "views": len(ready),
        "batch": 64,
        "threads": threads,
    }
    report = Report("encode", "Encode", [row(thing, rounds) for thing in things], ratios, conditions, facts)
    publish(report, out, tiny)
    print(", ".join(f"{name}: {value:.6f}" for name, value in facts.items()))


def _listed(paths: list[Path]) -> pd.DataFrame:
    return pd.DataFrame({"path": [str(path) for path in paths], "digest": [inspect(path).digest for path in paths]})


@torch.inference_mode()
def _bare(tower: nn.Module, ready: Tensor) -> None:
    for part in torch.split(ready, 64):
        tower(part)


if __name__ == "__main__":
    typer.run(main)
