"""Stage score: logits of every view from its embedding and the class names' (Eq. 3-4, or the sigmoid's)."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from cutsew.config.method import parse_score
from cutsew.errors import UserError
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption, ThreadsOption
from cutsew.storage.manifest import batched_slices
from cutsew.storage.zarr_layout import CROPS, GLOBAL, folder_of, logit_specs
from cutsew.storage.zarr_reader import array_of, attribute, open_group, read, read_texts
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
    epsilon = parse_score(settings["score"]).epsilon
    seen, texts = open_group(views), read_texts(text)
    if attribute(seen, "weights") != texts.weights:
        raise UserError(f"{text}: embedded by another teacher than {views}; rerun the workflow")
    whole, crops = array_of(seen, GLOBAL), array_of(seen, CROPS)
    passes, images = crops.shape[:2]
    coordinates: Coordinates = {
        "image": CopiedCoordinate(folder_of(views)),
        "class": CopiedCoordinate(folder_of(text)),
        "pass": np.arange(passes),
    }
    specs = logit_specs(images, len(texts.classes), passes)
    with new_group(logits, specs, coordinates, texts.answers.attributes()) as written:

        def write(job: tuple[slice, int | None]) -> None:
            rows, k = job
            seen = read(whole, rows) if k is None else read(crops, (k, rows))
            z = texts.score(seen, epsilon)
            if k is None:
                written["zero_shot"][rows] = z
            else:
                written["crops"][k, rows] = z

        slabs = batched_slices(images, specs["zero_shot"].chunks[0])
        jobs = list(itertools.product(slabs, (None, *range(passes))))
        # Each chunk file is one thread's own. A product's last bits could depend on how many threads share it.
        with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
            for _ in tqdm(pool.map(write, jobs), total=len(jobs), desc="score", unit="chunk"):
                pass
    record.write_beside(logits)
