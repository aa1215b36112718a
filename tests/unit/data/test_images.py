import hashlib
import io
import os
import pickle
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cutsew.data.images import MAX_PIXELS, BadImage, container, inspect, kind_of, read_image, to_eight_bits
from cutsew.errors import UserError

SIZE = (60, 40)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def image():
    return Image.fromarray(noise(40, 60, 3))


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "A.PNG", "a.bmp", "a.jp2"])
def test_lossless_formats_give_their_pixels(tmp_path, image, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    read = read_image(saved(tmp_path, image, name, **options))
    assert read.mode == "RGB"
    assert np.array_equal(np.asarray(read), np.asarray(image))


def test_jpeg_is_close(tmp_path):
    flat = Image.new("RGB", SIZE, (200, 30, 90))
    read = read_image(saved(tmp_path, flat, "a.jpg", quality=95))
    assert np.abs(np.asarray(read).astype(int) - (200, 30, 90)).max() <= 4


def test_the_content_counts_not_the_name(tmp_path, image):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(image, "PNG"))
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_in_every_format(tmp_path, kind, orientation):
    # Red top left corner as stored; the table of the EXIF standard says where the viewer shows it.
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:20, :30] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a"
    options = {"lossless": True} if kind == "WEBP" else {}
    path.write_bytes(encoded(Image.fromarray(stored), kind, exif=exif, **options))
    shown = np.asarray(read_image(path)).astype(int)
    assert shown.shape[:2] == ((40, 60) if orientation < 5 else (60, 40))
    assert (inspect(path).width, inspect(path).height) == (shown.shape[1], shown.shape[0])
    corners = {"tl": (5, 5), "tr": (5, -5), "bl": (-5, 5), "br": (-5, -5)}
    red = {name for name, at in corners.items() if shown[at][0] > 200}
    assert red == {{1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]}


def test_rotation_and_mirroring_differ(tmp_path):
    stored = noise(4, 6, 3)
    for orientation, expected in ((5, stored.transpose(1, 0, 2)), (6, np.rot90(stored, -1)), (8, np.rot90(stored))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path, Image.fromarray(stored), f"{orientation}.png", exif=exif)
        assert np.array_equal(np.asarray(read_image(path)), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_image_as_it_is(tmp_path, image):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x00garbage"))
    assert read_image(path).size == SIZE


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, kind):
    values = np.array([[0, 128, 257, 25700, 32768, 65535]], np.uint16)
    path = tmp_path / "a"
    path.write_bytes(encoded(Image.fromarray(values), kind))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, 0, 1, 100, 128, 255]


def test_big_endian_16_bit_tiff(tmp_path):
    image = Image.frombytes("I;16B", (2, 1), np.array([0, 51400], ">u2").tobytes())
    assert np.asarray(read_image(saved(tmp_path, image, "a.tif")))[0, :, 0].tolist() == [0, 200]


def test_a_dark_16_bit_image_stays_dark(tmp_path):
    values = np.full((4, 4), 200, np.uint16)
    assert np.asarray(read_image(saved(tmp_path, Image.fromarray(values), "a.png"))).max() == 1


def test_integers_and_floats(tmp_path):
    ints = Image.fromarray(np.array([[0, 255, 128]], np.int32))
    assert np.asarray(read_image(saved(tmp_path, ints, "i.tif")))[0, :, 1].tolist() == [0, 255, 128]
    floats = Image.fromarray(np.array([[0.0, 1.0, 0.5, np.nan]], np.float32))
    assert np.asarray(read_image(saved(tmp_path, floats, "f.tif")))[0, :, 2].tolist() == [0, 255, 128, 0]


def test_range_of_grey_values_by_hand():
    assert to_eight_bits(np.array([0, 1])).tolist() == [0, 1]
    assert to_eight_bits(np.array([0.0, 1.0])).tolist() == [0, 255]
    assert to_eight_bits(np.array([0, 65535, 257])).tolist() == [0, 255, 1]
    assert to_eight_bits(np.array([-10, 0, 10])).tolist() == [0, 128, 255]
    assert to_eight_bits(np.array([0, 1_000_000])).tolist() == [0, 255]
    assert to_eight_bits(np.array([7_000_000, 7_000_000])).tolist() == [0, 0]
    assert to_eight_bits(np.array([np.inf, -np.inf, np.nan, 1.0])).tolist() == [255, 0, 0, 255]


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=20))
def test_scaling_keeps_the_order(values):
    array = np.array(values, np.float32)
    finite = np.isfinite(array)
    scaled = to_eight_bits(array).astype(int)
    order = np.argsort(array[finite], kind="stable")
    assert (np.diff(scaled[finite][order]) >= 0).all()


