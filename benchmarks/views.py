"""CPU time of a view: torchvision's standard pipeline, which opens the image for each pass, against cutsew's cutting.

python benchmarks/views.py
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import typer
from PIL import Image

from common import REPEATS, RESULTS, Out, Repeats, Thing, Tiny, measure
from cutsew.config.cutting import RandomCropsConfig
from cutsew.data.images import read_image
from cutsew.method.crops import crop_boxes, cut, whole_box
from cutsew.method.resample import crop_resize_all
from cutsew.models.image_encoder import Normalize
from cutsew.runtime.batching import MICROBATCH_SIZE
from cutsew.runtime.lazy_imports import import_torchvision
from images import write_images
from tables import Report, publish, ratio, row

import_torchvision()
from torchvision import transforms  # noqa: E402

SIZE, PASSES = 448, 20
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SETTINGS = RandomCropsConfig()
Boxes = npt.NDArray[np.float32]
PLAIN, PILLOW, OURS, NORMALIZED = "torchvision, per pass", "decoded once, Pillow", "cutsew", "cutsew, and normalized"


def main(tiny: Tiny = False, repeats: Repeats = REPEATS, out: Out = RESULTS) -> None:
    """Cut the whole image and 20 crops of VOC-sized JPEGs to 448 pixels, in one thread."""
    torch.set_num_threads(1)
    count = 1 if tiny else 12
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), count)
        ways = {PLAIN: plain(), PILLOW: pillow, OURS: ours, NORMALIZED: normalized()}
        things = [
            Thing(name, lambda way=way: [way(path) for path in paths], units=count * (PASSES + 1), unit="view")  # type: ignore[misc]
            for name, way in ways.items()
        ]
        rounds = measure(things, repeats, warm=0 if tiny else 1)
        differences = [difference(path) for path in paths]
        size = sum(path.stat().st_size for path in paths) / count
    bars = {OURS: "at most 0.2 of torchvision's"}
    ratios = [
        ratio("cutsew / torchvision", OURS, PLAIN, rounds, bar="at most 0.2"),
        ratio("cutsew and normalized / torchvision", NORMALIZED, PLAIN, rounds),
        ratio("cutsew / Pillow", OURS, PILLOW, rounds),
    ]
    conditions = {"pixels": SIZE, "views": PASSES + 1, "images": count, "jpeg": "500 x 375", "bytes": round(size)}
    facts = {
        "mean difference to Pillow, of 255": max(mean for mean, _ in differences),
        "largest difference to Pillow, of 255": max(most for _, most in differences),
    }
    report = Report("views", "Views", [row(t, rounds, bars.get(t.name, "")) for t in things], ratios, conditions, facts)
    publish(report, out, tiny)
    print(", ".join(f"{name}: {value:.3g}" for name, value in facts.items()))


def plain() -> Callable[[Path], object]:
    """Build the standard pipeline: open, crop and resize, flip, to floats, normalize; once for each of the 21 views."""
    last = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    bicubic = transforms.InterpolationMode.BICUBIC
    whole = transforms.Compose([transforms.Resize((SIZE, SIZE), bicubic, antialias=True), *last[1:]])
    chosen = {"scale": SETTINGS.area, "ratio": SETTINGS.aspect, "interpolation": bicubic, "antialias": True}
    crop = transforms.Compose([transforms.RandomResizedCrop(SIZE, **chosen), *last])

    def run(path: Path) -> None:
        for k in range(PASSES + 1):  # nothing is kept: the next view takes the memory of the one before
            (crop if k else whole)(Image.open(path).convert("RGB"))

    return run


def jobs(path: Path, width: int, height: int) -> list[Boxes]:
    """Draw the boxes of each job that decodes the image: the whole, and the blocks of passes."""
    chosen = SETTINGS.model_dump(include={"seed", "area", "aspect", "flip"})
    step = SETTINGS.passes_per_job
    blocks = [range(start, min(start + step, PASSES)) for start in range(0, PASSES, step)]
    crops = [crop_boxes(path.name, width, height, block, **chosen) for block in blocks]
    return [whole_box(width, height)[None], *crops]


def pillow(path: Path) -> None:
    """Cut one view after the other with Pillow."""
    for boxes in jobs(path, *Image.open(path).size):
        image = read_image(path)
        np.stack([cut(image, box, SIZE) for box in boxes])


def ours(path: Path, then: Callable[[torch.Tensor], object] = id) -> None:
    """Cut as the stage encode does: every job decodes the image once; give the views on, a few at a time."""
    for boxes in jobs(path, *Image.open(path).size):
        for views in torch.split(crop_resize_all(read_image(path), boxes, SIZE), MICROBATCH_SIZE):
            then(views)


def normalized() -> Callable[[Path], object]:
    """Cut and turn into a model's input, which encode leaves to the device."""
    pixels = Normalize(MEAN, STD)
    return lambda path: ours(path, pixels)


def difference(path: Path) -> tuple[float, int]:
    """Compare the pixels with Pillow's: the mean of the worst view, and the largest."""
    image = read_image(path)
    boxes = np.concatenate(jobs(path, *image.size))
    views = np.stack([cut(image, box, SIZE) for box in boxes]).astype(int)
    apart = np.abs(crop_resize_all(image, boxes, SIZE).numpy() - views)
    return float(apart.mean(axis=(1, 2, 3)).max()), int(apart.max())


if __name__ == "__main__":
    typer.run(main)
