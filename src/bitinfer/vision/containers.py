"""What a picture file holds, read from its bytes alone: kind, size, scans, chunks.  No Pillow.

Everything here is bounded: by the length of the data, and by how many pieces it may be cut into.
"""

from __future__ import annotations

import re
import zlib
from typing import Literal

from bitinfer.errors import ImageError

Kind = Literal["PNG", "JPEG", "WebP", "BMP", "PNM"]

WANTED = "PNG, JPEG, WebP, BMP or binary PNM"
HEAD_BYTES = 80
"""As many bytes as tell what a file is."""
MAX_SEGMENTS = 1 << 16
"""Most marker segments of a JPEG; cameras write tens, a large profile takes hundreds."""
MAX_CHUNKS = 1 << 18
"""Most chunks of a PNG: 64 MB in pieces of 256 bytes."""
MAX_TEXT_BYTES = 1 << 19
"""Longest unpacked text of a PNG that is looked at: half of what Pillow allows."""
MAX_TEXTS = 8
"""Most texts of a PNG that are looked at."""
MAX_PNM_HEADER_BYTES = 1 << 16

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Of what a PNG may hold beside its pixels: transparency, and what may say which way is up.
_PNG_WANTED = frozenset((b"tRNS", b"eXIf"))
_PNG_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_PNG_TEXTS_WANTED = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")

# What ends compressed data: 0xff before anything but a stuffed 0, a restart or a fill byte.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_PNM = re.compile(rb"P[456](\s+[#\d]|#)")
_BMP = re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)
_LONE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))

_STRANGERS = (
    (rb'.{8}\{"__metadata__":\{"bitinfer"', "a bitinfer model file"),
    (rb"GIF8[79]a", "a GIF"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF or a camera's raw picture"),
    (rb".{4}ftyp(heic|heix|heim|heis|hevc|mif1|msf1)", "a HEIC picture"),
    (rb".{4}ftypavi[fs]", "an AVIF picture"),
    (rb".{4}ftyp", "a film"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL picture"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"P[123][\s#]", "a PNM in text"),
    (rb"P[7fF]\s", "a PAM or PFM"),
    (rb"\0\0[\x01\x02]\0", "an icon"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF|%!PS", "a document (PDF or PostScript)"),
    (rb"PK\x03\x04", "a zip file"),
    (rb"\x1f\x8b", "a file compressed by gzip"),
    (rb"[\x89?]PNG(\n|\r\r)", "a PNG whose line ends were changed as if it were text"),
    (rb"(\xef\xbf\xbd|\xc2\x89|\xef\xbb\xbf\x89)PNG|(\xef\xbf\xbd){2}", "a picture saved as text"),
    (rb"data:image/|iVBORw0KGgo|/9j/", "a picture in base64, as in a web page"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the file"),
    (rb"(\xef\xbb\xbf)?\s*<(\?xml|svg)", "an SVG drawing or XML"),
    (rb"(\xef\xbb\xbf)?\s*<", "a web page"),
)


def kind_of(head: bytes) -> Kind | None:
    """Return the kind of picture whose file begins with ``head`` (HEAD_BYTES or more), or None."""
    if head.startswith(_PNG_SIGNATURE):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if _BMP.match(head):
        return "BMP"
    if _PNM.match(head):
        return "PNM"
    return None


def describe_stranger(head: bytes) -> str:
    """Say what a file is that is no picture of a kind that is read, and what to do."""
    for pattern, what in _STRANGERS:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            advice = (
                "the model file comes first: bitinfer run MODEL PICTURE"
                if what == "a bitinfer model file"
                else f"wanted {WANTED}"
            )
            return f"{what}, not a picture that can be read here; {advice}"
    return f"not a picture that can be read here; wanted {WANTED}"


def count_scans(data: bytes) -> int:
    """Return how many scans the picture in a JPEG has; what lies behind its end is not looked at.

    Phones append films behind the end of a picture, and thumbnails stand in segments: the bytes of
    a scan's marker occur there by chance.  Source: ITU-T T.81, annex B.

    Raises:
        ImageError: the file is cut into more than MAX_SEGMENTS segments.
    """
    at, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            return scans
        at, marker = found.end(), data[found.end() - 1]
        if marker == 0xD9:
            return scans
        if marker in _LONE_MARKERS:
            continue
        scans += marker == 0xDA
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    raise ImageError(f"a JPEG of more than {MAX_SEGMENTS} segments; save it anew")


def only_pixels(data: bytes) -> bytes:
    """Return a PNG without the chunks that a decoder may stumble over and the pixels do not need.

    Kept are the critical chunks, transparency, and what may say which way is up, if its checksum is
    right and it is short.  Everything else (profiles, texts, times, unknown chunks) does not make
    pixels unreadable, as the standard asks of decoders (W3C PNG, section 13.2).

    Raises:
        ImageError: the end is missing, or there are more than MAX_CHUNKS chunks.
    """
    kept: list[bytes] = []
    at, first, texts = len(_PNG_SIGNATURE), 0, 0
    for _ in range(MAX_CHUNKS):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        following = at + 12 + length
        if following > len(data):
            raise ImageError("truncated picture: the end of the PNG is missing")
        if name == b"IEND":
            return b"".join((*kept, data[first:following]))
        if name[:1].islower():
            texts += name in _PNG_TEXTS
            if texts > MAX_TEXTS or not _is_wanted(name, data, at + 8, length):
                kept.append(data[first:at])
                first = following
        at = following
    raise ImageError(f"a PNG of more than {MAX_CHUNKS} chunks; save it anew")


def png_depth(data: bytes) -> int:
    """Return the bits of a channel, from the header of a PNG."""
    return data[24]


def _is_wanted(name: bytes, data: bytes, at: int, length: int) -> bool:
    if name in _PNG_TEXTS:
        if not data.startswith(_PNG_TEXTS_WANTED, at) or not _is_short(name, data, at, length):
            return False
    elif name not in _PNG_WANTED or length > MAX_TEXT_BYTES:
        return False
    written = int.from_bytes(data[at + length : at + length + 4], "big")
    return zlib.crc32(memoryview(data)[at - 4 : at + length]) == written


def _is_short(name: bytes, data: bytes, at: int, length: int) -> bool:
    """Tell whether a text chunk unpacks, to no more than MAX_TEXT_BYTES."""
    if length > MAX_TEXT_BYTES:
        return False
    _, _, rest = data[at : at + length].partition(b"\0")
    if name == b"iTXt" and rest[:1] == b"\1":
        rest = rest[2:].split(b"\0", 2)[-1]
    elif name == b"zTXt":
        rest = rest[1:]
    else:
        return True
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(rest, MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def check_pnm_header(data: bytes) -> None:
    """Raise ImageError if comments make the header of a PNM longer than MAX_PNM_HEADER_BYTES.

    Pillow reads them byte by byte.  P4 has two numbers, P5 and P6 have three.
    """
    wanted = 2 if data[:2] == b"P4" else 3
    head = data[2:MAX_PNM_HEADER_BYTES]
    numbers = re.sub(rb"#[^\r\n]*", b"", head).split(None, wanted)
    if len(numbers) < wanted and len(data) > MAX_PNM_HEADER_BYTES:
        raise ImageError(
            f"the comments of the PNM take over {MAX_PNM_HEADER_BYTES} bytes; remove them"
        )


def webp_size(data: bytes) -> tuple[int, int]:
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
