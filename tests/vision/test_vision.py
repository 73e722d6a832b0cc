"""Decoding and preparing pictures: every kind, and everything that strangers may send."""

from __future__ import annotations

import gzip
import io
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from bitinfer import vision
from bitinfer.errors import ImageError, ModelFileError
from bitinfer.model import Preprocessing
from bitinfer.vision import containers, preparing
from helpers import bomb_png, encode, noise, solid

RGB = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
GREY = Preprocessing(color="grey", mean=(0.0,), std=(1.0,))

LOSSLESS = [("PNG", {}), ("BMP", {}), ("PPM", {}), ("WEBP", {"lossless": True})]
ENCODINGS = [*LOSSLESS, ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {})]


def with_resize(resize: object, crop: object = None, color: str = "rgb") -> Preprocessing:
    channels = 3 if color == "rgb" else 1
    return Preprocessing(
        color=color, mean=(0.0,) * channels, std=(1.0,) * channels, resize=resize, crop=crop
    )


# Kinds of picture


@pytest.mark.parametrize(("kind", "options"), LOSSLESS, ids=str)
def test_lossless_pictures_keep_every_pixel(kind: str, options: dict[str, object]) -> None:
    image = noise()
    decoded = vision.decode(encode(image, kind, **options))
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(image))


MODES = {
    "PNG": ("1", "L", "P", "LA", "RGB", "RGBA", "I;16"),
    "JPEG": ("1", "L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("1", "L", "P", "PA", "LA", "RGB", "RGBA", "CMYK"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "RGBA", "I;16", "I"),
}


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes]
)
def test_every_mode_that_a_format_holds_is_read(kind: str, mode: str) -> None:
    if mode.startswith("I"):
        image = Image.fromarray(np.full((20, 24), 300, np.uint16)).convert(mode)
    else:
        image = noise().convert(mode[0] if mode == "PA" else mode).convert(mode)
    data = encode(image, kind)
    decoded = vision.decode(data)
    assert decoded.size == image.size
    assert decoded.mode in ("L", "RGB")
    for preprocessing, channels in ((RGB, 3), (GREY, 1)):
        pixels = vision.prepare(decoded, preprocessing, (20, 24, channels))
        assert pixels.shape == (20, 24, channels)
        assert pixels.dtype == np.uint8


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    values = np.array([[0, 255, 256, 511, 32768, 65535]], np.uint16)
    data = encode(Image.fromarray(values), "PNG")
    assert np.asarray(vision.decode(data)).tolist() == [[0, 0, 1, 1, 128, 255]]
    pgm = b"P5 6 1 65535\n" + values.astype(">u2").tobytes()
    assert np.asarray(vision.decode(pgm)).tolist() == [[0, 0, 1, 1, 128, 255]]


def test_transparent_pixels_lie_on_black() -> None:
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 128], [200, 100, 50, 0]]], np.uint8)
    decoded = np.asarray(vision.decode(encode(Image.fromarray(pixels))))
    assert decoded.tolist() == [[[200, 100, 50], [100, 50, 25], [0, 0, 0]]]


def test_transparent_palette_entries_and_colours_lie_on_black() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    decoded = vision.decode(encode(palette, transparency=1))
    assert np.asarray(decoded).tolist() == [[[10, 20, 30], [0, 0, 0]]]
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    decoded = vision.decode(encode(grey, transparency=9)).convert("L")
    assert np.asarray(decoded).tolist() == [[7, 0]]


def test_cmyk_becomes_rgb() -> None:
    decoded = vision.decode(
        encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    )
    red, green, blue = np.asarray(decoded)[4, 4]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_pictures_are_turned_upright(orientation: int, kind: str) -> None:
    image = noise()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, kind, exif=exif, lossless=True)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(np.asarray(vision.decode(data)), np.asarray(wanted))


def test_sixteen_bit_pictures_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.array([[256, 512, 768]], np.uint16)
    decoded = vision.decode(encode(Image.fromarray(values), exif=exif))
    assert np.asarray(decoded).tolist() == [[1], [2], [3]]


def test_damaged_metadata_do_not_hide_the_picture() -> None:
    image = noise()
    data = encode(image, exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage")
    assert np.array_equal(np.asarray(vision.decode(data)), np.asarray(image))


def test_name_does_not_decide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encode(solid("red"), "PNG"))
    assert vision.decode(path).size == (8, 8)


def test_path_text_bytes_and_file_give_the_same_picture(tmp_path: Path) -> None:
    data = encode(noise())
    path = tmp_path / "a.png"
    path.write_bytes(data)
    sources = [path, str(path), data, io.BytesIO(data)]
    pictures = {vision.decode(source).tobytes() for source in sources}
    assert len(pictures) == 1


# What strangers send


def test_what_is_no_source_names_what_is_taken() -> None:
    with pytest.raises(ImageError, match=r"came as dict, .* an array uint8 .*, a Pillow image"):
        vision.decode({})