def test_alpha_lies_on_white(tmp_path):
    pixels = np.array([[(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128)]], np.uint8)
    read = np.asarray(read_image(saved(tmp_path, Image.fromarray(pixels), "a.png")))
    assert read[0].tolist() == [[10, 20, 30], [255, 255, 255], [127, 127, 127]]
    grey = Image.merge("LA", (Image.new("L", (2, 1), 40), Image.fromarray(np.array([[255, 0]], np.uint8))))
    assert np.asarray(read_image(saved(tmp_path, grey, "b.png")))[0, :, 0].tolist() == [40, 255]


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    opaque = np.asarray(read_image(saved(tmp_path, image, "a.png")))
    assert opaque[0].tolist() == [[255, 0, 0], [0, 0, 255]]
    clear = np.asarray(read_image(saved(tmp_path, image, "b.png", transparency=1)))
    assert clear[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    half = np.asarray(read_image(saved(tmp_path, image, "c.png", transparency=b"\xff\x80")))
    assert half[0].tolist() == [[255, 0, 0], [127, 127, 255]]


def test_color_key_of_rgb_and_grey(tmp_path):
    image = Image.fromarray(np.array([[(1, 2, 3), (4, 5, 6)]], np.uint8))
    read = np.asarray(read_image(saved(tmp_path, image, "a.png", transparency=(1, 2, 3))))
    assert read[0].tolist() == [[255, 255, 255], [4, 5, 6]]
    grey = Image.fromarray(np.array([[9, 8]], np.uint8))
    assert np.asarray(read_image(saved(tmp_path, grey, "b.png", transparency=8)))[0, :, 0].tolist() == [9, 255]


def test_grey_bilevel_and_cmyk(tmp_path):
    grey = Image.fromarray(noise(4, 5))
    assert np.array_equal(np.asarray(read_image(saved(tmp_path, grey, "a.png")))[:, :, 2], np.asarray(grey))
    bits = Image.fromarray(np.array([[True, False]]))
    assert np.asarray(read_image(saved(tmp_path, bits, "b.png")))[0, :, 0].tolist() == [255, 0]
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.asarray(read_image(saved(tmp_path, ink, "c.tif")))[0, 0].tolist() == [255, 0, 0]
    jpeg = np.asarray(read_image(saved(tmp_path, ink, "d.jpg", quality=95)))[0, 0].astype(int)
    assert np.abs(jpeg - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.gif", "a.mpo", "a.avif"])
def test_of_many_frames_the_first(tmp_path, name):
    frames = [Image.new("RGB", SIZE, color) for color in ("red", "blue", "lime")]
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    red = np.asarray(read_image(path))[20, 30].astype(int)
    assert np.abs(red - (255, 0, 0)).max() <= 6


def heic(image, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=-1, chroma=444, **options)
    return stream.getvalue()


def quadrant():
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:20, :30] = (255, 0, 0)
    return Image.fromarray(stored)


def red_corner(image):
    shown = np.asarray(image).astype(int)
    corners = {"tl": (5, 5), "tr": (5, -5), "bl": (-5, 5), "br": (-5, -5)}
    return shown.shape[:2], {name for name, at in corners.items() if shown[at][0] > 200}


def test_heic_gives_its_pixels(tmp_path, image):
    path = tmp_path / "a.HEIC"
    path.write_bytes(heic(image))
    read = read_image(path)
    assert read.mode == "RGB"
    assert np.abs(np.asarray(read).astype(int) - np.asarray(image)).max() <= 2
    assert np.array_equal(np.asarray(read), np.asarray(read_image(path)))
    assert (inspect(path).width, inspect(path).height) == SIZE


@pytest.mark.parametrize(
    ("orientation", "shape", "corner"), [(1, (40, 60), "tl"), (3, (40, 60), "br"), (6, (60, 40), "tr")]
)
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_heic_and_avif_stand_upright(tmp_path, kind, orientation, shape, corner):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a"
    if kind == "HEIF":
        path.write_bytes(heic(quadrant(), exif=exif.tobytes()))
    else:
        path.write_bytes(encoded(quadrant(), "AVIF", exif=exif))
    assert red_corner(read_image(path)) == (shape, {corner})


def test_transparency_of_heic_and_avif_lies_on_white(tmp_path):
    clear = Image.new("RGBA", (16, 16), (10, 20, 30, 0))
    path = tmp_path / "a"
    for data in (encoded(clear, "AVIF"), heic(clear)):
        path.write_bytes(data)
        assert np.asarray(read_image(path)).min() >= 250


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_containers_show(tmp_path, image, share):
    path = tmp_path / "a"
    for data in (heic(image), encoded(image, "AVIF"), encoded(image, "JPEG2000"), encoded(image, "BMP")):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(BadImage, match="truncated|damaged") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)


