"""From a picture to the pixels that a network wants: decoding, colour, size.  No float arithmetic.

Pictures come from strangers.  They are read whole, from regular files, up to MAX_FILE_BYTES; the
format is found by its first bytes, never by the file name; the size is checked before a pixel is
decoded; work that a small file can ask for without bound is capped.  Whatever goes wrong becomes
one ImageError that names the file.

What a picture looks like here: first frame, upright (EXIF orientation applied), 8 bits a channel
(16-bit values keep their high byte), ``L`` or ``RGB``.  Transparent pixels are composited on black:
they add no light, and pictures whose hidden pixels are black look as they do to training code that
drops the alpha channel.  Colour profiles are ignored, as training code ignores them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ImageError, ModelFileError
from bitinfer.files import read_regular
from bitinfer.model import Preprocessing

if TYPE_CHECKING:
    from PIL import Image, ImageFile

MAX_FILE_BYTES = 64 << 20
"""Largest encoded picture."""
MAX_PIXELS = 25_000_000
"""Largest picture, before and after resizing."""
MAX_SCANNED_PIXELS = 100 * MAX_PIXELS
"""Most pixels that the scans of one JPEG may visit; a 42-byte scan visits all of them."""
MAX_SLOW_PIXELS = 1_000_000
"""Largest picture of the rare kinds that Pillow decodes in Python, at about 1 us a pixel."""

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"))
"""File names that are taken for pictures when a folder is listed."""

Source = str | os.PathLike[str] | bytes | BinaryIO
Pixels = NDArray[np.uint8]

_WANTED = "PNG, JPEG, WebP, BMP or binary PNM"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_SLOW_CODECS = ("ppm", "bmp_rle")

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def decode(source: Source, *, name: str | None = None) -> Image.Image:
    """Decode a picture from a path, its bytes or a binary file.

    Returns: a Pillow image of mode ``L`` or ``RGB``, upright, without transparency.
    Raises:  ImageError, which calls the picture ``name`` (default: its path).
    """
    data, name = _read(source, name)
    try:
        return _flatten(_turn_upright(_load(data)))
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode the picture") from error
    except Exception as error:  # Pillow raises whatever its decoders run into
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f"{name}: truncated or damaged picture ({reason})") from error


def prepare(
    image: Image.Image,
    preprocessing: Preprocessing | None,
    input_shape: tuple[int, ...],
    *,
    name: str = "picture",
) -> Pixels:
    """Bring a decoded picture to the size and colours of a network's input (H, W, C).

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
    return np.array(image, dtype=np.uint8).reshape(height, width, -1)


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
        and preprocessing.resize in (None, (height, width), min(height, width))
        and preprocessing.crop in (None, (height, width))
    )


