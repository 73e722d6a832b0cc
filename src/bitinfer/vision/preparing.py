"""From a decoded picture to the pixels that a network wants: colour, size, crop.

Colour conversion, resizing and centre crop follow torchvision on Pillow images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitinfer.errors import ImageError, ModelFileError
from bitinfer.model import Preprocessing
from bitinfer.vision.decoding import MAX_PIXELS, Pixels

if TYPE_CHECKING:
    from PIL import Image


def prepare(
    image: Image.Image,
    preprocessing: Preprocessing | None,
    input_shape: tuple[int, ...],
    *,
    name: str = "picture",
) -> Pixels:
    """Bring a decoded picture to the size and colours of a network's input (H, W, C), uint8.

    Colour conversion, resizing and centre crop follow torchvision on Pillow images: grey is ITU-R
    601 luma, filters are widened when the picture shrinks, the longer side is rounded down, and
    half a pixel of crop offset goes to the even side.

    Raises:
        ImageError: the picture does not have the wanted size and nothing says how to get there.
        ModelFileError: the model does not say how a picture becomes its input.
    """
    if preprocessing is None:
        raise ModelFileError(describe_lack(input_shape))
    try:
        image = image.convert("L" if preprocessing.color == "grey" else "RGB")
        image = _resize(image, preprocessing)
        image = _crop(image, preprocessing.crop)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except (MemoryError, ValueError) as error:
        raise ImageError(f"{name}: cannot be resized: {error}") from error
    height, width = input_shape[:2]
    if image.size != (width, height):
        raise ImageError(
            f"{name}: {image.width}x{image.height} pixels, the network wants {width}x{height} and "
            "its preprocessing does not resize; resize the picture, or convert the network again "
            "with --resize"
        )
    # A copy of its own: what Pillow hands out is read-only.
    pixels = np.array(image, dtype=np.uint8).reshape(height, width, -1)
    if preprocessing.color == "bgr":
        pixels = np.ascontiguousarray(pixels[..., ::-1])
    return ~pixels if preprocessing.invert else pixels


def describe_lack(input_shape: tuple[int, ...]) -> str:
    """Say why a model without preprocessing cannot take pictures, and what to do."""
    if len(input_shape) != 3:
        return (
            f"the network takes a vector of {input_shape[0]} values, not pictures; "
            "call it from Python with Session.run"
        )
    return (
        "the model has no preprocessing, which says how a picture becomes its input; convert the "
        "network again with --mean and --std, or call it from Python with Session.run"
    )


def keeps_pixels(
    preprocessing: Preprocessing, picture: tuple[int, ...], input_shape: tuple[int, ...]
) -> bool:
    """Tell whether :func:`prepare` would return a picture of shape (H, W, C) as it is."""
    height, width = input_shape[:2]
    return (
        picture == input_shape
        and not preprocessing.invert
        and preprocessing.color != "bgr"
        and preprocessing.resize in (None, (height, width), min(height, width))
        and preprocessing.crop in (None, (height, width))
    )


def from_pixels(pixels: Pixels) -> Image.Image:
    """Return (H, W), (H, W, 1) or (H, W, 3) bytes as a picture, as if it had been decoded."""
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    from PIL import Image

    wanted = preprocessing.resize
    if wanted is None:
        return image
    width, height = image.size
    if isinstance(wanted, int):
        shorter = min(width, height)
        size = (wanted * width // shorter, wanted * height // shorter)
    else:
        size = (wanted[1], wanted[0])
    if size == image.size:
        return image
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{width}x{height} pixels would be resized to {size[0]}x{size[1]}, at most "
            f"{MAX_PIXELS} pixels are allowed; crop the picture first"
        )
    filters = Image.Resampling
    resampling = {
        "nearest": filters.NEAREST,
        "box": filters.BOX,
        "bilinear": filters.BILINEAR,
        "bicubic": filters.BICUBIC,
        "lanczos": filters.LANCZOS,
    }[preprocessing.interpolation]
    return image.resize(size, resampling)


def _crop(image: Image.Image, crop: tuple[int, int] | None) -> Image.Image:
    if crop is None or (crop[1], crop[0]) == image.size:
        return image
    height, width = crop
    if image.width < width or image.height < height:
        raise ImageError(
            f"{image.width}x{image.height} pixels before the crop to {width}x{height}; "
            "the picture is too small, enlarge it"
        )
    left, top = centre(image.width, width), centre(image.height, height)
    return image.crop((left, top, left + width, top + height))


def centre(length: int, wanted: int) -> int:
    """Return where the middle ``wanted`` of ``length`` pixels begin, rounded to the even place."""
    extra = length - wanted
    return extra // 2 + (extra % 4 == 3)
