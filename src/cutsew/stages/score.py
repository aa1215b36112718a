"""Stage score: logits of every view from its embedding and the class names' (Eq. 3-4)."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from cutsew.artefacts.logits import logit_specs
from cutsew.artefacts.manifest import slabs
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import array_of, labels_of, new_group, open_group, read
from cutsew.artefacts.views import CROPS, GLOBAL
from cutsew.config.method import Score
from cutsew.errors import UserError
from cutsew.numerics.score import score as score_views
from cutsew.plan import STAGES
from cutsew.stages.options import SettingsOption


def score(
    views: Annotated[Path, typer.Argument(help="views.zarr")],
    text: Annotated[Path, typer.Argument(help="text.zarr")],
    logits: Annotated[Path, typer.Argument(help="logits.zarr, written")],
    settings: SettingsOption,
) -> None:
    """Turn embeddings into logits (Eq. 3-4)."""
    record = Record("score", STAGES["score"].version, settings, [views, text])
    epsilon = Score.model_validate(settings["score"]).epsilon
    seen, words = open_group(views), open_group(text)
    if seen.attrs["weights"] != words.attrs["weights"]:
        raise UserError(f"{text}: embedded by another teacher than {views}; run the workflow again to make both")
    scale = float(words.attrs["logit_scale"])  # type: ignore[arg-type]
    embedded = read(array_of(words, "text"))
    whole, crops = array_of(seen, GLOBAL), array_of(seen, CROPS)
    passes, images = crops.shape[:2]
    shard_size = (whole.shards or whole.chunks)[0]
    coordinates: dict[str, Any] = {
        "image": labels_of(seen, "image"),
        "class": labels_of(words, "class"),
        "pass": np.arange(passes),
    }
    specs = logit_specs(images, len(embedded), passes, shard_size)
    with new_group(logits, specs, coordinates) as written:
        for rows in tqdm(list(slabs(images, shard_size)), desc="score", unit="shard"):
            written["zero_shot"][rows] = score_views(read(whole, rows), embedded, scale, epsilon)
            for k in range(passes):
                written["crops"][k, rows] = score_views(read(crops, (k, rows)), embedded, scale, epsilon)
    record.write_beside(logits)
