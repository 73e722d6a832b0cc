"""Pictures with what was found in them written below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_LEAST_WIDTH = 240
"""Smaller pictures are enlarged by whole numbers, or get a margin."""
_MOST_ENLARGED = 1 << 22
"""Pixels up to which they are enlarged."""
_FONT_SHARE = 20
"""Of the width; a line then holds about 35 letters."""
_FONT_SIZES = (14, 72)
_BAND, _BAR, _INK = (24, 24, 24), (0, 92, 60), (255, 255, 255)


def annotate(image: Image.Image, lines: Sequence[tuple[str, float]]) -> Image.Image:
    """Return the picture above a line for each label, with a bar as long as its share (0..1).

    Nothing of the picture is covered.  Labels that are too long are cut.  Letters come from
    Pillow's own font, which has Latin ones; others show as boxes.
    """
    from PIL import Image, ImageDraw, ImageFont

    factor = max(1, -(-_LEAST_WIDTH // image.width))
    while factor > 1 and _LEAST_WIDTH * image.height * factor > _MOST_ENLARGED:
        factor -= 1
    if factor > 1:
        size = (image.width * factor, image.height * factor)
        image = image.resize(size, Image.Resampling.NEAREST)
    width = max(image.width, _LEAST_WIDTH)
    font_size = min(max(width // _FONT_SHARE, _FONT_SIZES[0]), _FONT_SIZES[1])
    font = ImageFont.load_default(font_size)
    row, margin = font_size * 3 // 2, font_size // 3
    result = Image.new("RGB", (width, image.height + row * len(lines)), _BAND)
    result.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(result)
    for number, (label, share) in enumerate(lines):
        top, middle = image.height + number * row, image.height + number * row + row // 2
        length = round(min(max(share, 0.0), 1.0) * width)
        if length:
            draw.rectangle((0, top + 1, length - 1, top + row - 2), fill=_BAR)
        percent = f"{100 * share:.1f} %"
        room = width - 3 * margin - draw.textlength(percent, font)
        if draw.textlength(label, font) > room:
            while label and draw.textlength(f"{label}...", font) > room:
                label = label[:-1]
            label += "..."
        draw.text((margin, middle), label, _INK, font, anchor="lm")
        draw.text((width - margin, middle), percent, _INK, font, anchor="rm")
    return result
