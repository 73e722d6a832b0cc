"""Small pictures, models and hostile files that several tests need."""

from __future__ import annotations

import dataclasses
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from bitinfer import modelfile
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model, Preprocessing, Provenance

COLOUR_PREPROCESSING = Preprocessing(color="rgb", mean=(0.5,) * 3, std=(0.5,) * 3, resize=(8, 8))
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def solid(colour: str, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """Return a picture of one of COLOURS."""
    return Image.new("RGB", size, COLOURS[colour])


def noise(height: int = 20, width: int = 24, channels: int = 3, seed: int = 0) -> Image.Image:
    """Return a picture of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def bomb_png(width: int = 11_700, height: int = 11_700) -> bytes:
    """Return a PNG of about 17 KB that unpacks to over 400 MB of RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    compressor = zlib.compressobj(9)
    row = bytes(width // 8 + 2)
    data = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def colour_model(
    *,
    size: int = 8,
    labels: tuple[str, ...] = tuple(COLOURS),
    preprocessing: Preprocessing | None = COLOUR_PREPROCESSING,
) -> Model:
    """Return a network that tells red, green and blue apart: the brightest channel wins."""
    b = GraphBuilder("colours", input_shape=(size, size, 3))
    x = b.flatten(b.avg_pool2d(b.input, size), "channels_last")
    x = b.dense(x, 4 * np.eye(3), name="score")
    return Model(*b.build(x), labels=labels, preprocessing=preprocessing)


def mean_image_model() -> Model:
    """Return a network of colours that subtracts a picture from its input."""
    model = colour_model()
    assert model.preprocessing is not None
    p = msgspec.structs.replace(model.preprocessing, mean=(0.0,) * 3, mean_image="image")
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.float32)
    return dataclasses.replace(model, tensors={**model.tensors, "image": image}, preprocessing=p)


def converted(folder: Path) -> tuple[Path, Path]:
    """Write a small network of BNN-PYNQ, and the model that it becomes; return model and source."""
    from bitinfer.importers.convert import convert
    from bitinfer.importers.options import Options

    rng = np.random.default_rng(2)
    arrays: dict[str, Any] = {"t0": np.full(20, 11), "t1": np.zeros(3, int)}
    for i, (outputs, inputs) in enumerate(((20, 25), (3, 20))):
        signs = rng.integers(0, 2, outputs * inputs).astype(np.uint8)
        arrays[f"w{i}_bits"] = np.packbits(signs, bitorder="little")
        arrays[f"w{i}_shape"] = np.array([outputs, inputs])
    source = folder / "bits.npz"
    np.savez(source, **arrays)
    model, _ = convert(source, options=Options(scale=1.0))
    return save(model, folder / "bits.bin"), source


def binary_model() -> Model:
    """Return a small network with binary layers, made of fixed random weights."""
    rng = np.random.default_rng(7)
    b = GraphBuilder("binary", input_shape=(8, 8, 1))
    x = b.conv2d(b.input, rng.standard_normal((20, 3, 3, 1)), padding=1)
    x = b.sign(b.relu(b.batch_norm(x, np.ones(20), np.ones(20))))
    x = b.bconv2d(x, rng.standard_normal((70, 3, 3, 20)), alpha=np.ones(70), padding=1, name="body")
    x = b.sign(b.max_pool2d(x, 2))
    x = b.bdense(b.flatten(x, "channels_first"), rng.standard_normal((10, 1120)), name="head")
    return Model(
        *b.build(x),
        preprocessing=Preprocessing(color="grey", mean=(0.0,), std=(1.0,)),
        provenance=Provenance(importer="tests", source="nowhere", notes=("a\nb",)),
    )


def save(model: Model, path: Path) -> Path:
    """Write a model file and return its path."""
    modelfile.save(model, path)
    return path


def run_process(*args: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run ``bitinfer`` in a process of its own."""
    command = [sys.executable, "-m", "bitinfer", *map(str, args)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **options)
