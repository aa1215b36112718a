"""Stage `demo_world`: the embedded demo's images."""

from pathlib import Path
from typing import Annotated

import typer

from cutsew.config.dataset import DemoConfig
from cutsew.demo.world import write_world
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.atomic import atomic_path


def demo_world(
    out: Annotated[Path, typer.Argument(help="The folder to write; it is replaced as a whole.")],
    settings: SettingsOption,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 2,
) -> None:
    """Write the demo's images in PASCAL VOC layout, and a record next to their folder."""
    record = Record("demo_world", STAGES["demo_world"].version, settings)
    demo = DemoConfig.model_validate(settings["dataset"]["demo"])
    with atomic_path(out) as draft:
        digests = write_world(draft, train=demo.train, test=demo.test, seed=demo.seed, workers=workers)
    record.facts["images"] = demo.train + demo.test
    record.write(out.with_name(f"{out.name}.json"), {f"{out.name}/{name}": digest for name, digest in digests.items()})
