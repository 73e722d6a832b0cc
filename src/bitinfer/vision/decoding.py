"""From a file to a decoded picture.

Pictures come from strangers.  They are read whole, from regular files, up to MAX_FILE_BYTES; the
format is found by its first bytes, never by the file name; the size is checked before a pixel is
decoded; work that a small file can ask for without bound is capped.  Whatever goes wrong becomes
one ImageError that names the file.

What a picture looks like here: first frame, upright (EXIF orientation applied), 8 bits a channel
(16-bit values keep their high byte), ``L`` or ``RGB``.  Transparent pixels are composited on the
ground that the preprocessing names, black unless it says otherwise: pictures whose hidden pixels
are black then look as they do to training code that drops the alpha channel.  Colour profiles and
texts are ignored, as training code ignores them; damaged ones do not make the pixels unreadable.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ImageError
from bitinfer.files import one_line, read_source
from bitinfer.model import Preprocessing
from bitinfer.vision import containers

if TYPE_CHECKING:
    from PIL import Image, ImageFile

MAX_FILE_BYTES = 64 << 20
"""Largest encoded picture."""
MAX_PIXELS = 25_000_000
"""Largest picture in memory, before and after resizing."""
MAX_SIDE = 1 << 17
"""Longest side: what resizing computes for every row or column takes many times a pixel's room."""
MAX_JPEG_PIXELS = 10 * MAX_PIXELS
"""Largest JPEG, if it is decoded at 1/2, 1/4 or 1/8 of its size."""
MAX_PROGRESSIVE_PIXELS = 64_000_000
"""The same of progressive ones, whose coefficients are in memory all at once."""
MIN_SHRUNK_PIXELS = 4_000_000
"""Smaller JPEGs are decoded in full, as training code does."""
MAX_SCANNED_PIXELS = 100 * MAX_PIXELS
"""Most pixels that the scans of one JPEG may visit; a 42-byte scan visits all of them."""
MAX_SLOW_PIXELS = 1_000_000
"""Largest picture of the rare kinds that Pillow decodes in Python, at about 1 us a pixel."""

Pixels = NDArray[np.uint8]

_PILLOW_WITHOUT_SIZE = "not identified by this driver"
_SLOW_CODECS = ("ppm", "bmp_rle")
_SIZE_KEY = "size in the file"
_LOST_KEY = "nothing is left to see"

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
_SIDES_CHANGE_FROM = 5
"""Orientations from this one on exchange width and height."""


def decode(
    source: Any, preprocessing: Preprocessing | None = None, *, name: str | None = None
) -> Image.Image:
    """Decode a picture.

    ``source`` is a path, the bytes of a picture file (any buffer of bytes), a binary file, or what
    is decoded already: a Pillow image, or an array uint8 (H, W) or (H, W, C), C 1, 3 or 4.
    ``preprocessing`` says what the picture is for: a JPEG of over MIN_SHRUNK_PIXELS is then decoded
    at 1/2, 1/4 or 1/8, but no smaller than twice what it is resized to, and transparency lies on
    its ground.

    Returns: a Pillow image of mode ``L`` or ``RGB``, upright, without transparency.
    Raises:  ImageError, which calls the picture ``name`` (default: its path).
    """
    ground = 255 if preprocessing is not None and preprocessing.ground == "white" else 0
    name = name or (os.fsdecode(source) if isinstance(source, str | os.PathLike) else "picture")
    image = None
    try:
        image = _decoded_already(source)
        if image is None:
            data = read_source(
                source,
                MAX_FILE_BYTES,
                error=_NamedError,
                what="pictures",
                name=one_line(name, None),
                or_else="an array uint8 of (H, W[, C]), a Pillow image, ",
            )
            loaded = _load(data, preprocessing)
            return _turn_upright(_flatten(loaded, ground), loaded)
        return _turn_upright(_flatten(image, ground), image)
    except _NamedError as error:
        raise ImageError(str(error)) from error.__cause__
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode the picture") from error
    except Exception as error:  # Pillow raises whatever its decoders run into
        reason = one_line(" ".join(str(error).split())) or type(error).__name__
        if reason == _PILLOW_WITHOUT_SIZE:
            reason = "its header speaks of no pixels"
        from_bytes = image is None
        what = "truncated or damaged picture" if from_bytes else "a Pillow image that is of no use"
        raise ImageError(f"{name}: {what} ({reason})") from error


