"""Images: every kind of damage stops the manifest or is listed in skipped.csv; odd ones are read as documented."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cutsew.data import accounting
from cutsew.errors import UserError
from cutsew.stages.manifest import manifest
from cutsew.storage.manifest import read_manifest
from trouble.case import ACCEPTED, OUT, REFUSED, SKIPPED, Case

KINDS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "TIFF": "tif",
    "GIF": "gif",
    "BMP": "bmp",
    "JPEG2000": "jp2",
    "AVIF": "avif",
}
HEIF = find_spec("pillow_heif") is not None
GOOD = "good.png"


def draw_image(size=(24, 16), seed=0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.from_pillow(image).save(stream, **options)
        return stream.getvalue()
    image.save(stream, kind, **options)
    return stream.getvalue()


def make(folder: Path, bad: str, **dataset) -> pd.DataFrame:
    """Run the manifest over a folder of images."""
    settings = {"dataset": {"kind": "folder", "root": str(folder / "images"), "shard_size": 4, "on_bad_image": bad}}
    settings["dataset"] |= dataset
    manifest(folder / OUT / "images.parquet", settings=settings)
    return read_manifest(folder / OUT / "images.parquet")


def beside_a_good_one(folder: Path, name: str, write: Callable[[Path], object]) -> Path:
    images = folder / "images"
    images.mkdir(parents=True)
    draw_image(seed=99).save(images / GOOD)
    path = images / name
    write(path)
    return path


def bad(name: str, write: Callable[[Path], object], reason: str, file: str = "bad.jpg") -> Iterator[Case]:
    """Give the two cases of a bad image: it stops, and it is skipped and listed."""

    def stops(folder: Path) -> object:
        path = beside_a_good_one(folder, file, write)
        try:
            return make(folder, "stop")
        except UserError as error:
            if path.name in str(error) or not path.name.isprintable():
                raise
            return f"the line does not name {path.name}"

    def goes_on(folder: Path) -> str:
        beside_a_good_one(folder, file, write)
        table = make(folder, "skip")
        listed = pd.read_csv(folder / OUT / "skipped.csv")
        if table["id"].tolist() != [GOOD] or len(listed) != 1:
            return f"{table['id'].tolist()} are in the manifest, {len(listed)} are listed"
        return f"skipped: {listed['reason'][0]}"

    yield Case("images", name, REFUSED, reason, stops)
    yield Case("images", f"{name} (on_bad_image: skip)", SKIPPED, reason, goes_on)


def odd(name: str, write: Callable[[Path], object], effect: str, file: str = "odd.jpg") -> Case:
    """Give the case of an odd image that is read; its effect is its row in the manifest."""

    def read(folder: Path) -> str:
        path = beside_a_good_one(folder, file, write)
        rows = make(folder, "stop").set_index("id")
        row = rows.loc[path.name]
        return f"{len(rows)} images, {row['width']} x {row['height']}"

    return Case("images", name, ACCEPTED, effect, read)


def holding(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def cut(kind: str, share: float) -> bytes:
    data = encoded(draw_image(), kind)
    return data[: int(len(data) * share)]


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def png(width: int, height: int, data: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def damaged() -> Iterator[Case]:
    for kind, suffix in (KINDS | ({"HEIF": "heic"} if HEIF else {})).items():
        for share in (0.02, 0.2, 0.5, 0.8):
            data, name = holding(cut(kind, share)), f"{kind} cut to {share:.0%}"
            yield from bad(name, data, "truncated|not an image|damaged", f"a.{suffix}")
        data = encoded(draw_image(), kind)
        yield from bad(
            f"{kind} with its header zeroed", holding(bytes(16) + data[16:]), "truncated|not an image|damaged"
        )
    yield from bad(
        "a video's container named .heic",
        holding(b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(60)),
        "not an image",
        "a.heic",
    )
    yield from bad(
        "HEIC of a header alone", holding(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "damaged|needs an extra", "a.heic"
    )
    yield from bad(
        "AVIF of a header alone", holding(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif"), "damaged|cannot read", "a.avif"
    )
    whole = encoded(draw_image(), "PNG")
    middle = len(whole) // 2
    yield from bad("PNG with a flipped byte in its pixels", holding(changed(whole, middle, b"\0\0")), "damaged")
    yield from bad(
        "PNG whose header's checksum is wrong", holding(changed(whole, 29, b"\0\0\0\0")), "damaged|truncated"
    )
    yield from bad("PNG of 0 x 0 pixels", holding(png(0, 0)), "damaged|truncated|not an image")
    yield from bad("PNG without pixel data", holding(png(9, 9)), "truncated|damaged")
    yield from bad("PNG of a depth that there is not", holding(png(9, 9, depth=7)), "damaged|truncated")
    yield from bad("TIFF that names its own header as its next page", holding(b"II*\0\x04\0\0\0"), "truncated|damaged")


def no_images() -> Iterator[Case]:
    yield from bad("zero bytes", holding(b""), "empty file")
    yield from bad("one byte", holding(b"\xff"), "not an image")
    yield from bad("a web page named .jpg", holding(b"<!DOCTYPE html><html>404</html>"), "not an image")
    yield from bad("SVG named .png", holding(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not an image", "bad.png")
    yield from bad(
        "PostScript named .jpg", holding(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not an image"
    )
    yield from bad("PDF named .jpg", holding(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), "not an image")
    yield from bad("a zip named .png", holding(b"PK\x03\x04" + bytes(60)), "not an image", "bad.png")
    yield from bad("a program named .jpg", holding(b"\x7fELF" + bytes(60)), "not an image")
    yield from bad("a broken link", lambda path: path.symlink_to("gone.jpg"), "broken link")
    yield from bad("a link to itself", lambda path: path.symlink_to(path.name), "broken link|unreadable")


def of_holes(path: Path) -> None:
    """Write a file that claims 4 GiB and takes no space."""
    with path.open("wb") as file:
        file.truncate(2**32)


def bombs() -> Iterator[Case]:
    yield from bad("a file of 4 GiB", of_holes, r"too large: 4\.0 GiB")
    yield from bad("a PNG bomb of 40,000 x 40,000", holding(png(40_000, 40_000)), "too large")
    yield from bad("a PNG of 2 billion x 2 billion", holding(png(2**31 - 1, 2**31 - 1)), "too large|damaged")
    tall = png(13_378, 13_378, zlib.compress(bytes(1000)))
    yield from bad("a PNG just over the limit", holding(tall), "too large")
    gif = changed(encoded(draw_image(), "GIF"), 6, b"\xff\xff\xff\xff")
    yield from bad("a GIF of 65,535 x 65,535", holding(gif), "too large|damaged|truncated")
    bmp = changed(encoded(draw_image(), "BMP"), 18, struct.pack("<ii", 60_000, 60_000))
    yield from bad("a BMP of 60,000 x 60,000", holding(bmp), "too large|truncated|damaged")


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(draw_image(), "JPEG", exif=exif)


def strange_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "</script><script>alert(1)</script>; $(touch x)"  # a description
    return encoded(draw_image(), "JPEG", exif=exif)


def animated(kind: str) -> bytes:
    frames = [draw_image(seed=i) for i in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 100), "PNG")


def odd_ones() -> Iterator[Case]:
    as_usual = "2 images, 24 x 16"
    rgb = draw_image()
    yield odd("1 x 1", holding(encoded(draw_image((1, 1)), "PNG")), "1 x 1")
    yield odd("20,000 x 1", holding(encoded(Image.new("RGB", (20_000, 1)), "PNG")), "20000 x 1")
    yield odd("1 x 20,000", holding(encoded(Image.new("RGB", (1, 20_000)), "PNG")), "1 x 20000")
    yield odd("PNG named .jpg", holding(encoded(rgb, "PNG")), as_usual)
    yield odd("JPEG named .png", holding(encoded(rgb, "JPEG")), as_usual, "odd.png")
    yield odd("CMYK JPEG", holding(encoded(rgb.convert("CMYK"), "JPEG")), as_usual)
    yield odd("CMYK TIFF", holding(encoded(rgb.convert("CMYK"), "TIFF")), as_usual, "odd.tif")
    yield odd("16-bit grey PNG", holding(sixteen_bits()), as_usual, "odd.png")
    yield odd("bilevel TIFF", holding(encoded(rgb.convert("1"), "TIFF")), as_usual, "odd.tif")
    yield odd("palette PNG", holding(encoded(rgb.convert("P"), "PNG")), as_usual, "odd.png")
    yield odd("floating-point TIFF with NaN", holding(encoded(nan_image(), "TIFF")), as_usual, "odd.tif")
    yield odd("a color profile that is none", holding(encoded(rgb, "JPEG", icc_profile=b"no profile")), as_usual)
    yield odd("EXIF turned by 90 degrees", holding(turned(6)), "16 x 24")
    yield odd("EXIF orientation that there is not", holding(turned(99)), as_usual)
    yield odd("EXIF that is damaged", holding(encoded(rgb, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\0")), as_usual)
    yield odd("EXIF that holds markup and shell", holding(strange_exif()), as_usual)
    for kind, suffix in (
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("TIFF", "tif"),
        ("AVIF", "avif"),
        ("MPO", "mpo"),
    ):
        yield odd(f"animated or many-paged {kind}", holding(animated(kind)), as_usual, f"odd.{suffix}")
    yield odd("rubbish after the end", holding(encoded(rgb, "JPEG") + b"<?php system('x') ?>"), as_usual)
    yield odd("BMP", holding(encoded(rgb, "BMP")), as_usual, "odd.bmp")
    yield odd("JPEG 2000", holding(encoded(rgb, "JPEG2000")), as_usual, "odd.JP2")
    yield odd("AVIF named .jpg", holding(encoded(rgb, "AVIF")), as_usual)
    yield odd(
        "palette GIF with transparency", holding(encoded(rgb.convert("P"), "GIF", transparency=0)), as_usual, "odd.GIF"
    )
    if HEIF:
        yield odd("HEIC", holding(encoded(rgb, "HEIF")), as_usual, "IMG_0001.HEIC")
        yield odd("HEIC named .jpg", holding(encoded(rgb, "HEIF")), as_usual)
    yield odd("JPEG named .heic", holding(encoded(rgb, "JPEG")), as_usual, "odd.heic")
    yield odd("transparent PNG", holding(encoded(rgb.convert("RGBA"), "PNG")), as_usual, "odd.png")


def nan_image() -> Image.Image:
    values = np.linspace(0, 1, 24 * 16, dtype=np.float32).reshape(16, 24)
    values[3, 3] = np.nan
    return Image.fromarray(values)


PASSED_OVER = {
    ".DS_Store": "hidden file",
    "._a.jpg": "hidden file",
    "Thumbs.db": "of another kind",
    "notes.txt": "of another kind",
    "labels.xml": "of another kind",
    "film.MOV": r"a video\); extract frames",
    "raw.CR2": r"camera raw\); export it as JPEG",
    "images.zip": r"an archive\); unpack it",
    "next.jxl": r"not read\); convert it to PNG",
    "IMG_0001": "holds a PNG image; give it an image suffix",
    "a.jpg~": "holds a PNG image",
    "a.jpg_original": "holds a PNG image",
    "a.jpg.part": "holds a PNG image",
    ".thumbnails/a.jpg": "hidden folder, not searched",
    "@eaDir/a.jpg/SYNOIMAGE_THUMB_M.jpg": "system folder, not searched",
    "__MACOSX/a.jpg": "system folder, not searched",
    "$RECYCLE.BIN/a.jpg": "system folder, not searched",
    "caf\udce9.txt": "of another kind",
}
"""What is no image by its name, though each of these holds one -> why it stands in skipped.csv."""


def passed_over() -> Iterator[Case]:
    def listed(folder: Path, name: str, write: Callable[[Path], object]) -> str:
        images = folder / "images"
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        draw_image(seed=99).save(images / GOOD)
        write(images / name)
        table = make(folder, "stop")
        rows = pd.read_csv(folder / OUT / "skipped.csv")
        if table["id"].tolist() != [GOOD] or len(rows) != 1:
            return f"{table['id'].tolist()} are in the manifest, {len(rows)} are listed"
        return f"skipped: {rows['reason'][0]}"

    image = holding(encoded(draw_image(), "PNG"))
    for name, reason in PASSED_OVER.items():
        write = image if name.partition(".")[0] not in ("notes", "labels", "Thumbs", "caf\udce9") else holding(b"text")
        yield Case("images", f"no image: {name!a}", SKIPPED, reason, partial(listed, name=name, write=write))
    yield Case(
        "images", "a pipe named .jpg", SKIPPED, "not a file: a pipe", partial(listed, name="pipe.jpg", write=os.mkfifo)
    )
    yield Case(
        "images",
        "a broken link of another kind",
        SKIPPED,
        "broken link",
        partial(listed, name="a.txt", write=lambda path: path.symlink_to("gone")),
    )


NAMES = (
    "$(touch x).jpg",
    "`touch x`.jpg",
    "; rm -rf x.jpg",
    "a b  c.jpg",
    "new\nline.jpg",
    "'quote\".jpg",
    "<script>alert(1)<script>.jpg",
    "-rf.jpg",
    "{wildcard}.jpg",
    "\x1b[31mred.jpg",
    "tab\tand,comma;.jpg",
    "\u202egpj.exe.jpg",
    "%2e%2e%2f.jpg",
    f"{'long' * 60}.jpg",
)


def names() -> Iterator[Case]:
    for name in NAMES:
        yield odd(f"named {name[:30]!r}", partial(draw_image().save, format="PNG"), "2 images, 24 x 16", name)
        yield from list(bad(f"damaged, named {name[:30]!r}", holding(b"no"), "not an image", name))[:1]

    def no_text(folder: Path) -> object:
        beside_a_good_one(folder, "x.jpg", draw_image().save)
        os.rename(os.fsencode(folder / "images" / "x.jpg"), os.fsencode(folder / "images") + b"/\xff\xfe.jpg")
        return make(folder, "skip")

    yield Case("images", "a name that is not UTF-8", REFUSED, r"images/.*udcff.*not UTF-8; rename it", no_text)


def places() -> Iterator[Case]:
    def loop(folder: Path) -> str:
        beside_a_good_one(folder, "a.png", draw_image().save)
        (folder / "images" / "again").symlink_to(folder / "images")
        (folder / "images" / "up").symlink_to(folder)
        return f"{len(make(folder, 'stop'))} images"

    def vanished(folder: Path) -> object:
        path = beside_a_good_one(folder, "gone.png", draw_image().save)
        real = accounting.inspect

        def late(*words):
            path.unlink(missing_ok=True)
            return real(*words)

        accounting.inspect = late
        try:
            return make(folder, "stop")
        finally:
            accounting.inspect = real

    def folder_named_as_a_image(folder: Path) -> str:
        beside_a_good_one(folder, "a.jpg", Path.mkdir)
        return f"{len(make(folder, 'stop'))} images"

    def no_folder(folder: Path) -> object:
        return make(folder, "stop")

    def a_file(folder: Path) -> object:
        (folder / "images").write_bytes(b"x")
        return make(folder, "stop")

    def nothing(folder: Path) -> object:
        (folder / "images").mkdir()
        return make(folder, "stop")

    def all_bad(folder: Path) -> object:
        (folder / "images").mkdir()
        (folder / "images" / "a.jpg").write_bytes(b"")
        return make(folder, "skip")

    def all_held_out(folder: Path) -> object:
        beside_a_good_one(folder, "a.png", draw_image().save)
        (folder / "test.txt").write_text(f"a.png\n{GOOD}\n")
        return make(folder, "stop", test={"list": str(folder / "test.txt")})

    def partly_strange(folder: Path, bad: str) -> object:
        beside_a_good_one(folder, "a.png", draw_image().save)
        (folder / "test.txt").write_text("images/a.png\na.png\n")
        table = make(folder, bad, test={"list": str(folder / "test.txt")})
        return f"skipped: {pd.read_csv(folder / OUT / 'skipped.csv')['reason'][0]}, {(table['split'] == 'test').sum()} held out"

    def the_root_held_out(folder: Path) -> object:
        beside_a_good_one(folder, "a.png", draw_image().save)
        return make(folder, "stop", test={"folder": "."})

    def strange_list(folder: Path) -> object:
        beside_a_good_one(folder, "a.png", draw_image().save)
        (folder / "test.txt").write_text("../../etc/passwd\n")
        return make(folder, "stop", test={"list": str(folder / "test.txt")})

    yield Case("images", "links that loop", ACCEPTED, "^2 images", loop)
    yield Case("images", "vanished between listing and reading", REFUSED, r"gone\.png: no such file", vanished)
    yield Case("images", "a folder named .jpg", ACCEPTED, "^1 images", folder_named_as_a_image)
    yield Case("images", "no folder", REFUSED, r"dataset\.root: .*images is not a folder", no_folder)
    yield Case("images", "a file instead of the folder", REFUSED, r"dataset\.root: .*images is not a folder", a_file)
    yield Case("images", "an empty folder", REFUSED, r"dataset\.root: no images below", nothing)
    yield Case("images", "all images bad", REFUSED, r"dataset\.root: none of the 1 images", all_bad)
    yield Case("images", "all images held out", REFUSED, r"dataset\.test: leaves no image", all_held_out)
    yield Case(
        "images",
        "a list with a wrong path",
        REFUSED,
        r"names images/a\.png, not an image .* so write a\.png",
        partial(partly_strange, bad="stop"),
    )
    yield Case(
        "images",
        "a list with a wrong path (on_bad_image: skip)",
        SKIPPED,
        r"test\.list\), but no such image, 1 held out",
        partial(partly_strange, bad="skip"),
    )
    yield Case(
        "images",
        "the root itself held out",
        REFUSED,
        r"dataset\.test\.folder: \. is dataset\.root itself",
        the_root_held_out,
    )
    yield Case("images", "a list that names ../../etc/passwd", REFUSED, r"dataset\.test\.list: .*passwd", strange_list)


def cases() -> Iterator[Case]:
    for part in (damaged, no_images, bombs, odd_ones, passed_over, names, places):
        yield from part()
