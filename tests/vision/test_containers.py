"""What picture files hold beside their pixels must neither hide the picture nor change it."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from bitinfer import vision
from bitinfer.errors import ImageError
from bitinfer.model import Preprocessing
from bitinfer.vision import containers
from helpers import encode, noise

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def with_chunk(png: bytes, inserted: bytes, *, before: bytes = b"IDAT") -> bytes:
    at = png.index(before) - 4
    return png[:at] + inserted + png[at:]


def same_pixels(data: bytes, image: Image.Image) -> bool:
    return np.array_equal(np.asarray(vision.decode(data)), np.asarray(image))


# PNG


IMAGE = noise(64, 80)
PNG = encode(IMAGE)
LONG_TEXT = zlib.compress(b"x" * (2 << 20))
ANCILLARY = {
    "profile of 2 MB": chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(2 << 20))),
    "damaged profile": chunk(b"iCCP", b"name\0\0garbage"),
    "text of 2 MB": chunk(b"zTXt", b"workflow\0\0" + LONG_TEXT),
    "plain text of 2 MB": chunk(b"tEXt", b"workflow\0" + b"x" * (2 << 20)),
    "XMP of 2 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG_TEXT),
    "damaged XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0garbage"),
    "checksum of a text": chunk(b"tEXt", b"a\0b", crc=0),
    "checksum of a time": chunk(b"tIME", bytes(7), crc=0),
    "checksum of EXIF": chunk(b"eXIf", b"MM\0*", crc=0),
    "gamma of three bytes": chunk(b"gAMA", b"abc"),
    "empty physical size": chunk(b"pHYs", b""),
    "animation": chunk(b"acTL", struct.pack(">II", 3, 0)),
    "unknown": chunk(b"abCd", bytes(range(256))),
    "a scan's marker and an end": chunk(b"tEXt", b"a\0\xff\xda" + chunk(b"IEND", b"")),
}


@pytest.mark.parametrize("name", ANCILLARY)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_ancillary_chunks_do_not_hide_the_picture(name: str, before: bytes) -> None:
    assert same_pixels(with_chunk(PNG, ANCILLARY[name], before=before), IMAGE)


def test_many_long_texts_are_no_fault() -> None:
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"x" * 400_000))
    assert same_pixels(with_chunk(PNG, text * 300), IMAGE)


@pytest.mark.parametrize("wrap", ["eXIf", "text", "XMP"])
def test_what_says_which_way_is_up_is_kept(wrap: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    info = PngImagePlugin.PngInfo()
    if wrap == "eXIf":
        data = encode(IMAGE, exif=exif)
    elif wrap == "text":
        raw = exif.tobytes()
        info.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
        data = encode(IMAGE, pnginfo=info)
    else:
        info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>', zip=True)
        data = encode(IMAGE, pnginfo=info)
    assert same_pixels(data, IMAGE.transpose(Image.Transpose.ROTATE_180))


def test_a_png_of_endless_chunks_is_refused_soon() -> None:
    data = with_chunk(PNG, chunk(b"abCd", b"") * 300_000)
    start = time.process_time()
    with pytest.raises(ImageError, match="262144 chunks; save it anew"):
        vision.decode(data)
    assert time.process_time() - start < 2


# Transparency and depth: against the definition in the PNG standard, section 11.3.2.1


def png(depth: int, colour: int, samples: np.ndarray, transparent: tuple[int, ...]) -> bytes:
    """Encode samples (H, W, C) of ``depth`` bits, with one transparent colour."""
    height, width, _ = samples.shape
    bits = samples.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1) & 1
    rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
        chunk(b"IDAT", zlib.compress(raw)),
        chunk(b"IEND", b""),
    )
    return SIGNATURE + b"".join(parts)


@pytest.mark.parametrize("ground", ["black", "white"])
@pytest.mark.parametrize(
    ("colour", "depth"), [*(("grey", depth) for depth in (1, 2, 4, 8, 16)), ("rgb", 8), ("rgb", 16)]
)
def test_the_transparent_colour_lies_on_the_ground_at_every_depth(
    depth: int, colour: str, ground: str
) -> None:
    channels = 1 if colour == "grey" else 3
    rng = np.random.default_rng(depth)
    samples = rng.integers(0, 1 << depth, (9, 17, channels))
    transparent = tuple(int(v) for v in samples[4, 5])
    data = png(depth, 0 if channels == 1 else 2, samples, transparent)
    preprocessing = Preprocessing(color="grey", mean=(0.0,), std=(1.0,), ground=ground)
    decoded = np.asarray(vision.decode(data, preprocessing).convert("RGB"))
    top = (1 << depth) - 1
    wanted = samples >> 8 if depth == 16 else samples * 255 // top
    wanted = np.broadcast_to(wanted, (9, 17, 3)).copy()
    hidden = (samples == transparent).all(axis=-1)
    assert hidden.any()
    wanted[hidden] = 255 if ground == "white" else 0
    assert np.array_equal(decoded, wanted)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_ground_is_that_of_the_preprocessing(kind: str) -> None:
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], np.uint8)
    data = encode(Image.fromarray(pixels), kind, lossless=True)
    white = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3, ground="white")
    assert np.asarray(vision.decode(data, white)).tolist() == [[[200, 100, 50], [255] * 3]]
    assert np.asarray(vision.decode(data)).tolist() == [[[200, 100, 50], [0] * 3]]


# JPEG


RESIZED = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3, resize=(28, 28))


def jpeg(width: int, height: int, **options: object) -> bytes:
    small = noise(max(2, height // 40), max(2, width // 40))
    return encode(small.resize((width, height), Image.Resampling.BICUBIC), "JPEG", **options)


def test_bytes_behind_the_end_of_a_jpeg_do_not_count_as_scans() -> None:
    data = jpeg(2400, 2000)
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 100_000
    for trailer in (film, data, bytes(1000)):
        decoded = vision.decode(data + trailer, RESIZED)
        assert np.array_equal(np.asarray(decoded), np.asarray(vision.decode(data, RESIZED)))
    assert containers.count_scans(data + film) == 1


def test_scans_in_a_thumbnail_or_a_comment_do_not_count() -> None:
    data = jpeg(200, 200)
    comment = b"\xff\xda" * 30_000
    segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    exif = Image.Exif()
    filled = data[:2] + segment * 40 + data[2:]
    assert containers.count_scans(filled) == 1
    assert vision.decode(filled).size == (200, 200)
    assert containers.count_scans(encode(noise(), "JPEG", progressive=True, exif=exif)) > 3


def test_segments_without_end_are_refused() -> None:
    data = jpeg(64, 64)
    with pytest.raises(ImageError, match="65536 segments; save it anew"):
        vision.decode(data[:2] + b"\xff\xfe\0\2" * 70_000 + data[2:])


@pytest.mark.parametrize("size", [(8064, 6048), (6048, 8064)])
def test_photos_of_48_megapixels_are_read_small(size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(*size, quality=50, exif=exif)
    decoded = vision.decode(data, RESIZED)
    assert vision.size_of(decoded) == size[::-1]
    assert decoded.width * decoded.height == size[0] * size[1] // 64
    pixels = vision.prepare(decoded, RESIZED, (28, 28, 3))
    full = Image.open(io.BytesIO(data)).convert("RGB").transpose(Image.Transpose.ROTATE_270)
    wanted = np.asarray(full.resize((28, 28), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pixels - wanted).max() <= 6


def test_small_jpegs_and_those_that_are_not_resized_are_decoded_in_full() -> None:
    data = jpeg(1600, 1200)
    assert vision.decode(data, RESIZED).size == (1600, 1200)
    plain = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    assert vision.decode(jpeg(3000, 2000), plain).size == (3000, 2000)
    with pytest.raises(ImageError, match="at most 25000000"):
        vision.decode(jpeg(8064, 6048), plain)


@pytest.mark.parametrize("resize", [700, (300, 900)])
def test_a_jpeg_is_never_decoded_smaller_than_twice_what_is_wanted(resize: object) -> None:
    preprocessing = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3, resize=resize)
    decoded = vision.decode(jpeg(4000, 3000), preprocessing)
    wanted = (1400, 1400) if resize == 700 else (1800, 1800)
    assert decoded.width >= wanted[0] or decoded.height >= wanted[1]
    assert min(decoded.size) >= 1400


def test_progressive_jpegs_have_a_lower_limit() -> None:
    header = bytearray(encode(Image.new("L", (8, 8)), "JPEG", progressive=True))
    at = header.index(b"\xff\xc2") + 5
    header[at : at + 4] = struct.pack(">HH", 10_000, 10_000)
    with pytest.raises(ImageError, match="10000x10000 pixels, at most 64000000"):
        vision.decode(bytes(header), RESIZED)


# PNM


def test_comments_in_a_pnm_are_bounded() -> None:
    assert vision.decode(b"P5 # a comment\n#another\n 2 1\n255\n\x07\x09").size == (2, 1)
    start = time.process_time()
    with pytest.raises(ImageError, match="comments of the PNM take over 65536 bytes; remove them"):
        vision.decode(b"P5\n#" + b"x" * 5_000_000 + b"\n2 1 255\n\x07\x09")
    with pytest.raises(ImageError, match="comments"):
        vision.decode(b"P4\n" + b"#\n" * 2_000_000 + b"2 1\n\0")
    assert time.process_time() - start < 1


@pytest.mark.parametrize("size", [(12_000, 9_000)])
def test_a_large_pnm_is_no_long_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="12000x9000 pixels"):
        vision.decode(b"P5\n%d %d 255\n" % size + bytes(100_000))


# Kinds


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"GIF89a", "a GIF"),
        (b"II*\0\x08\0\0\0", "a TIFF"),
        (b"MM\0*\0\0\0\x08", "a TIFF"),
        (b"\0\0\0\x18ftypheic", "a HEIC picture"),
        (b"\0\0\0\x20ftypavif", "an AVIF picture"),
        (b"\0\0\0\x18ftypmp42", "a film"),
        (b"\xff\x0a\xfa\x7f", "a JPEG XL picture"),
        (b"P3\n1 1 255\n0 0 0\n", "a PNM in text"),
        (b"%PDF-1.7", "a document"),
        (b"<svg xmlns=", "an SVG drawing"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"\x93NUMPY", "a NumPy array"),
    ],
)
def test_other_files_are_named(head: bytes, what: str) -> None:
    with pytest.raises(ImageError, match=rf"^x: {what}.*, not a picture that can be read here"):
        vision.decode(head + bytes(100), name="x")