def size_of(image: Image.Image) -> tuple[int, int]:
    """Return (width, height) of a decoded picture as it is in its file, upright."""
    width, height = image.info.get(_SIZE_KEY, image.size)
    return width, height


def is_lost(image: Image.Image) -> bool:
    """Tell whether all that was to be seen in a transparent picture has the colour of its ground.

    Black ink on nothing is such a picture, where the ground is black.
    """
    return _LOST_KEY in image.info


class _NamedError(ImageError):
    """An error whose message bears the name of the picture already."""


def _decoded_already(source: Any) -> Image.Image | None:
    """Return a Pillow image, or an array as one; None for what is still to be decoded."""
    from PIL import Image

    if isinstance(source, Image.Image):
        _check_size(*source.size)
        # Where the numbers of a mode lie between is known of a file's, not of one made from arrays.
        if source.mode == "F" or (source.mode == "I" and source.format is None):
            raise ImageError(
                f"a Pillow image of mode {source.mode}, whose range is not known; "
                "convert it to L or RGB first"
            )
        return source
    if not isinstance(source, np.ndarray) or (source.dtype == np.uint8 and source.ndim == 1):
        return None
    shape = source.shape
    if source.dtype != np.uint8 or not (
        len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    ):
        raise ImageError(
            f"came as an array {source.dtype}{shape}, wanted uint8 of (H, W), (H, W, 1), "
            "(H, W, 3) or (H, W, 4), 0 to 255, in the order red, green, blue"
        )
    _check_size(shape[1], shape[0])
    return Image.fromarray(source.reshape(shape[:2]) if shape[2:] == (1,) else source)


def _load(data: bytes, preprocessing: Preprocessing | None) -> Image.Image:
    """Return the picture with its pixels decoded."""
    image: ImageFile.ImageFile = _open(data)
    if image.format == "JPEG":
        full = image.size
        _shrink(image, preprocessing)
        _check_scans(data, *full)
        image.info[_SIZE_KEY] = full
    _check_size(*image.size)
    slow = any(tile[0] in _SLOW_CODECS for tile in image.tile)
    if slow and max(image.width * image.height, len(data)) > MAX_SLOW_PIXELS:
        raise ImageError(
            f"{image.width}x{image.height} pixels, this kind of {image.format} is read only up to "
            f"{MAX_SLOW_PIXELS} pixels and bytes; save it as PNG"
        )
    image.load()
    if image.format == "PNG":
        _scale_transparency(image, containers.png_depth(data))
    return image


def _open(data: bytes) -> Any:
    """Return the picture with its header read, by the decoder that its first bytes ask for.

    ``Image.open`` is not used: it imports every decoder for the sake of WebP, lets others try, and
    where an error is wanted it gives a warning, which only process-wide filters turn into one.
    """
    if not data:
        raise ImageError(f"empty, wanted a picture ({containers.WANTED})")
    match containers.kind_of(data):
        case "PNG":
            from PIL.PngImagePlugin import PngImageFile

            return PngImageFile(io.BytesIO(containers.only_pixels(data)))
        case "JPEG":
            from PIL.JpegImagePlugin import JpegImageFile

            return JpegImageFile(io.BytesIO(data))
        case "WebP":
            from PIL.WebPImagePlugin import WebPImageFile

            _check_size(*containers.webp_size(data))  # its decoder allocates the canvas at once
            return WebPImageFile(io.BytesIO(data))
        case "BMP":
            from PIL.BmpImagePlugin import BmpImageFile

            return BmpImageFile(io.BytesIO(data))
        case "PNM":
            from PIL.PpmImagePlugin import PpmImageFile

            containers.check_pnm_header(data)
            return PpmImageFile(io.BytesIO(data))
        case None:
            raise ImageError(containers.describe_stranger(data[: containers.HEAD_BYTES]))


