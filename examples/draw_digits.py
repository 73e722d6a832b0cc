"""Draws the example pictures: ``python examples/draw_digits.py [DIRECTORY]``.

The single digits are what LeNet-5 is shown in README; ``line.png`` is for ``ocr.py``.

White pen on black, 112 x 112 grey pixels, as MNIST frames its digits: the digit fills 20/28 of the
picture, and its centre of mass is in the middle.  The strokes were written down for this file;
nothing here comes from a data set.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIDE = 112
BOX = SIDE * 20 // 28
OVERSAMPLING = 8
PEN = 0.115
"""Width of the pen, relative to the larger side of the digit."""
WOBBLE = 0.008
"""How far a hand strays from the ideal line, relative to the larger side of the digit."""

Point = tuple[float, float]
Stroke = list[Point]

# Control points of smooth curves, x to the right and y down, in units of the digit's height.
STROKES: dict[int, list[Stroke]] = {
    2: [
        [(0.06, 0.25), (0.15, 0.08), (0.36, 0.00), (0.55, 0.09), (0.60, 0.28), (0.47, 0.52)],
        [(0.47, 0.52), (0.27, 0.77), (0.03, 0.99)],
        [(0.03, 0.99), (0.30, 0.95), (0.70, 0.98)],
    ],
    5: [
        [(0.60, 0.02), (0.38, 0.03), (0.16, 0.01)],
        [(0.16, 0.01), (0.12, 0.22), (0.09, 0.42)],
        [
            (0.09, 0.42),
            (0.32, 0.36),
            (0.55, 0.47),
            (0.62, 0.69),
            (0.48, 0.92),
            (0.24, 1.00),
            (0.00, 0.90),
        ],
    ],
    7: [
        [(0.00, 0.05), (0.28, 0.02), (0.60, 0.00)],
        [(0.60, 0.00), (0.49, 0.28), (0.36, 0.60), (0.26, 1.00)],
    ],
}


def draw_digit(digit: int, *, seed: int = 0) -> Image.Image:
    """Return a picture of ``digit`` as a hand might write it."""
    rng = random.Random(f"{digit}/{seed}")
    side = SIDE * OVERSAMPLING
    image = Image.new("L", (2 * side, 2 * side), 0)
    pen = ImageDraw.Draw(image)
    scale = BOX * OVERSAMPLING
    phase = rng.uniform(0, 2 * math.pi)
    for stroke in STROKES[digit]:
        for position, (x, y) in enumerate(_smooth(stroke)):
            # Slow waves rather than noise: a hand drifts, it does not shake.
            drift = phase + position / 25
            x += WOBBLE * math.sin(drift)
            y += WOBBLE * math.cos(1.3 * drift)
            radius = scale * PEN / 2 * (1 + 0.08 * math.sin(0.7 * drift))
            centre = (side / 2 + x * scale, side / 2 + y * scale)
            pen.ellipse(
                (
                    centre[0] - radius,
                    centre[1] - radius,
                    centre[0] + radius,
                    centre[1] + radius,
                ),
                fill=255,
            )
    return _frame(image)


def _smooth(stroke: Stroke, steps: int = 60) -> Stroke:
    """Return points along a Catmull-Rom curve through the points of ``stroke``."""
    ends = [stroke[0], *stroke, stroke[-1]]
    points: Stroke = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        for i in range(steps):
            t = i / steps
            points.append(
                (
                    _catmull_rom(a[0], b[0], c[0], d[0], t),
                    _catmull_rom(a[1], b[1], c[1], d[1], t),
                )
            )
    return [*points, stroke[-1]]


def _catmull_rom(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3
    )


def _frame(image: Image.Image) -> Image.Image:
    """Scale the digit to the box and put its centre of mass in the middle of the picture."""
    box = image.getbbox()
    assert box is not None
    digit = image.crop(box)
    factor = BOX / max(digit.size)
    size = (max(1, round(digit.width * factor)), max(1, round(digit.height * factor)))
    digit = digit.resize(size, Image.Resampling.LANCZOS)
    pixels = list(digit.tobytes())
    mass = sum(pixels)
    x = sum(value * (i % digit.width) for i, value in enumerate(pixels)) / mass
    y = sum(value * (i // digit.width) for i, value in enumerate(pixels)) / mass
    picture = Image.new("L", (SIDE, SIDE), 0)
    middle = (SIDE - 1) / 2
    picture.paste(digit, (round(middle - x), round(middle - y)))
    return picture.filter(ImageFilter.GaussianBlur(0.8))


def draw_line(digits: str, *, seed: int = 0) -> Image.Image:
    """Return the digits in blue ink on unevenly lit paper, as a photograph might show them."""
    rng = random.Random(f"{digits}/{seed}")
    ink = Image.new("L", (len(digits) * 92 + 60, 180), 0)
    x = 30
    for position, digit in enumerate(digits):
        drawn = draw_digit(int(digit), seed=seed + position)
        drawn = drawn.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
        size = round(SIDE * rng.uniform(0.85, 1.1))
        drawn = drawn.resize((size, size), Image.Resampling.LANCZOS)
        ink.paste(drawn, (x, round(90 - size / 2 + rng.uniform(-8, 8))), drawn)
        x += round(92 + rng.uniform(-4, 4))
    width, height = ink.size
    light = Image.new("L", ink.size)
    light.putdata(
        [round(235 - 70 * i / width - 25 * j / height) for j in range(height) for i in range(width)]
    )
    noise = Image.new("L", ink.size)
    noise.putdata([round(128 + rng.gauss(0, 6)) for _ in range(width * height)])
    paper = ImageChops.add(light, noise, 1, -128)
    channels = [
        Image.composite(Image.new("L", ink.size, level), paper, ink) for level in (38, 48, 110)
    ]
    return Image.merge("RGB", channels)


def main() -> None:
    """Draw every digit of STROKES into the directory."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for digit in STROKES:
        draw_digit(digit).save(directory / f"digit_{digit}.png", optimize=True)
    draw_line("2755272").save(directory / "line.png", optimize=True)


if __name__ == "__main__":
    main()
