"""Reads a line of digits: ``python examples/ocr.py PICTURE [-o MARKED.png]``.

The picture may be a photograph or a drawing, dark on bright or bright on dark. What is written is
found, cut into digits, recognised by the zoo's LeNet-5, and drawn back with boxes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

import bitinfer
from bitinfer.zoo.shipped import find_shipped

Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge; the last two are beyond the digit."""

LONGEST = 1600
"""Pictures are worked on with at most so many pixels along a side."""
SIDE, DIGIT = 28, 20
"""Of MNIST's pictures, and of the digit within: its centre of mass is in the middle."""


def find_ink(picture: Image.Image) -> NDArray[np.uint8]:
    """Return how dark (or bright) every pixel is against the paper around it, 0..255."""
    grey = picture.convert("L")
    # Paper is what is left when everything as thin as a pen is blurred away.
    paper = grey.filter(ImageFilter.GaussianBlur(max(grey.size) / 12))
    difference = np.asarray(paper, np.int16) - np.asarray(grey, np.int16)
    # Ink covers the smaller part: its side of the difference has the longer tail.
    darker, brighter = np.percentile(difference, 99.5), -np.percentile(difference, 0.5)
    ink = np.clip(difference if darker >= brighter else -difference, 0, 255)
    return (ink * (255 / max(1, ink.max()))).astype(np.uint8)


def threshold(ink: NDArray[np.uint8]) -> int:
    """Return Otsu's threshold: it parts the histogram into the two most distinct halves."""
    counts = np.bincount(ink.ravel(), minlength=256).astype(float)
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return int(np.nanargmax(spread))


def find_strokes(mask: NDArray[np.bool_]) -> list[Box]:
    """Return the box of every connected stroke: runs of rows, joined where they touch."""
    boxes: list[Box] = []
    owner: list[int] = []

    def root(i: int) -> int:
        while owner[i] != i:
            i = owner[i]
        return i

    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.view(np.int8), [0]])))
        here = []
        for left, right in edges.reshape(-1, 2).tolist():
            owner.append(len(owner))
            boxes.append((left, y, right, y + 1))
            for start, stop, number in above:
                if start <= right and stop >= left:
                    a, b = root(number), root(len(owner) - 1)
                    if a != b:
                        owner[b] = a
                        boxes[a] = union(boxes[a], boxes[b])
            here.append((left, right, len(owner) - 1))
        above = here
    return [box for number, box in enumerate(boxes) if owner[number] == number]


def union(a: Box, b: Box) -> Box:
    """Return the smallest box that holds both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def find_digits(mask: NDArray[np.bool_]) -> list[Box]:
    """Return the boxes of the digits, from left to right."""
    strokes = find_strokes(mask)
    if not strokes:
        return []
    tallest = max(box[3] - box[1] for box in strokes)
    # Dust is small either way; the bar of a 5 is only flat.
    strokes = [b for b in strokes if max(b[2] - b[0], b[3] - b[1]) > 0.25 * tallest]
    digits: list[Box] = []
    for box in sorted(strokes):
        overlap = min(digits[-1][2], box[2]) - box[0] if digits else 0
        if digits and overlap > 0.5 * min(digits[-1][2] - digits[-1][0], box[2] - box[0]):
            digits[-1] = union(digits[-1], box)  # strokes of one digit, one above the other
        else:
            digits.append(box)
    tall = [b for b in digits if b[3] - b[1] > 0.5 * tallest]
    usual = float(np.median([b[3] - b[1] for b in tall]))
    return [part for box in tall for part in cut(mask, box, usual)]


def cut(mask: NDArray[np.bool_], box: Box, height: float) -> list[Box]:
    """Cut a box that is too wide for a digit of this height where the fewest pixels are ink."""
    left, upper, right, lower = box
    width = right - left
    if width <= 1.3 * height:
        return [box]
    margin = int(0.3 * height)
    columns = mask[upper:lower, left + margin : right - margin].sum(axis=0)
    at = left + margin + int(columns.argmin())
    halves = ((left, at), (at, right))
    return [part for side in halves for part in cut(mask, tight(mask, side, box), height)]


def tight(mask: NDArray[np.bool_], side: tuple[int, int], box: Box) -> Box:
    """Return the part of a box between two columns, without empty rows."""
    rows = np.flatnonzero(mask[box[1] : box[3], side[0] : side[1]].any(axis=1))
    first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, box[3] - box[1] - 1)
    return side[0], box[1] + first, side[1], box[1] + last + 1


def frame(ink: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Return a digit as MNIST frames it: (28, 28), bright on black."""
    digit = Image.fromarray(ink).crop(box)
    factor = DIGIT / max(digit.size)
    size = tuple(max(1, round(side * factor)) for side in digit.size)
    small = np.asarray(digit.resize(size, Image.Resampling.BOX), float)
    small *= 255 / max(1.0, small.max())
    centre = [
        (small.sum(axis=1 - axis) * np.arange(small.shape[axis])).sum() / small.sum()
        for axis in (0, 1)
    ]
    top, left = (
        int(np.clip(round((SIDE - 1) / 2 - c), 0, SIDE - extent))
        for c, extent in zip(centre, small.shape, strict=True)
    )
    result = np.zeros((SIDE, SIDE), np.uint8)
    result[top : top + small.shape[0], left : left + small.shape[1]] = small.round()
    return result


def read_line(picture: Image.Image) -> list[tuple[Box, str, float]]:
    """Return box, digit and probability of every digit of the picture, from left to right."""
    ink = find_ink(picture)
    if not ink.any():
        return []
    level = threshold(ink)
    boxes = find_digits(ink > level)
    # What is not written on is black, as in MNIST, whatever the paper looks like.
    written = np.where(ink > level // 2, ink, 0).astype(np.uint8)
    if not boxes:
        return []
    model = bitinfer.load(find_shipped("lenet5-mnist").path)
    scores = model.run(np.stack([frame(written, box) for box in boxes])[..., None])
    best = [model.predictions(row, top_k=1)[0] for row in scores]
    return [(box, b.label, b.probability) for box, b in zip(boxes, best, strict=True)]


def mark(picture: Image.Image, read: list[tuple[Box, str, float]]) -> Image.Image:
    """Return the picture with a box around every digit, and above it what it was read as."""
    result = picture.convert("RGB")
    pen = ImageDraw.Draw(result)
    size = max(12, result.height // 8)
    for box, digit, probability in read:
        pen.rectangle(box, outline=(220, 40, 30), width=max(2, size // 12))
        text = f"{digit}  {100 * probability:.0f} %"
        pen.text((box[0], max(0, box[1] - size)), text, fill=(220, 40, 30), font_size=size * 0.7)
    return result


def main() -> None:
    """Read the picture, print its digits, and draw the boxes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, metavar="PICTURE")
    parser.add_argument("-o", "--output", type=Path, metavar="PNG", help="the marked picture")
    arguments = parser.parse_args()
    with Image.open(arguments.picture) as image:
        picture = ImageOps.exif_transpose(image).convert("RGB")
    picture.thumbnail((LONGEST, LONGEST))
    read = read_line(picture)
    print("".join(digit for _, digit, _ in read) or "no digits found")
    if arguments.output is not None:
        mark(picture, read).save(arguments.output)


if __name__ == "__main__":
    main()
