"""One scene of the demo's world: a main object, smaller ones beside it, and where they are."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cutsew.demo.background import background
from cutsew.demo.sprites import CLASSES, sprites

MAIN_SIDE = (0.5, 0.75)
"""Longer side of the main object, as a share of the photo's shorter side."""

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
        others: probability of 0, 1, 2, ... smaller objects beside the main one.

    Returns:
        The RGB photo and its objects, the main one first.

    """
    width, height = int(rng.integers(250, 291)), int(rng.integers(230, 271))
    photo = background(rng, width, height)
    things: list[Thing] = []
    for number in range(1 + int(rng.choice(len(others), p=others))):
        name = CLASSES[int(rng.integers(len(CLASSES)))]
        low, high = MAIN_SIDE if number == 0 else OTHER_SIDE
        sprite = _vary(rng, name, float(rng.uniform(low, high)) * min(width, height))
        box = _place(rng, sprite.size, photo.size, things)
        photo.paste(sprite, box[:2], sprite)
        things.append(Thing(name, (max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3]))))
    return photo, things


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
    """Draw a 3 x 4 colour matrix: a turn of the hue by up to 20 degrees, and a gain for each channel."""
    angle = np.deg2rad(rng.uniform(-20, 20))
    axis = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = axis + np.cos(angle) * (np.eye(3) - axis) + np.sin(angle) * cross
    matrix = np.hstack([turn * rng.uniform(0.85, 1.15, size=(3, 1)), np.zeros((3, 1))])
    return tuple(float(value) for value in matrix.ravel())


def _place(
    rng: np.random.Generator, size: tuple[int, int], photo: tuple[int, int], things: list[Thing]
) -> tuple[int, int, int, int]:
    """Choose the place, among a few, that covers least of the objects already there; all of it lies in the photo."""
    best, least = (0, 0, *size), float("inf")
    for _ in range(_PLACES):
        left, top = (int(rng.integers(max(1, room - own + 1))) for room, own in zip(photo, size, strict=True))
        box = (left, top, left + size[0], top + size[1])
        covered = sum(_overlap(box, thing.box) for thing in things)
        if covered < least:
            best, least = box, covered
    return best


def _overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Area that two boxes share, in pixels."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
