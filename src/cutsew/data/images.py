"""Opening images of any common kind as 8-bit RGB, the way up that a viewer shows them."""

import hashlib
import io
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError, features

from cutsew.data.image_bytes import NO_FILE, NO_MEMBER, NO_ROW, UnreadableBytes, describe, read_bytes
from cutsew.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000")
"""Pillow's readers that may try a file, whatever its name (JPEG's reads MPO too); its rarer ones are not let near
unknown files. HEIC and AVIF are recognized by their brands (`container`)."""

SUFFIXES = (
    *(".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp"),
    *(".j2k", ".jp2", ".jpf", ".jpx", ".avif", ".heic", ".heif", ".hif"),
)
"""Names of images end so, in upper or lower case."""

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"])
AVIF_BRANDS = frozenset([b"avif", b"avis"])
NO_HEIF = "HEIC, which needs an extra"
NO_AVIF = "AVIF, which this Pillow cannot read"
CHANGED = "changed after it was listed"
GONE = "was there when the images were listed, and is not now"
REMEDIES = {
    NO_HEIF: "install it with pip install 'cutsew[heic]'",
    NO_AVIF: "install one that can with pip install --upgrade 'pillow>=11.3'",
    **dict.fromkeys([CHANGED, GONE, NO_MEMBER, NO_ROW], "run the workflow again, which lists all images again"),
}
"""Reason why an image cannot be read -> what to do, where that is not to replace or remove the image."""

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused before they are decoded; Pillow's own limit against decompression bombs."""

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
"""EXIF orientation -> what puts the image upright."""

MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}
"""First bytes of a file -> what it is, or claims to be."""

HEAD = 64
"""Bytes from which `kind_of` detects a file's format."""


class BadImage(UserError):  # noqa: N818  # named for what it is about
    """An image that cannot be read.

    Attributes:
        path: the file, or the member or row of one.
        reason: a few plain words, such as `truncated` or `not an image`.

    """

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = describe(str(path))
        self.reason = reason
        super().__init__(f"{self.path}: {reason}; {REMEDIES.get(reason, 'replace or remove this image')}")

    def __reduce__(self) -> tuple[type["BadImage"], tuple[str, str]]:
        return BadImage, (self.path, self.reason)


@dataclass(frozen=True)
class Inspection:
    """What the manifest keeps of an image.

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


def read_image(address: str | Path, side: int | None = None, digest: str | None = None) -> Image.Image:
    """Decode an image to 8-bit RGB, EXIF orientation applied.

    An address is a path, a URL, or that of a tar's member or a Parquet file's row (see `image_bytes`).

    - Of an animated or many-paged file, the first frame; of a HEIC with several images, the primary one.
    - Transparent pixels (alpha, palette or color key) lie on white, as on a page.
    - 16-bit grey: [0, 65535] is scaled to [0, 255]. 32-bit integers and floats: see `to_eight_bits`.
    - CMYK is converted without its color profile; profiles are not applied to any image.

    Args:
        address: of the image.
        side: for a thumbnail: a JPEG may be decoded at a fraction of its size, its sides at least this many pixels.
        digest: SHA-256 that the manifest keeps of its bytes, if what is made of it is kept under that digest.

    Raises:
        BadImage: missing, empty, truncated, damaged, not an image, more than `MAX_PIXELS`, of a format whose reader
            is not installed, or other bytes than those of `digest`.
        UserError: a URL cannot be reached.

    """
    try:
        data = _read_bytes(str(address))
    except BadImage as error:
        raise BadImage(address, GONE) if digest is not None and error.reason == NO_FILE else error from None
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise BadImage(str(address), CHANGED)
    return _decode(str(address), data, side)


def inspect(address: str | Path, sizes: Mapping[str, tuple[int, int]] | None = None) -> Inspection:
    """Read an image's bytes once, decode it fully, so that damage shows, and digest it.

    Args:
        address: of the image.
        sizes: digest -> width and height of good images; one of these is not decoded again.

    Raises:
        BadImage: as `read_image`.
        UserError: as `read_image`.

    """
    data = _read_bytes(str(address))
    digest = hashlib.sha256(data).hexdigest()
    size = (sizes or {}).get(digest) or _decode(str(address), data).size
    return Inspection(*size, len(data), digest)


def container(head: bytes) -> str | None:
    """Detect HEIF (including HEIC) and AVIF from the brands in the first box of a file; None for all other files."""
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4]), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & HEIF_BRANDS else None


def kind_of(path: Path) -> str | None:
    """Detect a file's image format from its first bytes, whatever its name; None if it is not an image."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None
    if head.startswith(b"RIFF") and head[8:12] != b"WEBP":  # a sound or a film
        return None
    return container(head) or next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


@cache
def reads_heif() -> bool:
    """Check whether HEIC images can be read here."""
    return find_spec("pillow_heif") is not None


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


def _read_bytes(address: str) -> bytes:
    try:
        return read_bytes(address)
    except UnreadableBytes as error:
        raise BadImage(address, str(error)) from None


def _decode(path: str, data: bytes, side: int | None = None) -> Image.Image:
    # Pillow answers a damaged file with nearly any exception, SyntaxError and struct.error among them.
    try:
        with Image.open(io.BytesIO(data), formats=_readers(path, data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(path, f"too large: {image.width} x {image.height} pixels")
            if side is not None:
                image.draft(None, (side, side))
            return to_rgb(image)
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(path, f"too large: more than {MAX_PIXELS} pixels") from None
    except MemoryError:
        raise BadImage(path, "too large for this machine's memory") from None
    except Exception as error:
        raise BadImage(path, _reason(error, data)) from None


def _readers(path: str, data: bytes) -> tuple[str, ...]:
    """Name the readers that may try a file, and see to it that Pillow has them."""
    kind = container(data)
    if kind is None:
        return FORMATS
    if kind == "HEIF":
        if not reads_heif():
            raise BadImage(path, NO_HEIF)
        _register_heif()
    elif not features.check("avif"):
        raise BadImage(path, NO_AVIF)
    return (kind,)


@cache
def _register_heif() -> None:
    from pillow_heif import register_heif_opener  # noqa: PLC0415  # an extra, and 50 ms

    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF with intact pixels: the image is used as is
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an open image to 8-bit RGB, EXIF orientation applied, as `read_image` does; the image is not changed."""
    image.load()
    turn = TURNS.get(_orientation(image))  # after loading: Pillow turns a TIFF by itself
    return _eight_bit_rgb(image.transpose(turn) if turn is not None else image)


def _eight_bit_rgb(image: Image.Image) -> Image.Image:
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
        known = container(data) is not None or data.startswith((*MAGIC, b"BM"))
        return "truncated or damaged" if known else "not an image"
    short_webp = data[:4] == b"RIFF" and len(data) >= 8 and struct.unpack("<I", data[4:8])[0] + 8 > len(data)
    if short_webp or "truncated" in str(error).lower():
        return "truncated"
    return "damaged"
