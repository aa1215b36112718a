"""Images for benchmarks: made of noise of all sizes and a few hard edges, as large and as heavy as VOC's."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

WIDTH, HEIGHT, QUALITY = 500, 375, 92


def write_images(folder: Path, count: int) -> list[Path]:
    """Write JPEGs into a folder; return their paths."""
    paths = [folder / f"{index}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        image(index).save(path, quality=QUALITY)
    return paths


def image(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Draw one image: an octave of noise for each doubling of detail, half as strong, and ellipses in front."""
    rng = np.random.default_rng(seed)
    values, side = np.zeros((height, width, 3)), 4
    while side < width:
        values += _octave(rng, side, width, height) / side**0.75
        side *= 2
    low, high = np.quantile(values, [0.02, 0.98])
    picture = Image.fromarray((255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        left, top = int(rng.integers(width - 60)), int(rng.integers(height - 60))
        box = (left, top, left + int(rng.integers(20, 200)), top + int(rng.integers(20, 200)))
        draw.ellipse(box, fill=tuple(int(value) for value in rng.integers(0, 256, 3)))
    return picture


def _octave(rng: np.random.Generator, side: int, width: int, height: int) -> npt.NDArray[np.float32]:
    noise = rng.normal(size=(side, side, 3)).astype(np.float32)
    planes = [Image.fromarray(noise[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
