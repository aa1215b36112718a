"""Stage score: logits of every view from its embedding and the class names' (Eq. 3-4, or the sigmoid's)."""

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from cutsew.config.method import parse_score
from cutsew.errors import UserError
from cutsew.method.fuse import extremes
from cutsew.method.score import Floats
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption, ThreadsOption
from cutsew.storage.manifest import batched_slices
from cutsew.storage.text_embeddings import read_texts
from cutsew.storage.zarr_layout import CROPS, GLOBAL, extreme_specs, folder_of, logit_specs
from cutsew.storage.zarr_reader import array_of, attribute, open_group, read
from cutsew.storage.zarr_writer import Coordinates, CopiedCoordinate, new_group


def score(
    views: Annotated[Path, typer.Argument(help="views.zarr")],
    text: Annotated[Path, typer.Argument(help="text.zarr")],
    logits: Annotated[Path, typer.Argument(help="logits.zarr, written")],
    settings: SettingsOption,
    threads: ThreadsOption = 1,
) -> None:
    """Turn embeddings into logits (Eq. 3-4)."""
    record = Record("score", STAGES["score"].version, settings, [views, text])
    scoring = parse_score(settings["score"])
    epsilon = scoring.epsilon
    seen, texts = open_group(views), read_texts(text)
    if attribute(seen, "weights") != texts.weights:
        raise UserError(f"{text}: embedded by a different teacher than {views}; rerun the workflow")
    whole, crops = array_of(seen, GLOBAL), array_of(seen, CROPS)
    passes, images = crops.shape[:2]
    coordinates: Coordinates = {
        "image": CopiedCoordinate(folder_of(views)),
        "class": CopiedCoordinate(folder_of(text)),
        "pass": np.arange(passes),
    }
    keeps_all = scoring.keeps_crop_logits
    if keeps_all:
        specs = logit_specs(images, len(texts.classes), passes)
    else:
        specs = extreme_specs(images, len(texts.classes), lowest=settings["fuse"]["rule"] == "cdul")
    with new_group(logits, specs, coordinates, texts.answers.attributes()) as written:

        def of_whole(rows: slice) -> Floats:
            return texts.score(read(whole, rows), epsilon)

        def of_crop(k: int, rows: slice) -> Floats:
            return texts.score(read(crops, (k, rows)), epsilon)

        def write(job: tuple[slice, int | None]) -> None:
            rows, k = job
            if k is None:
                written["zero_shot"][rows] = of_whole(rows)
            else:
                written["crops"][k, rows] = of_crop(k, rows)

        def write_extremes(rows: slice) -> None:
            z = of_whole(rows)
            found = extremes((of_crop(k, rows) for k in range(passes)), z, lowest="lowest" in written)
            written["zero_shot"][rows] = z
            for name, values in found._asdict().items():
                if values is not None:
                    written[name][rows] = values

        slabs = list(batched_slices(images, specs["zero_shot"].chunks[0]))
        if keeps_all:
            _in_threads(write, itertools.product(slabs, (None, *range(passes))), len(slabs) * (1 + passes), threads)
        else:
            _in_threads(write_extremes, slabs, len(slabs), threads)
    record.write_beside(logits)


def _in_threads(write: Callable[[Any], None], jobs: Iterable[Any], count: int, threads: int) -> None:
    # Each chunk file is one thread's own. A product's last bits could depend on how many threads share it.
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        for _ in tqdm(pool.map(write, jobs), total=count, desc="score", unit="chunk"):
            pass