def _shrink(image: Any, preprocessing: Preprocessing | None) -> None:
    """Let a large JPEG be decoded at the smallest of its sizes that serves the preprocessing."""
    width, height = image.size
    wanted = None if preprocessing is None else preprocessing.resize
    if wanted is None or width * height <= MIN_SHRUNK_PIXELS:
        return
    limit = MAX_PROGRESSIVE_PIXELS if image.info.get("progressive") else MAX_JPEG_PIXELS
    if width * height > limit:
        raise ImageError(
            f"{width}x{height} pixels, at most {limit} are allowed in a JPEG of this kind; shrink "
            "the picture first"
        )
    # Square: which side is which is known only after the picture is turned upright.
    side = 2 * (wanted if isinstance(wanted, int) else max(wanted))
    image.draft(None, (side, side))


def _check_size(width: int, height: int) -> None:
    if not width or not height:
        raise ImageError(f"{width}x{height} pixels, wanted at least one")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{width}x{height} pixels, at most {MAX_PIXELS} are allowed; shrink the picture first"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width}x{height} pixels, a side may have at most {MAX_SIDE}; crop it")


def _check_scans(data: bytes, width: int, height: int) -> None:
    # Encoders write about ten scans.
    scans = containers.count_scans(data)
    if scans * width * height > MAX_SCANNED_PIXELS:
        raise ImageError(f"a JPEG of {scans} scans, far more than a picture needs; save it anew")


def _scale_transparency(image: Image.Image, depth: int) -> None:
    """Bring the transparent colour of a PNG to the 8 bits that Pillow brings the pixels to.

    Of 16-bit colours the high bytes are compared: nothing else is left of the pixels.
    """
    transparent = image.info.get("transparency")
    if depth in (2, 4) and isinstance(transparent, int):
        image.info["transparency"] = transparent * 255 // ((1 << depth) - 1)
    elif depth == 16 and isinstance(transparent, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _turn_upright(flat: Image.Image, image: Image.Image) -> Image.Image:
    """Turn the picture as the EXIF data of ``image`` say, from which it was made."""
    from PIL import Image

    width, height = image.info.get(_SIZE_KEY, image.size)
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # damaged metadata do not make the pixels unreadable
        orientation = None
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if method is not None and orientation is not None:
        flat = flat.transpose(Image.Transpose[method])
        if orientation >= _SIDES_CHANGE_FROM:
            width, height = height, width
    if (width, height) != flat.size:
        flat.info[_SIZE_KEY] = width, height
    return flat


def _flatten(image: Image.Image, ground: int) -> Image.Image:
    """Return the picture as ``L`` or ``RGB``, transparent pixels on the ground (0 or 255)."""
    from PIL import Image

    if image.mode.startswith("I"):
        return _high_bytes(image, ground)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = Image.new("RGB", image.size, (ground,) * 3)
        alpha = image.getchannel("A")
        opaque.paste(image, mask=alpha)
        if opaque.getextrema() == ((ground, ground),) * 3 and alpha.getextrema() != (0, 0):
            opaque.info[_LOST_KEY] = True
        return opaque
    flat = image.convert("L" if image.mode in ("1", "L") else "RGB")
    # Metadata of the file mean nothing to what follows, and the caller's image stays as it is.
    flat.info = {}
    return flat


def _high_bytes(image: Image.Image, ground: int) -> Image.Image:
    """Return 16-bit grey as 8-bit grey, the way Pillow itself reads 16-bit colour."""
    from PIL import Image

    values: NDArray[Any] = np.asarray(image)
    grey = (np.clip(values, 0, 65535) >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = ground
    return Image.fromarray(grey)
