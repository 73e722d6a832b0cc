"""Reads wrong pictures, data sets, label files, mean images and benchmark reports.

    python attack_inputs.py KIND COUNT SEED

KIND is one of ATTACKS.  Half of the wrong PNGs have their checksums repaired, so that what reads
the chunks sees them.  Prints one JSON object.  Ends with a traceback and the file in question if
anything but what the file holds or a typed error comes of it, if one takes over SLOWEST_S, or if
memory runs out.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import resource
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

sys.path.insert(0, str(Path(__file__).with_name("datasets")))

from written import idx

from bitinfer import datasets, labels, vision
from bitinfer.errors import DataError, ImageError, InputError
from bitinfer.report import document, markdown, page, records
from helpers import COLOUR_PREPROCESSING, colour_model, encode, noise
from mutations import Mutations
from report_files import document as report_document
from report_files import row

MEMORY_BYTES = 1 << 30
"""Address space beyond what Python, NumPy and Pillow take to start with."""
SLOWEST_S = 5.0
"""Of the CPU's time: how long one takes must not depend on what else runs here."""

MODEL = colour_model()
PNG = b"\x89PNG\r\n\x1a\n"

Run = Callable[[bytes, Path], object]


def pictures() -> Iterator[bytes]:
    """Yield small pictures of every format and mode that is read, and of some that are not."""
    colour, grey = noise(), noise(channels=1)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("comment", "x" * 50)
    texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = colour.convert("RGBA")
    alpha.putalpha(grey)
    modes = (colour, grey, alpha, colour.quantize(9), grey.convert("1"), grey.convert("LA"))
    for image in modes:
        yield encode(image, pnginfo=texts, exif=exif)
    yield encode(Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24)))
    yield encode(colour.quantize(9), transparency=3)
    for image in (colour, grey, colour.convert("CMYK")):
        yield encode(image, "JPEG", exif=exif)
        yield encode(image, "JPEG", progressive=True, comment=b"x" * 9)
    for image in (colour, grey, grey.convert("1"), colour.quantize(9)):
        yield encode(image, "BMP")
    for image in (colour, grey, grey.convert("1")):
        yield encode(image, "PPM")
    for options in ({"lossless": True}, {"quality": 50}):
        yield encode(alpha, "WEBP", exif=exif, **options)
    yield encode(colour, "WEBP", save_all=True, append_images=[colour])
    yield encode(colour, "GIF")
    yield encode(colour, "TIFF")


def data_sets() -> Iterator[bytes]:
    """Yield data sets of MNIST, CIFAR and NumPy."""
    pixels = np.arange(3 * 8 * 8).reshape(3, 8, 8) % 251
    yield idx(pixels)
    yield gzip.compress(idx(pixels))
    rows = np.arange(3 * 3072).reshape(3, 3072).astype(np.uint8)
    yield np.insert(rows, 0, [0, 1, 2], axis=1).tobytes()
    for protocol in range(6):
        yield pickle.dumps({b"data": rows, b"labels": [0, 1, 2]}, protocol)
    for save in (np.savez, np.savez_compressed):
        for images in (pixels.astype(np.uint8), np.stack([pixels] * 3, -1).astype(np.uint8)):
            file = io.BytesIO()
            save(file, images=images, labels=np.array([0, 1, 2]))
            yield file.getvalue()


def label_files() -> Iterator[bytes]:
    """Yield lists of labels of several encodings and line ends."""
    text = "red\ngreen\r\nblåbär\r\n雪\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"):
        yield text.encode(encoding)
    yield "rouge\nvert\nblé\n".encode("latin-1")


def mean_images() -> Iterator[bytes]:
    """Yield mean images of NumPy and of Caffe."""
    for kind in (np.float32, np.float64, np.uint8):
        for shape in ((8, 8, 3), (3, 8, 8), (1, 8, 8, 3), (8, 8)):
            file = io.BytesIO()
            np.save(file, np.ones(shape, kind))
            yield file.getvalue()
    values = struct.pack("<192f", *range(192))
    sizes = b"".join(bytes((8 * field, n)) for field, n in ((1, 1), (2, 3), (3, 8), (4, 8)))
    yield sizes + b"\x2a\x80\x06" + values