def from_pixels(pixels: Pixels) -> Image.Image:
    """Return (H, W), (H, W, 1) or (H, W, 3) bytes as a picture, as if it had been decoded."""
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def pictures_in(
    folder: str | os.PathLike[str], on_error: Callable[[str, ImageError], None] | None = None
) -> Iterator[str]:
    """Yield the paths of the pictures in a folder and its subfolders, sorted folder by folder.

    Pictures are known by their suffix; hidden files and folders are passed over, links to folders
    are not followed.  ``on_error`` is given the path of a folder that cannot be listed, and the
    others are gone through; without it, ImageError is raised.
    """

    def refuse(error: OSError) -> None:
        problem = ImageError(f"{error.filename}: {error.strerror or error}")
        if on_error is None:
            raise problem from error
        on_error(os.fsdecode(error.filename), problem)

    for where, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(where, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES:
                yield str(path)


def _read(source: Source, name: str | None) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        name = name or "picture"
        data = source
    elif isinstance(source, str | os.PathLike):
        name = name or os.fspath(source)
        return read_regular(
            source, MAX_FILE_BYTES, error=ImageError, what="pictures", name=name
        ), name
    else:
        name = name or "picture"
        data = _read_stream(source, name)
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(
            f"{name}: over {MAX_FILE_BYTES} bytes, more than a picture may have; shrink it first"
        )
    return data, name


def _read_stream(file: BinaryIO, name: str) -> bytes:
    parts = []
    size = 0
    try:
        while size <= MAX_FILE_BYTES and (part := file.read(1 << 20)):
            parts.append(part)
            size += len(part)
        return b"".join(parts)
    except (OSError, ValueError, TypeError, MemoryError) as error:
        raise ImageError(f"{name}: cannot be read: {error}") from error


def _load(data: bytes) -> Image.Image:
    """Return the picture with its pixels decoded."""
    if not data:
        raise ImageError(f"empty, wanted a picture ({_WANTED})")
    image = _open(data)
    _check_size(*image.size)
    if image.format == "JPEG":
        _check_scans(data, image.width * image.height)
    if image.format == "PNG" and _PNG_END not in data:
        raise ImageError("truncated picture: the end of the PNG is missing")
    slow = any(tile[0] in _SLOW_CODECS for tile in image.tile)
    if slow and max(image.width * image.height, len(data)) > MAX_SLOW_PIXELS:
        raise ImageError(
            f"{image.width}x{image.height} pixels, this kind of {image.format} is read only up to "
            f"{MAX_SLOW_PIXELS} pixels and bytes; save it as PNG"
        )
    image.load()
    return image


def _open(data: bytes) -> ImageFile.ImageFile:
    """Return the picture with its header read, by the decoder that its first bytes ask for.

    ``Image.open`` is not used: it imports every decoder for the sake of WebP, lets others try, and
    where an error is wanted it gives a warning, which only process-wide filters turn into one.
    """
    file = io.BytesIO(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile(file)
    if data.startswith(b"\xff\xd8\xff"):
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(file)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        from PIL.WebPImagePlugin import WebPImageFile

        _check_size(*_webp_size(data))  # its decoder allocates the canvas at once
        return WebPImageFile(file)
    if data.startswith(b"BM"):
        from PIL.BmpImagePlugin import BmpImageFile

        return BmpImageFile(file)
    if data.startswith((b"P4", b"P5", b"P6")):
        from PIL.PpmImagePlugin import PpmImageFile

        return PpmImageFile(file)
    raise ImageError(f"not a picture that can be read here; wanted {_WANTED}")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{width}x{height} pixels, at most {MAX_PIXELS} are allowed; shrink the picture first"
        )


def _check_scans(data: bytes, pixels: int) -> None:
    # Inside compressed data the marker cannot occur; inside metadata it may, which the wide limit
    # allows for: encoders write about ten scans.
    scans = data.count(b"\xff\xda")
    if scans * pixels > MAX_SCANNED_PIXELS:
        raise ImageError(f"a JPEG of {scans} scans, far more than a picture needs; save it anew")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of the canvas of a WebP file (RFC 9649, sections 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return (
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(data) >= 30:
        return (
            int.from_bytes(data[26:28], "little") & 0x3FFF,
            int.from_bytes(data[28:30], "little") & 0x3FFF,
        )
    raise ImageError("truncated or damaged picture (WebP without a known first chunk)")


def _turn_upright(image: Image.Image) -> Image.Image:
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # damaged metadata do not make the pixels unreadable
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if method is None:
        return image
    if image.mode.startswith("I;16"):  # the one kind of mode that Pillow may not transpose
        image = _high_bytes(image)
    return image.transpose(Image.Transpose[method])


def _flatten(image: Image.Image) -> Image.Image:
    """Return the picture as ``L`` or ``RGB``, transparent pixels on black."""
    from PIL import Image

    if image.mode.startswith("I"):
        return _high_bytes(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(image, mask=image.getchannel("A"))
        return black
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _high_bytes(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey, the way Pillow itself reads 16-bit colour."""
    from PIL import Image

    values: NDArray[Any] = np.asarray(image)
    return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))


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
    left, top = _half(image.width - width), _half(image.height - height)
    return image.crop((left, top, left + width, top + height))


def _half(extra: int) -> int:
    """Return extra / 2, rounded to the even number where it lies between two."""
    return extra // 2 + (extra % 4 == 3)
