"""files.py: a reader never waits and never reads too much; a writer leaves nothing half done."""

from __future__ import annotations

import array
import io
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitinfer import files
from bitinfer.errors import DataError, ImageError, OutputError
from bitinfer.files import one_line, read_regular, read_source

# --- reading -------------------------------------------------------------------------------------


def refuse(path: Path | str, limit: int = 100) -> str:
    with pytest.raises(ImageError) as caught:
        read_regular(path, limit, error=ImageError, what="pictures")
    return str(caught.value)


def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    assert read_regular(path, 100, error=ImageError) == bytes(100)
    assert read_regular(str(path), 101, error=ImageError) == bytes(100)
    assert refuse(path, 99) == f"{path}: 100 bytes, pictures have at most 99"


def test_the_caller_chooses_the_class_and_the_name_of_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="x: No such file or directory"):
        read_regular(tmp_path / "x", 1, error=DataError, name="x")


class Failing(io.RawIOBase):
    """A file that cannot be read."""

    def read(self, size: int = -1) -> bytes:
        """Raise OSError."""
        raise OSError(5, "Input/output error")


def test_paths_buffers_and_files_give_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    with path.open("rb") as opened:
        for source in (
            path,
            str(path),
            b"12345",
            bytearray(b"12345"),
            memoryview(b"12345"),
            memoryview(b"1-2-3-4-5")[::2],
            array.array("B", b"12345"),
            io.BytesIO(b"12345"),
            opened,
        ):
            assert read_source(source, 5, error=ImageError) == b"12345"
    with path.open("rb") as opened:
        opened.read(2)
        assert read_source(opened, 5, error=ImageError) == b"345"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"123456", "x: over 5 bytes, more than pictures may have"),
        (array.array("I", [1, 2]), "x: over 5 bytes, more than pictures may have"),
        (io.BytesIO(bytes(1 << 22)), "x: over 5 bytes, more than pictures may have"),
        (io.StringIO("text"), "x: came as StringIO, wanted a path, bytes"),
        (None, "x: came as NoneType, wanted a path, bytes"),
        ([1], "x: came as list, wanted a path, bytes"),
        (Failing(), "x: cannot be read: .*Input/output error"),
        (io.FileIO("/dev/null", "w"), "x: cannot be read: .*not open for reading"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_sources_are_refused_by_name(source: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        read_source(source, 5, error=ImageError, what="pictures", name="x")
    assert str(caught.value).count("x: ") == 1


def test_an_empty_path_is_called_so() -> None:
    with pytest.raises(ImageError, match=r"^'': an empty path, wanted the name of a file$"):
        read_source("", 5, error=ImageError)


def test_pipes_folders_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refuse(tmp_path / "pipe").endswith("not a regular file; copy its content into one")
    assert refuse(tmp_path).endswith(": Is a directory")
    assert refuse("/dev/null").endswith("not a regular file; copy its content into one")


def test_a_path_with_a_nul_is_refused_on_one_line() -> None:
    assert refuse("a\0b\nc").startswith(r"a\x00b\nc: ")


def test_what_does_not_fit_into_memory_is_a_memory_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_memory(path: object) -> None:
        raise MemoryError

    monkeypatch.setattr(files, "open_regular", refuse_memory)
    with pytest.raises(MemoryError):
        refuse("x")


def test_refused_files_leave_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        refuse(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- text ----------------------------------------------------------------------------------------


def test_foreign_text_becomes_one_line_without_control_characters() -> None:
    assert one_line("K\u00e4se, \u732b") == "K\u00e4se, \u732b"
    assert one_line("a\n\x1b[2J\u202e\udcff") == r"a\n\x1b[2J\u202e\udcff"
    assert one_line(ValueError("x\ty")) == r"x\ty"


def test_long_text_is_cut_after_escaping() -> None:
    assert one_line("x" * 50, 10) == "xxxxxxx..."
    assert one_line("\n" * 10, 10) == r"\n\n\n\..."
    assert one_line("x" * 10, 10) == "x" * 10
    assert len(one_line("x" * 1000)) == 120
    assert len(one_line("x" * 1000, None)) == 1000


# --- writing -------------------------------------------------------------------------------------


def test_writing_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(b"old")
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["m.bin"]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    files.check_writable(path)
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o000])
def test_a_new_file_has_the_permissions_that_the_umask_grants(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write_atomically(tmp_path / "m.bin", b"new")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.bin").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    interruption: type[BaseException],
) -> None:
    if not hasattr(files.os, step):
        pytest.skip(f"there is no os.{step} here")
    path = tmp_path / "m.bin"
    path.write_bytes(b"old")

    def interrupt(*args: object, **kwargs: object) -> None:
        raise interruption("stop")

    monkeypatch.setattr(files.os, step, interrupt)
    with pytest.raises(OutputError if interruption is OSError else interruption):
        files.write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.bin"]


@pytest.mark.parametrize("path", ["missing/m.bin", ".", "", "file/m.bin", "x" * 300, "/proc/x"])
def test_a_place_that_cannot_be_written_to_is_an_output_error(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        files.write_atomically(path, b"new")
    with pytest.raises(OutputError, match="cannot write"):
        files.check_writable(path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_path_with_a_nul_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="null"):
        files.write_atomically(f"{tmp_path}/a\0b", b"new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            files.write_atomically(tmp_path / "m.bin", b"new")
        with pytest.raises(OutputError, match="Permission denied"):
            files.check_writable(tmp_path / "m.bin")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("write", [lambda p: files.write_atomically(p, b"x"), files.check_writable])
def test_what_is_no_regular_file_is_not_replaced(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="not a regular file"):
        write(pipe)
    assert pipe.is_fifo()


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to("target")
    files.write_atomically(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_checking_that_a_place_can_be_written_to_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"old")
    files.check_writable(tmp_path / "m.bin")
    files.check_writable(tmp_path / "new.bin")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.bin", b"old")]


WRITING = """
import sys
from bitinfer import files
one, two = (open(path, "rb").read() for path in sys.argv[2:])
print("ready", flush=True)
while True:
    files.write_atomically(sys.argv[1], one)
    files.write_atomically(sys.argv[1], two)
"""


def test_a_reader_sees_one_whole_file_or_the_other_even_if_the_writer_is_killed(
    tmp_path: Path,
) -> None:
    path, versions = tmp_path / "m.bin", {"one": b"1" * 5000, "two": b"2" * 70_000}
    for name, content in versions.items():
        (tmp_path / name).write_bytes(content)
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITING, path, tmp_path / "one", tmp_path / "two"],
            stdout=subprocess.PIPE,
        )
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            while not path.exists():
                time.sleep(0.001)
            end = time.perf_counter() + 0.2
            while time.perf_counter() < end:
                assert path.read_bytes() in versions.values()
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            if writer.stdout is not None:
                writer.stdout.close()
        assert path.read_bytes() in versions.values()