def test_a_missing_reader_is_named(tmp_path, image, monkeypatch):
    path = tmp_path / "a.jpg"  # whatever its name
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    monkeypatch.setattr("cutsew.data.images.reads_heif", lambda: False)
    with pytest.raises(
        BadImage, match=r"a\.jpg: HEIC, which needs an extra; install it with pip install 'cutsew\[heic\]'"
    ):
        read_image(path)
    path.write_bytes(encoded(image, "AVIF"))
    monkeypatch.setattr("cutsew.data.images.features.check", lambda name: name != "avif")
    with pytest.raises(BadImage, match="AVIF, which this Pillow cannot read; install one that can"):
        read_image(path)


def test_brands_tell_the_container():
    def box(major, *compatible):
        body = b"ftyp" + major + bytes(4) + b"".join(compatible)
        return (len(body) + 4).to_bytes(4) + body

    assert container(box(b"heic", b"mif1", b"heic")) == "HEIF"
    assert container(box(b"mif1", b"heic")) == "HEIF"
    assert container(box(b"mif1", b"avif", b"miaf")) == "AVIF"
    assert container(box(b"avis", b"msf1")) == "AVIF"
    assert container(box(b"qt  ")) is None
    assert container(box(b"isom", b"mp41")) is None
    assert container(b"") is container(b"\xff\xd8\xff") is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "JPEG2000", "AVIF"])
def test_what_a_file_holds_is_told_from_its_first_bytes(tmp_path, image, kind):
    path = tmp_path / "a"
    path.write_bytes(encoded(image, kind))
    assert kind_of(path).upper().replace(" ", "") == kind
    path.write_bytes(b"RIFF\0\0\0\0WAVE")
    assert kind_of(path) is None
    assert kind_of(tmp_path) is None
    assert kind_of(tmp_path / "none") is None


def test_one_pixel_is_a_image(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (1, 1), "red"), "a.png")
    assert (inspect(path).width, inspect(path).height) == (1, 1)


def test_inspection(tmp_path, image):
    path = saved(tmp_path, image, "a.png")
    result = inspect(path)
    assert (result.width, result.height, result.bytes) == (*SIZE, path.stat().st_size)
    assert result.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncation_shows(tmp_path, image, kind, share):
    data = encoded(image, kind)
    path = tmp_path / "a"
    path.write_bytes(data[: int(len(data) * share)])
    for act in (read_image, inspect):
        with pytest.raises(BadImage, match=r"truncated|not an image") as caught:
            act(path)
        assert caught.value.path == str(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>404</html>", "not an image"),
        (b"\xff\xd8\xff\xe0 no more than a beginning", "truncated"),
        (b"II*\0", "truncated or damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_other_damage(tmp_path, data, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(BadImage) as caught:
        read_image(path)
    assert caught.value.reason == reason
    assert isinstance(caught.value, UserError)


def test_damage_within_a_png(tmp_path, image):
    data = bytearray(encoded(image, "PNG"))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(BadImage, match="damaged"):
        inspect(path)


@given(
    st.binary(max_size=60),
    st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "AVIF"]),
    st.integers(0, 400),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_damage_raises_anything_else(tmp_path_factory, junk, kind, at):
    data = bytearray(encoded(Image.fromarray(noise(8, 8, 3)), kind))
    data[at : at + len(junk)] = junk
    path = tmp_path_factory.getbasetemp() / "junk"
    path.write_bytes(data)
    try:
        assert read_image(path).mode == "RGB"
    except BadImage as error:
        assert error.reason


def test_what_is_not_a_file(tmp_path):
    link = tmp_path / "link.jpg"
    link.symlink_to(tmp_path / "gone.jpg")
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    for path, reason in (
        (tmp_path / "none.jpg", "no such file"),
        (link, "broken link"),
        (tmp_path, "not a file"),
        (pipe, "not a file"),
    ):
        with pytest.raises(BadImage) as caught:
            read_image(path)
        assert caught.value.reason == reason


def test_permission_denied(tmp_path, monkeypatch, image):
    path = saved(tmp_path, image, "a.png")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(BadImage) as caught:
        read_image(path)
    assert caught.value.reason == "unreadable: permission denied"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [13_378, 40_000])
def test_decompression_bombs_are_refused(tmp_path, side):
    def chunk(kind, body):
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    header = side.to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert side**2 > MAX_PIXELS
    with pytest.raises(BadImage, match="too large"):
        inspect(path)


def test_the_error_survives_a_process_pool(tmp_path):
    error = pickle.loads(pickle.dumps(BadImage(tmp_path, "truncated")))
    assert (error.path, error.reason) == (str(tmp_path), "truncated")