def reports() -> Iterator[bytes]:
    """Yield results of benchmarks."""
    rows = [
        row(engine, layer=layer, suite=suite)
        for suite in ("layers", "networks", "figure4", "narrow")
        for layer in ("R1", "R3")
        for engine in ("bitinfer", "onnxruntime-int8")
    ]
    yield json.dumps(report_document(*rows)).encode()
    yield json.dumps(report_document(*rows[:2])).encode()


def read_picture(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    image = vision.decode(path, COLOUR_PREPROCESSING)
    vision.prepare(image, COLOUR_PREPROCESSING, (8, 8, 3))


def read_data_set(data: bytes, path: Path) -> None:
    # What a file is shows from its content, but for CIFAR's records, and idx has its labels beside.
    name = path.with_name("t10k-images-idx3-ubyte")
    if len(data) % 3073 == 0:
        name = path.with_name("test_batch.bin")
    name.write_bytes(data)
    path.with_name("t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(3)))
    for _ in datasets.load(name, MODEL):
        pass


def read_labels(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    for label in labels.read(path).names:
        assert len(label) <= labels.MAX_LENGTH


def read_mean_image(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    vision.read_mean_image(path, COLOUR_PREPROCESSING, (8, 8, 3))


def read_report(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    blocks = document.build([records.read(path)])
    page.render(blocks)
    markdown.render(blocks)


ATTACKS: dict[str, tuple[Callable[[], Iterator[bytes]], Run, tuple[type[Exception], ...]]] = {
    "pictures": (pictures, read_picture, (ImageError,)),
    "data_sets": (data_sets, read_data_set, (DataError,)),
    "labels": (label_files, read_labels, (InputError,)),
    "mean_images": (mean_images, read_mean_image, (InputError,)),
    "reports": (reports, read_report, (DataError,)),
}


class Mutator(Mutations):
    """Makes wrong files of the good ones of a kind."""

    def __init__(self, kind: str, seed: int) -> None:
        super().__init__(seed)
        self.good = list(ATTACKS[kind][0]())

    def __call__(self) -> bytes:
        """Return one more file."""
        data = self.rng.choice(self.good)
        if data.startswith(b"PK\x03\x04") and self.rng.randrange(4):
            return self.rezipped(data)
        if data.startswith(b"\x1f\x8b") and self.rng.randrange(2):
            return gzip.compress(self.changed(gzip.decompress(data)))
        data = self.text(data)
        return self.repaired(data) if self.rng.randrange(2) else data

    def repaired(self, data: bytes) -> bytes:
        """Write the checksums of a PNG's chunks anew, as far as there are chunks."""
        if not data.startswith(PNG):
            return data
        result, at = bytearray(data), len(PNG)
        while at + 12 <= len(data):
            end = at + 8 + int.from_bytes(data[at : at + 4])
            if end + 4 > len(data):
                break
            result[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
            at = end + 4
        return bytes(result)


def main(kind: str, count: int, seed: int) -> None:
    _, run, typed = ATTACKS[kind]
    mutate = Mutator(kind, seed)
    # A warning would reach whoever reads a picture.
    warnings.simplefilter("error")
    read = 0
    slowest = 0.0
    reasons = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        for good in mutate.good:  # what is imported on first use must be there before the limit
            try:
                run(good, path)
            except typed as error:
                reasons.add(str(error))
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES,) * 2)
        for number in range(count):
            data = mutate()
            where = f"file {number} of seed {seed}"
            began = time.process_time()
            try:
                run(data, path)
                read += 1
            except typed as error:
                reasons.add(str(error))
            except BaseException:
                print(f"{where}:", base64.b64encode(data[:20_000]).decode())
                raise
            took = time.process_time() - began
            slowest = max(slowest, took)
            assert took < SLOWEST_S, f"{where} took {took} s"
        unfit = [r for r in reasons if not r.isprintable() or len(r) > 600 or folder not in r]
    assert not unfit, f"no line that says where: {unfit[0]!r}"
    kinds = len({reason.removeprefix(folder)[:30] for reason in reasons})
    print(json.dumps({"files": count, "read": read, "reasons": kinds, "slowest_s": slowest}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
