"""What a file is comes from its bytes: every reader's files find it, and nothing else does."""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path

import pytest
from samples import FURTHER, OTHERS, READABLE

from bitinfer.errors import CheckpointError
from bitinfer.importers import detect, readers
from bitinfer.importers.convert import convert
from bitinfer.importers.foreign import Foreign

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.stem for path in Path(readers.__file__).parent.glob("*.py") if path.stem[0] != "_"
)
REGISTERED = {f.reader for f in detect.FORMATS if f.reader}
SAMPLE_FILES = [(reader, name) for reader, files in READABLE.items() for name in files]


@pytest.mark.parametrize("reader", sorted({*MODULES, *REGISTERED, *READABLE}))
def test_reader_is_complete(reader: str) -> None:
    """What a new reader needs, in the order in which it is best written."""
    assert reader in MODULES, f"write importers/readers/{reader}.py"
    module = import_module(f"bitinfer.importers.readers.{reader}")
    assert callable(getattr(module, "from_bytes", None)), f"{reader}: write from_bytes(data)"
    assert reader in REGISTERED, f"{reader}: add a Format with this reader to detect.FORMATS"
    assert READABLE.get(reader), f"{reader}: add a file that it reads to tests/importers/samples.py"
    assert reader in (readers.__doc__ or ""), f"{reader}: name it in readers/__init__.py"
    tests = ROOT / "tests" / "importers" / f"test_{reader}.py"
    assert tests.exists(), f"{reader}: test it in {tests}"
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    for found in detect.FORMATS:
        if found.reader == reader:
            row = f"| {found.title.removeprefix('a ').removeprefix('an ')} |"
            assert row in page, f"{reader}: docs/command-line.md lacks the row {row!r} of convert"


@pytest.mark.parametrize(("reader", "name"), SAMPLE_FILES)
def test_readable_file_finds_its_reader(reader: str, name: str) -> None:
    data = READABLE[reader][name]
    assert detect.require_reader(data).reader == reader
    module = import_module(f"bitinfer.importers.readers.{reader}")
    content = module.from_bytes(data, **FURTHER.get(reader, {}))
    assert isinstance(content, dict | Foreign)


@pytest.mark.parametrize("reader", MODULES)
@pytest.mark.parametrize("name", [*OTHERS, *(f"{reader}/{name}" for reader, name in SAMPLE_FILES)])
def test_reader_refuses_what_is_not_its_format(reader: str, name: str) -> None:
    owner, _, sample = name.partition("/")
    if owner == reader:
        return
    data = READABLE[owner][sample] if sample else OTHERS[name][0]
    module = import_module(f"bitinfer.importers.readers.{reader}")
    with pytest.raises(CheckpointError):
        module.from_bytes(data, **FURTHER.get(reader, {}))


@pytest.mark.parametrize("name", OTHERS)
def test_other_file_is_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    data, title, advice = OTHERS[name]
    path = tmp_path / "net.pth.tar"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        convert(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: this is {title}")
    assert advice in message
    assert message.isprintable()


def test_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="this is a directory: pass the file in it"):
        convert(tmp_path)


def test_nothing_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        convert(tmp_path / "nothing.pth")


def test_checkpoint_that_was_packed_again_says_so(tmp_path: Path) -> None:
    import zipfile

    from torch_files import archive

    path = tmp_path / "net.pth"
    path.write_bytes(archive({"net/data.pkl": b"\x80\x02}." * 50}, zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointError, match="packed again"):
        convert(path)


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_are_told_apart(seed: int) -> None:
    rng = random.Random(seed)
    starts = [data for data, _, _ in OTHERS.values()]
    starts += [data for files in READABLE.values() for data in files.values()]
    for _ in range(200):
        data = bytearray(rng.choice(starts)[:300])
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        assert detect.identify(bytes(data)).title


@pytest.mark.parametrize(
    ("folder", "suffix", "title"),
    [
        ("torch_onnx", ".onnx", "an ONNX model"),
        ("qonnx", ".onnx", "an ONNX model"),
        ("tf2onnx", ".onnx", "an ONNX model"),
        ("larq", ".h5", "an HDF5 file, as Keras writes"),
        ("larq", ".keras", "a Keras model (.keras)"),
        ("larq_old", ".keras", "an HDF5 file, as Keras writes"),
        ("larq", ".tflite", "a TensorFlow Lite model"),
        ("darknet", ".cfg", "darknet's .cfg"),
        ("darknet", ".weights", "darknet's .weights"),
        ("mxnet", ".params", "MXNet's .params"),
        ("torch_onnx", ".pt", "a PyTorch checkpoint"),
        ("qonnx", ".pt", "a PyTorch checkpoint"),
    ],
)
def test_files_of_the_frameworks_themselves(
    shared: Path, folder: str, suffix: str, title: str
) -> None:
    files = sorted((shared / "samples" / folder).glob(f"*{suffix}"))
    assert files
    assert {detect.identify(path.read_bytes()).title for path in files} == {title}
