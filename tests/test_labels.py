"""labels.py: the encodings and lengths in which lists of labels come."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitinfer import labels
from bitinfer.errors import InputError

NAMES = ("Katze", "Hund", "Vögel", "ångström", "…")
TEXT = "Katze\r\n Hund\nVögel \rångström\n…\n\n"


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "labels.txt"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"],
)
def test_labels_are_read_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    found = labels.read(write(tmp_path, TEXT.encode(encoding)))
    assert found.names == NAMES
    assert found.path == str(tmp_path / "labels.txt")
    assert bool(found.remark) == (encoding == "cp1252")


@pytest.mark.parametrize("order", ["le", "be"])
def test_marks_of_utf_16_of_both_orders_are_known(order: str, tmp_path: Path) -> None:
    data = f"\ufeff{TEXT}".encode(f"utf-16-{order}")
    assert labels.read(write(tmp_path, data)).names == NAMES


def test_latin_1_is_read_and_said(tmp_path: Path) -> None:
    found = labels.read(write(tmp_path, "Vögel\nnaïve".encode("latin-1")))
    assert found.names == ("Vögel", "naïve")
    assert "not UTF-8, read as Windows-1252 (Latin-1)" in found.remark


def test_only_ends_of_lines_part_labels(tmp_path: Path) -> None:
    data = "a\x0bb\x0cc\u2028d\x85e\n\nf".encode()
    assert labels.read(write(tmp_path, data)).names == ("a\x0bb\x0cc\u2028d\x85e", "", "f")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no label"),
        (b"\n \r\n", "holds no label"),
        (b"\xff\xfe", "holds no label"),
        (b"\xff\xfea", "save the labels as UTF-8"),
        (b"\xef\xbb\xbf\xff", "save the labels as UTF-8"),
        (b"a\n" + b"0" * 257, "line 2: the label 0000.* has 257 characters, at most 256"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"labels\.txt.*{message}") as caught:
        labels.read(write(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", "/dev/zero"):
        with pytest.raises(InputError, match=str(path)):
            labels.read(path)
