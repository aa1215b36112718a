"""Cluttered procedural backgrounds for the demo's scenes."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

_OVER = 2
"""Shapes are drawn this much larger and then shrunk, which smooths their edges."""


def background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw one background: a soft wash of two or three hues under 25 to 60 shapes; return an RGB image."""
    hues = rng.uniform() + rng.uniform(-0.14, 0.14, size=3)
    image = _wash(rng, hues, width * _OVER, height * _OVER)
    pen = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(25, 61))):
        _shape(rng, pen, hues, image.size)
    return image.reduce(_OVER)


def _wash(rng: np.random.Generator, hues: np.ndarray, width: int, height: int) -> Image.Image:
    """Blend a coarse grid of colours smoothly over the whole area."""
    grid = [[_colour(rng, float(rng.choice(hues))) for _ in range(4)] for _ in range(4)]
    return Image.fromarray(np.array(grid, dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def _colour(rng: np.random.Generator, hue: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, float(rng.uniform(0.12, 0.5)), float(rng.uniform(0.6, 0.97)))
    return round(red * 255), round(green * 255), round(blue * 255)


def _shape(rng: np.random.Generator, pen: ImageDraw.ImageDraw, hues: np.ndarray, size: tuple[int, int]) -> None:
    """Draw one disc, ring, block, triangle or stroke, sized like the small objects of a scene."""
    extent = float(rng.uniform(0.04, 0.28)) * min(size)
    x, y = (float(rng.uniform(0, side)) for side in size)
    fill = (*_colour(rng, float(rng.choice(hues))), int(rng.integers(110, 230)))
    line = int(rng.integers(3, 9))
    angles = rng.uniform(0, 2 * np.pi) + np.sort(rng.uniform(0, 2 * np.pi, size=int(rng.integers(3, 6))))
    corners = [(x + extent / 2 * float(np.cos(a)), y + extent / 2 * float(np.sin(a))) for a in angles]
    box = (x - extent / 2, y - extent / 2, x + extent / 2, y + extent / 2)
    kind = int(rng.integers(5))
    if kind == 0:
        pen.ellipse(box, fill=fill)
    elif kind == 1:
        pen.ellipse(box, outline=fill, width=line)
    elif kind == 2:
        pen.rounded_rectangle(box, radius=extent / 8, fill=fill)
    elif kind == 3:
        pen.polygon(corners, fill=fill)
    else:
        pen.line(corners, fill=fill, width=line, joint="curve")
