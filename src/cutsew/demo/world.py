"""The demo's images: a dataset in PASCAL VOC layout, and captioned scenes to train the tiny CLIP.

- The captioned scenes that the tiny CLIP learns from. Free of torch, so that the processes that draw start quickly.
- The demo's images, written in PASCAL VOC layout so that the VOC reader is what reads them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from cutsew.demo.scenes import Thing, caption, scene, sprites
from cutsew.method.crops import crop_boxes, cut
from cutsew.method.random import keyed_rng
from cutsew.runtime.processes import exit_with_parent

SIDE = 96
"""Side of the square input in pixels."""

CAPTIONED_OTHERS = (0.25, 0.3, 0.25, 0.2)
"""Probability of 0 to 3 smaller objects next to the main one."""

SECOND_NAMED = 0.15
"""Probability that the caption names a second object too."""

AREA = (0.25, 1.0)
"""Share of a scene's area that its training view keeps. Half-seen and missing objects teach doubt: without them the
model is certain of every crop."""

Example = tuple[npt.NDArray[np.uint8], str]


def example(index: int, seed: int) -> Example:
    """Draw one training scene; return a random view of it, (96, 96, 3) uint8, and the whole scene's caption."""
    rng = keyed_rng("tiny_clip", seed, index)
    image, things = scene(rng, CAPTIONED_OTHERS)
    names = [thing.name for thing in things]
    named = names[:2] if rng.uniform() < SECOND_NAMED else names[:1]
    box = crop_boxes("view", *image.size, [index], seed=seed, area=AREA, aspect=(3 / 4, 4 / 3), flip=0)[0]
    return cut(image, box, SIDE).transpose(1, 2, 0), caption(named)


def examples(count: int, seed: int, workers: int) -> Iterator[Example]:
    """Draw many training scenes in several processes; give them in order, whatever the number of processes."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=exit_with_parent) as pool:
        yield from pool.map(partial(example, seed=seed), range(count), chunksize=50)


OTHERS = (0.22, 0.32, 0.26, 0.13, 0.07)
"""Probability of 0 to 4 smaller objects next to the main one."""

_FOLDERS = ("JPEGImages", "Annotations", "ImageSets/Main")
_QUALITY = 90


def write_world(folder: Path, *, train: int, test: int, seed: int, workers: int) -> dict[str, str]:
    """Write all images, annotations and lists.

    An image depends only on (seed, split, index): neither on the number of workers nor on how many others there are.

    Args:
        folder: is made; JPEGImages/*.jpg, Annotations/*.xml and ImageSets/Main/{train,val}.txt go there.
        train: images of the list `train`.
        test: images of the list `val`.
        seed: of the world.
        workers: processes that draw.

    Returns:
        Each list and each of the two folders of files -> SHA-256 of its content.

    Raises:
        UserError: the sprites' packages are not installed.

    """
    sprites()
    for name in _FOLDERS:
        folder.joinpath(name).mkdir(parents=True, exist_ok=True)
    splits = {"train": train, "val": test}
    jobs = [(split, index) for split, count in splits.items() for index in range(count)]
    written = _write_all(folder, jobs, seed, workers)
    digests = {}
    for split in splits:
        text = "".join(f"{image_id(*job)}\n" for job in jobs if job[0] == split)
        folder.joinpath(f"ImageSets/Main/{split}.txt").write_text(text, encoding="ascii")
        digests[f"ImageSets/Main/{split}.txt"] = hashlib.sha256(text.encode()).hexdigest()
    for name, column in zip(_FOLDERS[:2], zip(*written, strict=True), strict=True):
        digests[name] = hashlib.sha256("\n".join(column).encode()).hexdigest()
    return digests


def image_id(split: str, index: int) -> str:
    """Name an image, such as train_00012."""
    return f"{split}_{index:05d}"


def annotation(name: str, size: tuple[int, int], things: Sequence[Thing]) -> bytes:
    """Return an image's annotation as VOC's XML; its pixel coordinates start at 1 and include the last pixel."""
    root = ElementTree.Element("annotation")
    _add(root, {"folder": "demo", "filename": f"{name}.jpg"})
    _add(ElementTree.SubElement(root, "size"), {"width": size[0], "height": size[1], "depth": 3})
    _add(root, {"segmented": 0})
    for thing in things:
        element = ElementTree.SubElement(root, "object")
        _add(element, {"name": thing.name, "pose": "Unspecified", "truncated": 0, "difficult": 0})
        left, top, right, bottom = thing.box
        _add(
            ElementTree.SubElement(element, "bndbox"),
            {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom},
        )
    ElementTree.indent(root)
    return ElementTree.tostring(root) + b"\n"


def _add(parent: ElementTree.Element, values: dict[str, str | int]) -> None:
    for key, value in values.items():
        ElementTree.SubElement(parent, key).text = str(value)


def _write_all(folder: Path, jobs: list[tuple[str, int]], seed: int, workers: int) -> list[tuple[str, str]]:
    write = partial(_write_one, folder, seed)
    bar = partial(tqdm, total=len(jobs), desc="drawing", unit="photo")
    if workers < 2:
        return list(bar(starmap(write, jobs)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=exit_with_parent) as pool:
        return list(bar(pool.map(write, *zip(*jobs, strict=True), chunksize=20)))


def _write_one(folder: Path, seed: int, split: str, index: int) -> tuple[str, str]:
    """Draw and write one image and its annotation; return the digests of both files."""
    image, things = scene(keyed_rng("demo_world", seed, split, index), OTHERS)
    name = image_id(split, index)
    jpeg, xml = folder / "JPEGImages" / f"{name}.jpg", folder / "Annotations" / f"{name}.xml"
    image.save(jpeg, quality=_QUALITY)
    xml.write_bytes(annotation(name, image.size, things))
    return hashlib.sha256(jpeg.read_bytes()).hexdigest(), hashlib.sha256(xml.read_bytes()).hexdigest()
