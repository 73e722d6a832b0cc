"""Mean images: from a file to what is subtracted from every pixel, against plain arithmetic."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import msgspec
import numpy as np
import pytest

import bitinfer
from bitinfer import integer_ends, modelfile, vision
from bitinfer.errors import ConversionError, GraphError, InputError, ModelFileError, ShapeError
from bitinfer.model import Model, Preprocessing
from helpers import colour_model, noise

BGR = Preprocessing(
    color="bgr",
    mean=(0.0,) * 3,
    std=(2.0, 3.0, 4.0),
    scale=0.5,
    resize=(12, 12),
    crop=(8, 8),
    mean_image="mean",
)
IMAGE = np.random.default_rng(1).uniform(0, 255, (8, 8, 3)).astype(np.float32)


def with_mean_image(image: np.ndarray = IMAGE, preprocessing: Preprocessing = BGR) -> Model:
    model = colour_model(preprocessing=preprocessing)
    return dataclasses.replace(model, tensors={**model.tensors, "mean": image})


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_pixels_are_less_their_mean_image(backend: str, tmp_path: Path) -> None:
    modelfile.save(with_mean_image(), tmp_path / "m.bin")
    session = bitinfer.load(tmp_path / "m.bin", backend)
    session.warmup(pixels=True)
    picture = noise(16, 16)
    resized = np.asarray(picture.resize((12, 12), 2))[2:10, 2:10, ::-1]
    wanted = (resized - IMAGE.astype(np.float64)) * 0.5 / np.array([2.0, 3.0, 4.0])
    pixels = session.prepare(picture)
    assert np.array_equal(pixels, resized)
    assert np.array_equal(session.run(pixels), session.run(wanted.astype(np.float32)))
    batch = np.stack([pixels, 255 - pixels])
    assert np.array_equal(session.run(batch)[0], session.run(pixels))
    best = session.classify(picture, 1)[0]
    assert best.index == int(session.run(pixels).argmax())
    with pytest.raises(ShapeError, match="wanted"):
        session.run(pixels[:4])


def test_a_file_with_a_mean_image_gives_it_back() -> None:
    data = modelfile.to_bytes(with_mean_image())
    model = modelfile.from_bytes(data)
    assert model.preprocessing == BGR
    assert np.array_equal(model.tensors["mean"], IMAGE)
    assert modelfile.to_bytes(model) == data


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (IMAGE[:4], ShapeError, r"float32\(4, 8, 3\), wanted float32\(8, 8, 3\)"),
        (IMAGE.astype(np.uint8), ShapeError, "uint8"),
        (IMAGE - 200, ShapeError, "not within 0 to 255"),
        (np.full_like(IMAGE, np.nan), ShapeError, "not within 0 to 255"),
    ],
    ids=["shape", "type", "negative", "nan"],
)
def test_a_mean_image_that_does_not_fit_is_refused(
    image: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _ = with_mean_image(image).checked


def test_a_mean_image_that_is_missing_or_used_is_refused() -> None:
    absent, unused = (msgspec.structs.replace(BGR, mean_image=name) for name in ("nothing", None))
    with pytest.raises(GraphError, match="there is no tensor nothing"):
        _ = colour_model(preprocessing=absent).checked
    with pytest.raises(GraphError, match="'mean' is used by no node"):
        _ = with_mean_image(preprocessing=unused).checked
    model = colour_model()
    weight = next(iter(model.tensors))
    taken = msgspec.structs.replace(BGR, mean_image=weight)
    with pytest.raises(GraphError, match="there is no tensor"):
        _ = colour_model(preprocessing=taken).checked


def test_integer_ends_refuse_a_mean_image() -> None:
    with pytest.raises(ConversionError, match="mean image"):
        integer_ends.integer_ends(with_mean_image())


# Files


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def blob(array: np.ndarray, *, packed: bool = True) -> bytes:
    """Write a BlobProto of caffe.proto."""
    sizes = b"".join(varint(i << 3) + varint(n) for i, n in enumerate(array.shape, start=1))
    numbers = array.astype("<f4").tobytes()
    if packed:
        return sizes + varint(5 << 3 | 2) + varint(len(numbers)) + numbers
    return sizes + b"".join(
        varint(5 << 3 | 5) + numbers[i : i + 4] for i in range(0, len(numbers), 4)
    )


PLAIN = msgspec.structs.replace(BGR, mean_image=None)
FORMS = {
    "(H, W, C)": npy(IMAGE),
    "(C, H, W)": npy(np.moveaxis(IMAGE, -1, 0).astype(np.float64)),
    "(1, C, H, W)": npy(np.moveaxis(IMAGE, -1, 0)[None]),
    "columns": npy(np.asfortranarray(IMAGE)),
    "blob": blob(np.moveaxis(IMAGE, -1, 0)[None]),
    "blob of single numbers": blob(np.moveaxis(IMAGE, -1, 0)[None], packed=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_files_of_every_form_are_read(form: str, tmp_path: Path) -> None:
    path = tmp_path / "mean"
    path.write_bytes(FORMS[form])
    found = vision.read_mean_image(path, PLAIN, (8, 8, 3))
    assert np.array_equal(found, IMAGE)
    assert found.dtype == np.float32


def test_an_image_of_the_resized_picture_is_cropped_as_it_is(tmp_path: Path) -> None:
    large = np.random.default_rng(3).uniform(0, 255, (12, 12, 3)).astype(np.float32)
    path = tmp_path / "mean.npy"
    path.write_bytes(npy(large))
    found = vision.read_mean_image(path, PLAIN, (8, 8, 3))
    assert np.array_equal(found, large[2:10, 2:10])
    side = msgspec.structs.replace(PLAIN, resize=12)
    assert np.array_equal(vision.read_mean_image(path, side, (8, 8, 3)), found)
    grey = msgspec.structs.replace(PLAIN, color="grey", mean=(0.0,), std=(1.0,))
    path.write_bytes(npy(large[..., 0]))
    assert np.array_equal(vision.read_mean_image(path, grey, (8, 8, 1)), large[2:10, 2:10, :1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(IMAGE[:7]), "a mean image of 7x8, wanted 8x8 or 12x12"),
        (npy(IMAGE[..., :2]), "of shape"),
        (npy(IMAGE - 300), "not within 0 to 255"),
        (npy(np.full((8, 8, 3), np.nan)), "not within 0 to 255"),
        (npy(np.full((8, 8, 3), None)), "no mean image that can be read"),
        (npy(IMAGE.astype(str)), "no mean image that can be read"),
        (npy(IMAGE)[:-9], "no mean image that can be read"),
        (FORMS["blob"][:-9], "no mean image that can be read"),
        (b"", "no Caffe blob"),
        (b"hello", "no mean image that can be read"),
        (blob(np.zeros((1, 3, 2, 2))) + b"\x10\x05", "12 numbers for a blob of"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mean"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path}: .*{message}") as caught:
        vision.read_mean_image(path, PLAIN, (8, 8, 3))
    assert "\n" not in str(caught.value)


def test_hostile_model_files_with_a_mean_image_are_refused() -> None:
    data = modelfile.to_bytes(with_mean_image())
    with pytest.raises(ModelFileError):
        modelfile.from_bytes(data.replace(b'mean_image\\":\\"mean', b'mean_image\\":\\"nean'))
