"""Stage `tiny_clip`: the rule that rebuilds the demo's shipped weights."""

from pathlib import Path
from typing import Annotated

import typer

from cutsew.demo.tiny_clip import pack, train
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest


def tiny_clip(
    out: Annotated[Path, typer.Argument(help="The packed weights to write, .safetensors.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 600,
    images: Annotated[int, typer.Option(min=2, help="Captioned scenes to learn from.")] = 12_000,
    seed: Annotated[int, typer.Option(help="Seed of scenes, initial weights and order.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw scenes.")] = 2,
) -> None:
    """Retrain the demo's tiny CLIP (five to six minutes on two cores)."""
    record = Record("tiny_clip", STAGES["tiny_clip"].version, {})
    record.facts.update(steps=steps, images=images, seed=seed)
    pack(train(steps=steps, images=images, seed=seed, workers=workers), out)
    # Not with_suffix: next to the shipped weights, cutsew-tiny.json is the model's configuration.
    record.write(out.with_name(f"{out.name}.json"), {out.name: input_digest(out)})
