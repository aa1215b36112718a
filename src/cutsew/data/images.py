"""Opening photos of any common kind as 8-bit RGB, the way up that a viewer shows them."""

import hashlib
import io
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from cutsew.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
"""What may be inside a photo's file, whatever its name; Pillow's rarer readers are not let near unknown files."""

MAX_PIXELS = 178_956_970
"""Photos with more pixels are refused before they are decoded; Pillow's own limit against decompression bombs."""

ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what puts the photo upright."""

MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"II*\0", b"MM\0*", b"GIF8")


class BadImage(UserError):  # noqa: N818  # named for what it is about
    """A photo that cannot be read.

    Attributes:
        path: the file.
        reason: a few plain words, such as `truncated` or `not an image`.

    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}; mend or remove this photo")

    def __reduce__(self) -> tuple[type["BadImage"], tuple[Path, str]]:
        return BadImage, (self.path, self.reason)


@dataclass(frozen=True)
class Inspection:
    """What the manifest keeps of a photo.

    Attributes:
        width: pixels, after EXIF orientation.
        height: pixels, after EXIF orientation.
        bytes: size of the file.
        digest: SHA-256 of the file's bytes, as hexadecimal text.

    """

    width: int
    height: int
    bytes: int
    digest: str


def read_image(path: Path) -> Image.Image:
    """Decode a photo to 8-bit RGB, EXIF orientation applied.

    - Of an animated or many-paged file, the first frame.
    - Transparent pixels (alpha, palette or colour key) lie on white, as on a page.
    - 16-bit grey: [0, 65535] is scaled to [0, 255]. 32-bit integers and floats: see `to_eight_bits`.
    - CMYK is converted without its colour profile; profiles are not applied to any photo.

    Raises:
        BadImage: missing, empty, truncated, damaged, not an image, or more than `MAX_PIXELS`.

    """
    return _decode(path, _read_bytes(path))


def inspect(path: Path) -> Inspection:
    """Read a photo's bytes once, decode it fully, so that damage shows, and digest it.

    Raises:
        BadImage: as `read_image`.

    """
    data = _read_bytes(path)
    image = _decode(path, data)
    return Inspection(image.width, image.height, len(data), hashlib.sha256(data).hexdigest())


def to_eight_bits(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Scale grey values of 32-bit integers or floats, any shape, to [0, 255].

    Such files do not say what their white is. It is taken to be the first of 1 (floats only), 255 and 65535 that no
    value exceeds, with black at 0; where values are negative or larger, smallest and largest are black and white.
    NaN is black; infinities are black and white.
    """
    wide = values.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    whites = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    white = next((w for w in whites if low >= 0 and high <= w), None)
    if white is not None:
        low, high = 0.0, white
    span = (high - low) or 1.0
    unit = np.clip(np.nan_to_num((wide - low) / span, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    return np.rint(unit * 255.0).astype(np.uint8)


def _read_bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe of that name would be waited for without end
            raise BadImage(path, "not a file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadImage(path, "broken link" if path.is_symlink() else "no such file") from None
    except OSError as error:
        raise BadImage(path, f"unreadable: {(error.strerror or type(error).__name__).lower()}") from None
    if not data:
        raise BadImage(path, "empty file")
    return data


def _decode(path: Path, data: bytes) -> Image.Image:
    # Pillow answers a damaged file with nearly any exception, SyntaxError and struct.error among them.
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(path, f"too large: {image.width} x {image.height} pixels")
            image.load()
            turn = TURNS.get(_orientation(image))  # after loading: Pillow turns a TIFF by itself
            upright = image.transpose(turn) if turn is not None else image
            return _to_rgb(upright)
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(path, f"too large: more than {MAX_PIXELS} pixels") from None
    except MemoryError:
        raise BadImage(path, "too large for this machine's memory") from None
    except Exception as error:
        raise BadImage(path, _reason(error, data)) from None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF beside sound pixels: the photo is taken as it is
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(to_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception, data: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "truncated or damaged" if data.startswith(MAGIC) else "not an image"
    short_webp = data[:4] == b"RIFF" and len(data) >= 8 and struct.unpack("<I", data[4:8])[0] + 8 > len(data)
    if short_webp or "truncated" in str(error).lower():
        return "truncated"
    return "damaged"
