"""modelfile.py: what is written is read; what is damaged is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import hypothesis
import msgspec
import numpy as np
import pytest
import safetensors.numpy

import hostile
from bitinfer import modelfile
from bitinfer.bits import pack
from bitinfer.errors import GraphError, ModelFileError, ShapeError
from bitinfer.graph import GraphBuilder, nodes
from bitinfer.model import Model, Preprocessing
from graph_examples import every_node
from strategies import models


@pytest.fixture(scope="module")
def data() -> bytes:
    """A small file: every bit of it is going to be flipped."""
    b = GraphBuilder("tiny", (2, 2, 1))
    y = b.bconv2d(b.sign(b.input), np.ones((1, 1, 1, 1)), alpha=[0.5], name="y")
    return modelfile.to_bytes(Model(*b.build(y)))


@pytest.fixture
def model() -> Model:
    return modelfile.from_bytes(hostile.example())


def assert_same(a: Model, b: Model) -> None:
    assert a.graph == b.graph
    assert a.labels == b.labels
    assert a.preprocessing == b.preprocessing
    assert a.provenance == b.provenance
    assert a.tensors.keys() == b.tensors.keys()
    for name, tensor in a.tensors.items():
        assert tensor.dtype == b.tensors[name].dtype
        assert tensor.shape == b.tensors[name].shape
        assert tensor.tobytes() == b.tensors[name].tobytes()


# --- what is written is read ---------------------------------------------------------------------


@hypothesis.given(models())
def test_a_model_survives_the_file(model: Model) -> None:
    data = modelfile.to_bytes(model)
    again = modelfile.from_bytes(data)
    assert_same(again, model)
    assert modelfile.to_bytes(again) == data


def test_the_same_model_gives_the_same_bytes_whatever_the_order_of_its_tensors(
    model: Model,
) -> None:
    data = modelfile.to_bytes(model)
    names = list(model.tensors)
    for seed in range(5):
        random.Random(seed).shuffle(names)
        shuffled = {name: model.tensors[name] for name in names}
        assert modelfile.to_bytes(dataclasses.replace(model, tensors=shuffled)) == data
    assert model.provenance is not None
    backwards = dict(reversed(model.provenance.versions.items()))
    provenance = type(model.provenance)("tests", "a file", "0" * 64, backwards, ("a note",))
    assert modelfile.to_bytes(dataclasses.replace(model, provenance=provenance)) == data


def test_the_same_model_gives_the_same_bytes_in_every_process() -> None:
    code = "import hashlib, hostile; print(hashlib.sha256(hostile.example()).hexdigest())"
    wanted = hashlib.sha256(hostile.example()).hexdigest()
    for seed in ("1", "2"):
        path = os.pathsep.join(p for p in sys.path if p)
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        made = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert made.stdout.strip() == wanted


def test_tensors_that_are_views_are_written_as_their_copies(model: Model) -> None:
    views = {}
    for name, tensor in model.tensors.items():
        wide = np.zeros((*tensor.shape, 2), tensor.dtype)
        wide[..., 1] = tensor
        views[name] = wide[..., 1]
    assert modelfile.to_bytes(dataclasses.replace(model, tensors=views)) == hostile.example()


def test_the_file_is_a_safetensors_file_with_one_metadata_key(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "m.bin"
    modelfile.save(model, path)
    tensors = safetensors.numpy.load_file(path)
    assert {n: t.tobytes() for n, t in tensors.items()} == {
        n: t.tobytes() for n, t in model.tensors.items()
    }
    with safetensors.safe_open(path, "numpy") as file:
        assert list(file.metadata()) == ["bitinfer"]
        fields = json.loads(file.metadata()["bitinfer"])
    assert list(fields) == [
        *("sha256", "format_version", "graph", "labels", "preprocessing", "provenance")
    ]
    assert fields["format_version"] == modelfile.FORMAT_VERSION


def test_the_checksum_is_the_sha256_of_the_file_with_its_digits_as_zeros(
    tmp_path: Path, model: Model
) -> None:
    path = tmp_path / "m.bin"
    written = modelfile.save(model, path)
    data = path.read_bytes()
    blank = data.replace(written.encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == written
    assert modelfile.load(path).sha256 == written
    assert hostile.seal(blank) == data


def test_a_loaded_model_does_not_hang_on_the_file(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "m.bin"
    modelfile.save(model, path)
    loaded = modelfile.load(str(path))
    path.write_bytes(b"")
    assert_same(loaded, model)


def test_binary_weights_take_a_bit_each() -> None:
    b = GraphBuilder("g", (8, 8, 256))
    y = b.bconv2d(b.sign(b.input), np.ones((256, 3, 3, 256)))
    data = modelfile.to_bytes(Model(*b.build(y)))
    assert len(data) < 256 * 9 * 256 // 8 + 2048


def test_weights_take_the_bytes_of_their_type() -> None:
    b = GraphBuilder("g", (1024,))
    x = b.dense(b.input, np.ones((512, 1024), np.int8))
    x = b.dense(x, np.ones((512, 512), np.int16))
    x = b.dense(x, pack(np.ones((512, 512))))
    data = modelfile.to_bytes(Model(*b.build(x)))
    assert len(data) < 512 * 1024 + 2 * 512 * 512 + 512 * 512 // 8 + 2048


def test_fields_that_say_nothing_are_written_only_if_the_first_files_had_them() -> None:
    b = GraphBuilder("g", (4, 4, 3))
    x = b.max_pool2d(b.conv2d(b.input, np.ones((2, 1, 1, 3))), 2)
    x = b.dense(b.flatten(x, "channels_last"), np.ones((2, 8)))
    b.bdense(b.sign(b.input, name="plain"), np.ones((2, 3)), name="unused")
    del b._nodes[-1]
    b.tensors.pop("unused.weight")
    b.sign(b.input, threshold=[1, 2, 3], name="shifted")
    fields = hostile.take_apart(modelfile.to_bytes(Model(*b.build(x)))).fields["graph"]
    keys = {node["name"]: node.keys() for node in fields["nodes"]}
    window = {"op", "name", "input", "stride", "padding"}
    assert fields["input"].keys() == {"name", "shape"}
    assert keys["conv2d_0"] == window | {"weight", "bias", "dilation", "groups"}
    assert keys["dense_0"] == {"op", "name", "input", "weight", "bias"}
    assert keys["max_pool2d_0"] == window | {"kernel"}
    assert keys["plain"] == {"op", "name", "input"}
    assert keys["shifted"] == {"op", "name", "input", "threshold"}


def test_an_epilogue_is_not_written() -> None:
    b = GraphBuilder("g", (4,))
    graph, tensors = b.build(b.dense(b.input, np.ones((2, 4))))
    layer = msgspec.structs.replace(graph.nodes[0], epilogue=nodes.Epilogue())
    fused = msgspec.structs.replace(graph, nodes=(layer,))
    with pytest.raises(GraphError, match="made by passes, not stored"):
        modelfile.to_bytes(Model(fused, tensors))


# --- what does not fit together is not written ---------------------------------------------------


def preprocessing(**changes: object) -> Preprocessing:
    fields = {"color": "rgb", "mean": (0.0,) * 3, "std": (1.0,) * 3, "crop": (9, 8)}
    return Preprocessing(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": ("a",)}, ShapeError, "1 labels for an output of 10 classes"),
        ({"labels": ("a" * 257, *"b" * 9)}, GraphError, "over 256 characters"),
        ({"preprocessing": preprocessing(color="grey")}, ShapeError, "a grey picture has 1"),
        ({"preprocessing": preprocessing(mean=(0.0,))}, ShapeError, "1 means"),
        ({"preprocessing": preprocessing(std=(1.0,) * 4)}, ShapeError, "4 stds"),
        ({"preprocessing": preprocessing(std=(1.0, 0.0, 1.0))}, ShapeError, "std not 0"),
        ({"preprocessing": preprocessing(mean=(math.nan,) * 3)}, ShapeError, "finite"),
        ({"preprocessing": preprocessing(scale=math.inf)}, ShapeError, "finite"),
        ({"preprocessing": preprocessing(scale=1e38)}, ShapeError, "too large for float32"),
        ({"preprocessing": preprocessing(crop=(8, 9))}, ShapeError, r"makes \(8, 9\) pixels"),
        ({"preprocessing": preprocessing(crop=None, resize=(1, 1))}, ShapeError, "makes"),
        ({"preprocessing": preprocessing(resize=0)}, ShapeError, "resize and crop"),
        ({"preprocessing": preprocessing(resize=1 << 15)}, ShapeError, "resize and crop"),
        ({"preprocessing": preprocessing(crop=(-9, 8))}, ShapeError, "resize and crop"),
        ({"tensors": {}}, GraphError, "no tensor"),
    ],
)
def test_parts_that_do_not_fit_are_not_written(
    changes: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    graph, tensors = every_node()
    model = dataclasses.replace(Model(graph, tensors), **changes)
    with pytest.raises(error, match=message):
        modelfile.save(model, tmp_path / "m.bin")
    assert list(tmp_path.iterdir()) == []


# --- what is damaged is refused ------------------------------------------------------------------


def test_every_single_bit_flip_is_refused(data: bytes) -> None:
    damaged = bytearray(data)
    for bit in range(len(data) * 8):
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ModelFileError):
            modelfile.from_bytes(bytes(damaged))
        damaged[bit // 8] ^= 1 << bit % 8
    assert bytes(damaged) == data
    modelfile.from_bytes(data)


def test_a_file_cut_short_anywhere_is_refused(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(ModelFileError):
            modelfile.from_bytes(data[:length])


def test_a_file_cut_short_is_refused_even_with_the_right_checksum(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(ModelFileError):
            modelfile.from_bytes(hostile.seal(data[:length]))


def test_anything_behind_the_last_tensor_is_refused(data: bytes) -> None:
    for extra in range(1, 65):
        for byte in (b"\0", b" ", b"\xff"):
            with pytest.raises(ModelFileError):
                modelfile.from_bytes(data + byte * extra)
            with pytest.raises(ModelFileError):
                modelfile.from_bytes(hostile.seal(data + byte * extra))


def test_swapped_bytes_are_refused(data: bytes, rng: np.random.Generator) -> None:
    for _ in range(300):
        i, j = sorted(rng.integers(0, len(data), 2))
        swapped = bytearray(data)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        if swapped != data:
            with pytest.raises(ModelFileError):
                modelfile.from_bytes(bytes(swapped))


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"\0",
        b"\0" * 8,
        b"\xff" * 8,
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        b"PK\x03\x04" + b"\0" * 100,
        b"\x80\x02}q\0." + b"\0" * 100,
        b"GGUF" + b"\0" * 100,
        b"hello, world\n" * 20,
        safetensors.numpy.save({"x": np.zeros(3, np.float32)}),
        safetensors.numpy.save({"x": np.zeros(3, np.float32)}, {"bitinfer": "{}"}),
    ],
    ids=lambda data: repr(data[:8]),
)
def test_foreign_files_are_refused(foreign: bytes) -> None:
    with pytest.raises(ModelFileError, match="model file"):
        modelfile.from_bytes(foreign)


def test_a_network_of_another_format_is_told_how_to_become_one() -> None:
    foreign = safetensors.numpy.save({"x": np.zeros(300, np.float32)})
    with pytest.raises(ModelFileError, match=r"not a bitinfer model file.*bitinfer convert"):
        modelfile.from_bytes(foreign)


# --- paths ---------------------------------------------------------------------------------------


def test_the_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    with pytest.raises(ModelFileError, match=r"m\.bin: No such file"):
        modelfile.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match=r"m\.bin: 8 bytes: truncated"):
        modelfile.load(path)


def within(seconds: float, path: str | Path) -> str:
    """Return the message of the refusal of ``path``, which must come within some seconds."""
    answers: list[str] = []

    def try_to_load() -> None:
        try:
            modelfile.load(path)
        except ModelFileError as error:
            answers.append(str(error))

    thread = threading.Thread(target=try_to_load, daemon=True)
    thread.start()
    thread.join(seconds)
    assert answers, f"{path}: no ModelFileError within {seconds} s"
    return answers[0]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "directory" in within(5, tmp_path)


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in within(5, tmp_path / "pipe")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_refused(device: str) -> None:
    if not Path(device).exists():
        pytest.skip(f"there is no {device} here")
    assert device in within(5, device)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, ""])
def test_a_path_that_cannot_be_is_refused(path: str) -> None:
    assert within(5, path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(modelfile.MAX_FILE_BYTES + 1)  # sparse
    assert "bytes, model files have at most" in within(5, path)


def test_a_small_file_is_read_into_little_memory(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.bin").write_bytes(data)
    code = (
        "import resource, sys\n"
        "from bitinfer import modelfile\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "limit = pages * resource.getpagesize() + (64 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "modelfile.load(sys.argv[1])\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: the size of the process is not known")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.bin")], check=True)


# --- writing -------------------------------------------------------------------------------------


def test_saving_replaces_the_old_file(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(b"old")
    modelfile.save(model, path)
    assert path.read_bytes() == hostile.example()
    assert [p.name for p in tmp_path.iterdir()] == ["m.bin"]
