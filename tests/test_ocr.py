"""examples/ocr.py: a line of digits is found, cut apart and read, whatever the paper."""

from __future__ import annotations

import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
LINE = ROOT / "examples" / "line.png"
MNIST = ROOT.parent / "shared" / "data" / "mnist"

_spec = importlib.util.spec_from_file_location("ocr", ROOT / "examples" / "ocr.py")
assert _spec is not None
assert _spec.loader is not None
ocr = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ocr)


def read(picture: Image.Image) -> str:
    return "".join(digit for _, digit, _ in ocr.read_line(picture))


def line() -> Image.Image:
    with Image.open(LINE) as image:
        return image.convert("RGB")


def test_line_is_read_from_the_command_line(tmp_path: Path) -> None:
    output = tmp_path / "marked.png"
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "ocr.py", LINE, "-o", output],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2755272\n"
    with Image.open(output) as marked:
        assert marked.size == line().size
        reds = np.asarray(marked.convert("RGB")).reshape(-1, 3) == (220, 40, 30)
    assert reds.all(axis=1).sum() > 7 * 200


@pytest.mark.parametrize(
    "change",
    [
        lambda p: ImageOps.invert(p),
        lambda p: p.resize((p.width * 2, p.height * 2)),
        lambda p: ImageOps.expand(p, 60, (200, 200, 200)),
        lambda p: p.point(lambda v: 60 + v // 4),
        lambda p: p.rotate(3, Image.Resampling.BICUBIC, fillcolor=(200, 200, 200)),
    ],
    ids=["bright on dark", "larger", "wider paper", "faint", "askew"],
)
def test_line_is_read_however_it_is_photographed(change) -> None:
    assert read(change(line())) == "2755272"


def test_boxes_are_around_the_ink_from_left_to_right() -> None:
    boxes = [box for box, _, _ in ocr.read_line(line())]
    assert boxes == sorted(boxes)
    ink = np.asarray(line().convert("L")) < 90
    for left, upper, right, lower in boxes:
        assert ink[upper:lower, left:right].any()
        ink[max(0, upper - 2) : lower + 2, max(0, left - 2) : right + 2] = False
    assert not ink.any()


def test_dust_is_no_digit_and_an_empty_sheet_has_none() -> None:
    picture = line()
    for x in range(10, 600, 97):
        picture.putpixel((x, 165), (0, 0, 0))
    assert read(picture) == "2755272"
    assert read(Image.new("RGB", (300, 100), (230, 230, 230))) == ""


def test_strokes_that_touch_are_one_whatever_their_shape() -> None:
    mask = np.zeros((9, 20), bool)
    mask[0:6, 1] = mask[0:6, 5] = mask[5, 1:6] = True  # a U: two runs that meet below
    mask[2, 9] = mask[3, 10] = mask[4, 11] = True  # corners touch
    mask[8, 15:18] = True
    found = sorted(ocr.find_strokes(mask))
    assert found == [(1, 0, 6, 6), (9, 2, 12, 5), (15, 8, 18, 9)]


def test_digits_that_touch_are_cut_where_the_ink_is_thinnest() -> None:
    mask = np.zeros((40, 120), bool)
    mask[5:35, 5:25] = mask[5:35, 30:50] = True
    mask[20, 25:30] = True  # a hair between them
    mask[5:35, 80:100] = True
    boxes = ocr.find_digits(mask)
    assert len(boxes) == 3
    assert 25 <= boxes[0][2] <= 30
    assert boxes[2] == (80, 5, 100, 35)


def test_digit_is_framed_as_in_mnist() -> None:
    ink = np.zeros((100, 100), np.uint8)
    ink[10:70, 40:52] = 200
    framed = ocr.frame(ink, (40, 10, 52, 70))
    rows, columns = np.nonzero(framed)
    assert rows.max() - rows.min() + 1 == 20
    assert columns.max() - columns.min() + 1 == 4
    assert framed.max() == 255
    assert abs((rows.min() + rows.max()) / 2 - 13.5) <= 0.5
    assert abs((columns.min() + columns.max()) / 2 - 13.5) <= 0.5


def test_lines_of_handwriting_are_read() -> None:
    """40 lines of 8 digits of MNIST's test images, side by side on white paper."""
    if not MNIST.is_dir():
        pytest.skip(f"MNIST is not at {MNIST}")

    def content(name: str, offset: int) -> np.ndarray:
        data = gzip.decompress((MNIST / f"t10k-{name}-ubyte.gz").read_bytes())
        return np.frombuffer(data, np.uint8, offset=offset)

    images, labels = content("images-idx3", 16).reshape(-1, 28, 28), content("labels-idx1", 8)
    rng = np.random.default_rng(0)
    right = 0
    for _ in range(40):
        chosen = rng.integers(0, len(images), 8)
        sheet = np.zeros((60, 8 * 30), np.uint8)
        for place, number in enumerate(chosen):
            sheet[16:44, 30 * place : 30 * place + 28] = images[number]
        picture = Image.fromarray(255 - sheet).resize((960, 240), Image.Resampling.BICUBIC)
        right += read(picture) == "".join(str(labels[n]) for n in chosen)
    assert right >= 36
