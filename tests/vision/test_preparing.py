"""Colours in another order, inversion, and which files of a folder are pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bitinfer import vision
from bitinfer.model import Preprocessing
from helpers import encode, noise, solid

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def test_bgr_is_rgb_in_the_other_order() -> None:
    image = noise()
    pixels = vision.prepare(image, Preprocessing(color="bgr", **PLAIN), (20, 24, 3))
    assert np.array_equal(pixels, np.asarray(image)[..., ::-1])
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_inversion_exchanges_dark_and_light(color: str) -> None:
    image = noise()
    plain, inverted = (
        vision.prepare(image, Preprocessing(color=color, invert=invert, **PLAIN), (20, 24, 3))
        for invert in (False, True)
    )
    assert np.array_equal(inverted, 255 - plain)


def test_pixels_that_are_changed_are_not_said_to_be_kept() -> None:
    shape = (20, 24, 3)
    assert vision.keeps_pixels(Preprocessing(color="rgb", **PLAIN), shape, shape)
    assert not vision.keeps_pixels(Preprocessing(color="bgr", **PLAIN), shape, shape)
    assert not vision.keeps_pixels(Preprocessing(color="rgb", invert=True, **PLAIN), shape, shape)


def found(folder: Path) -> list[tuple[str, bool]]:
    return [
        (str(Path(entry.path).relative_to(folder)), entry.is_picture)
        for entry in vision.entries_in(folder)
        if entry.problem is None
    ]


def test_files_in_a_folder_are_pictures_by_their_bytes_or_their_suffix(tmp_path: Path) -> None:
    png = encode(solid("red"))
    for name, data in {
        "b.PNG": b"",
        "a.jpg": b"text",
        "c.jfif": b"",
        "d.txt": png,
        "e": encode(solid("red"), "WEBP"),
        "f.gif": b"GIF89a",
        "notes.txt": b"BMP is meant by BM",
        ".hidden.png": png,
        "sub/c.webp": b"",
        ".git/d.png": png,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert found(tmp_path) == [
        ("a.jpg", True),
        ("b.PNG", True),
        ("c.jfif", True),
        ("d.txt", True),
        ("e", True),
        ("f.gif", False),
        ("notes.txt", False),
        ("pipe", False),
        ("sub/loop", False),
        ("sub/c.webp", True),
    ]


def test_a_folder_that_cannot_be_listed_is_a_problem_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/x.png", "b/y.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    entries = list(vision.entries_in(tmp_path))
    assert [str(e.problem) for e in entries if e.problem] == [f"{tmp_path}/a: Permission denied"]
    assert found(tmp_path) == [("b/y.png", True)]
