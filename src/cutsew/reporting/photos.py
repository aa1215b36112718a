"""Photos, small, as they stand in the page."""

import base64
import io
from pathlib import Path

from PIL import Image

from cutsew.data.images import BadImage, read_image

SIDE = 420
"""Longest side of a photo of the gallery, in pixels."""

QUALITY = 78


def thumbnail(path: Path, side: int = SIDE) -> Image.Image | None:
    """Read a photo, small; None where it is not there or damaged: a report is made without it."""
    try:
        photo = read_image(path)
    except BadImage:
        return None
    photo.thumbnail((side, side), Image.Resampling.LANCZOS)
    return photo


def data_uri(photo: Image.Image) -> str:
    """Encode a photo as a JPEG that stands in the page itself."""
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
