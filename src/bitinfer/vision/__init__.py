"""From a picture to the pixels that a network wants."""

from bitinfer.vision.decoding import MAX_FILE_BYTES, MAX_PIXELS, Pixels, decode, is_lost, size_of
from bitinfer.vision.folders import Entry, entries_in, is_picture
from bitinfer.vision.mean_image import read_mean_image
from bitinfer.vision.preparing import describe_lack, from_pixels, keeps_pixels, prepare

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "Entry",
    "Pixels",
    "decode",
    "describe_lack",
    "entries_in",
    "from_pixels",
    "is_lost",
    "is_picture",
    "keeps_pixels",
    "prepare",
    "read_mean_image",
    "size_of",
]
