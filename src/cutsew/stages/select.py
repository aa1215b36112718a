"""Stage select: the salient training photos that are pasted onto others (Eq. 10)."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cutsew.artefacts.atomic import replacing
from cutsew.artefacts.manifest import read_manifest
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import array_of, labels_of, open_group, read
from cutsew.config.method import Select
from cutsew.errors import UserError
from cutsew.numerics.select import top_k
from cutsew.plan import STAGES
from cutsew.stages.options import SettingsOption


def select(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    labels: Annotated[Path, typer.Argument(help="logits.zarr, or pseudo.zarr where select.labels says so")],
    patches: Annotated[Path, typer.Argument(help="patches.parquet, written")],
    settings: SettingsOption,
) -> None:
    """Choose the salient photos to paste (Eq. 10)."""
    import pandas as pd

    record = Record("select", STAGES["select"].version, settings, [images, labels])
    k = Select.model_validate(settings["select"]).top_k
    scored = open_group(labels)
    train = read_manifest(images, split="train")
    if k > len(train):
        raise UserError(f"select.top_k: {k} is more than the {len(train)} training photos; lower it")
    z = read(array_of(scored, "z" if "z" in scored else "zero_shot"))[train["row"]]
    chosen = top_k(z, k)
    names = labels_of(scored, "class")
    table = pd.DataFrame(
        {
            "class": np.repeat(names, k),
            "rank": np.tile(np.arange(k), len(names)),
            "image": train["id"].to_numpy()[chosen.ravel()],
            "row": train["row"].to_numpy()[chosen.ravel()],
            "score": np.take_along_axis(z.T, chosen, axis=1).ravel(),
        }
    )
    with replacing(patches) as draft:
        table.to_parquet(draft, index=False)
    record.facts = {"distinct": int(table["row"].nunique()), "train": len(train)}
    record.write_beside(patches)