def test_text_named_png_is_an_image_error_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not a picture\n")
    with pytest.raises(ImageError, match=r"notes\.png: not a picture") as caught:
        vision.decode(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF",
        b"RIFF\0\0\0\0WEBP",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"BM",
        b"P6",
        b"P6 # a comment without an end",
        b"P5 0 4 255\n",
        b"P5 4 4 99999999999\n",
        b"P2 1 1 255 7\n",
        b"GIF89a" + bytes(30),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"BM" + struct.pack("<IIIIiiHHI", 0, 0, 54, 40, 0, 5, 1, 24, 0),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_bytes_that_are_no_picture_are_an_image_error(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^upload: "):
        vision.decode(data, name="upload")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P5 0 4 255\n", "its header speaks of no pixels"),
        (gzip.compress(b"picture", mtime=0), "a file compressed by gzip"),
        (b"\x89PNG\r\r\n\x1a\r\n", "a PNG whose line ends were changed"),
        (b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\0\x10JFIF", "a picture saved as text"),
        (b"data:image/png;base64,iVBORw0KGgo=", "a picture in base64"),
        (b"\x89PNG\r\n", "not a picture that can be read here"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_message_names_why_there_is_no_picture(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        vision.decode(data)


def test_bomb_is_rejected_before_a_pixel_is_decoded() -> None:
    data = bomb_png()
    assert len(data) < 20_000
    start = time.process_time()
    with pytest.raises(ImageError, match="11700x11700 pixels, at most 25000000"):
        vision.decode(data)
    assert time.process_time() - start < 0.5


def test_pixels_and_sides_have_limits_of_their_own() -> None:
    assert vision.decode(bomb_png(100_000, 20)).size == (100_000, 20)
    with pytest.raises(ImageError, match="at most 25000000"):
        vision.decode(bomb_png(25_000_001, 1))
    for size in ((25_000_000, 1), (1, 25_000_000)):
        with pytest.raises(ImageError, match="a side may have at most 131072"):
            vision.decode(bomb_png(*size))


@pytest.mark.parametrize(
    "first",
    [
        b"VP8X" + struct.pack("<IB3x", 10, 0) + b"\xff\xff\x00" * 2,
        b"VP8L" + struct.pack("<IBI", 5, 0x2F, 0x0FFF_FFFF) + bytes(9),
        b"VP8 " + struct.pack("<I", 10) + b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f",
    ],
    ids=["extended", "lossless", "lossy"],
)
def test_webp_canvas_is_checked_before_its_decoder_allocates_it(first: bytes) -> None:
    data = b"RIFF" + struct.pack("<I", len(first) + 4) + b"WEBP" + first
    with pytest.raises(ImageError, match="at most 25000000"):
        vision.decode(data)


@pytest.mark.parametrize("lossless", [False, True])
def test_size_in_a_webp_header_is_the_size_of_the_picture(lossless: bool) -> None:
    data = encode(noise(height=33, width=70), "WEBP", lossless=lossless)
    assert containers.webp_size(data) == (70, 33)
    exif = Image.Exif()
    exif[0x0112] = 1
    extended = encode(noise(height=33, width=70), "WEBP", lossless=lossless, exif=exif)
    assert extended[12:16] == b"VP8X"
    assert containers.webp_size(extended) == (70, 33)


def test_jpeg_of_endless_scans_is_rejected() -> None:
    data = encode(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert vision.decode(data).size == (2000, 2000)
    with pytest.raises(ImageError, match="scans"):
        vision.decode(data[:-2] + last * 1000 + data[-2:])


def test_kinds_that_are_decoded_slowly_have_a_lower_limit() -> None:
    assert vision.decode(b"P5 10 10 100\n" + bytes([50]) * 100).getpixel((0, 0)) == 128
    with pytest.raises(ImageError, match="save it as PNG"):
        vision.decode(b"P5 1001 1001 100\n" + bytes(1001 * 1001))


def test_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.write(encode(solid("red")))
        file.truncate(1 << 40)
    with pytest.raises(ImageError, match="bytes, pictures have at most"):
        vision.decode(path)


def test_folder_pipe_device_and_missing_file_are_image_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png", Path("/dev/zero"), tmp_path / "none.png"):
        with pytest.raises(ImageError, match=str(path)):
            vision.decode(path)
    with pytest.raises(ImageError):
        vision.decode("a\0b.png")


def test_refused_files_leave_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(ImageError):
            vision.decode(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(("kind", "options"), ENCODINGS, ids=str)
def test_picture_cut_anywhere_is_an_image_error(kind: str, options: dict[str, object]) -> None:
    data = encode(noise(12, 16), kind, **options)  # BMP needs no padding after such rows
    vision.decode(data)
    for length in range(len(data)):
        with pytest.raises(ImageError):
            vision.decode(data[:length])


MUTATED = [encode(noise(12, 14), kind, **options) for kind, options in ENCODINGS]


@given(
    st.sampled_from(MUTATED),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_mutated_pictures_decode_or_are_image_errors(
    data: bytes, changes: list[tuple[int, int]]
) -> None:
    mutated = bytearray(data)
    for position, value in changes:
        mutated[position % len(mutated)] = value
    try:
        image = vision.decode(bytes(mutated))
    except ImageError:
        return
    assert image.mode in ("L", "RGB")
    assert image.width * image.height <= vision.MAX_PIXELS


@pytest.mark.parametrize(
    "failure",
    [OSError, SyntaxError, ValueError, struct.error, MemoryError, OverflowError, EOFError],
)
def test_whatever_pillow_raises_becomes_an_image_error(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise failure

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(ImageError, match=r"^x\.png: "):
        vision.decode(encode(solid("red")), name="x.png")


# Preparing


def test_picture_of_the_right_size_is_passed_as_it_is() -> None:
    image = noise()
    pixels = vision.prepare(image, RGB, (20, 24, 3))
    assert np.array_equal(pixels, np.asarray(image))
    assert pixels.flags.writeable


def test_grey_is_itu_601_luma() -> None:
    image = noise()
    r, g, b = np.moveaxis(np.asarray(image).astype(np.int64), -1, 0)
    wanted = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    pixels = vision.prepare(image, GREY, (20, 24, 1))
    assert np.array_equal(pixels[..., 0], wanted)


def test_grey_picture_fills_all_colours() -> None:
    image = noise(channels=1)
    pixels = vision.prepare(image, RGB, (20, 24, 3))
    assert all(np.array_equal(pixels[..., c], np.asarray(image)) for c in range(3))


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
def test_exact_resize_is_pillows(name: str) -> None:
    image = noise(40, 50)
    preprocessing = Preprocessing(
        color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3, resize=(16, 12), interpolation=name
    )
    wanted = image.resize((12, 16), Image.Resampling[name.upper()])
    pixels = vision.prepare(image, preprocessing, (16, 12, 3))
    assert np.array_equal(pixels, np.asarray(wanted))


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((100, 50), (40, 20)), ((50, 100), (20, 40)), ((33, 50), (20, 30)), ((20, 20), (20, 20))],
)
def test_shorter_side_decides_and_the_longer_is_rounded_down(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    preprocessing = with_resize(20, (20, 20))
    resized = preparing._resize(solid("red", size), preprocessing)
    assert resized.size == wanted
    assert vision.prepare(solid("red", size), preprocessing, (20, 20, 3)).shape == (20, 20, 3)


@pytest.mark.parametrize("extra", range(9))
def test_crop_is_centred_as_torchvision_rounds(extra: int) -> None:
    width = 10 + extra
    ramp = np.repeat(np.arange(width, dtype=np.uint8)[None], width, axis=0)
    pixels = vision.prepare(Image.fromarray(ramp), with_resize(None, (10, 10), "grey"), (10, 10, 1))
    start = round((width - 10) / 2.0)
    assert pixels[0, :, 0].tolist() == list(range(start, start + 10))
    turned = vision.prepare(
        Image.fromarray(ramp.T.copy()), with_resize(None, (10, 10), "grey"), (10, 10, 1)
    )
    assert turned[:, 0, 0].tolist() == list(range(start, start + 10))


def test_picture_of_another_size_needs_a_rule() -> None:
    with pytest.raises(ImageError, match=r"cat: 24x20 pixels, the network wants 8x8 .* --resize"):
        vision.prepare(noise(), RGB, (8, 8, 3), name="cat")


def test_picture_smaller_than_the_crop_is_refused() -> None:
    with pytest.raises(ImageError, match="too small"):
        vision.prepare(noise(), with_resize(None, (64, 64)), (64, 64, 3))


def test_thin_picture_is_not_blown_up() -> None:
    with pytest.raises(ImageError, match="would be resized to 5120000x256"):
        vision.prepare(solid("red", (20_000, 1)), with_resize(256, (224, 224)), (224, 224, 3))


def test_model_without_preprocessing_says_what_to_do() -> None:
    with pytest.raises(ModelFileError, match="--mean"):
        vision.prepare(noise(), None, (20, 24, 3))
    with pytest.raises(ModelFileError, match="vector of 784"):
        vision.prepare(noise(), None, (784,))


@pytest.mark.parametrize("resize", [None, 20, 24, (20, 24), (24, 20), (10, 10)], ids=str)
@pytest.mark.parametrize("crop", [None, (20, 24), (10, 10)], ids=str)
@pytest.mark.parametrize("color", ["rgb", "grey"])
def test_pixels_are_said_to_be_kept_only_where_they_are(
    resize: object, crop: object, color: str
) -> None:
    preprocessing = with_resize(resize, crop, color)
    input_shape = (20, 24, 3 if color == "rgb" else 1)
    if vision.keeps_pixels(preprocessing, (20, 24, 3), input_shape):
        pixels = vision.prepare(noise(), preprocessing, input_shape)
        assert np.array_equal(pixels, np.asarray(noise()))
    else:
        assert (resize, crop, color) != (None, None, "rgb")
