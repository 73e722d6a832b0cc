"""What torch.save writes is read back, in both formats and in the variants of older torch."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import (
    ORDERED_DICT,
    REBUILD,
    Built,
    Call,
    Name,
    Raw,
    Writer,
    archive,
    stream_file,
    zip_file,
)

from bitinfer.errors import CheckpointError
from bitinfer.importers.readers import torch_checkpoint
from bitinfer.importers.readers._unpickle import Inert
from bitinfer.importers.readers.torch_checkpoint import from_bytes, read_checkpoint

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "weights" / "xnor_nin_cifar10" / "nin_best_XNOR.pth.tar"

FORMATS = pytest.mark.parametrize("file", [zip_file, stream_file])


def sample() -> dict[str, Any]:
    return {
        "best_acc": 85.96,
        "epoch": 300,
        "arch": "nin",
        "flags": [True, False, None, (1, -2, 1 << 40)],
        "state_dict": {
            "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
            "conv.bias": np.array([0.5, -0.5], np.float32),
            "norm.num_batches_tracked": np.array(12),
        },
    }


def assert_same(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, wanted)
    else:
        assert found == wanted


@FORMATS
def test_nested_values_and_tensors_come_back(file: Callable[..., bytes]) -> None:
    assert_same(from_bytes(file(sample())), sample())


@FORMATS
@pytest.mark.parametrize(
    "dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?"], ids=lambda d: np.dtype(d).name
)
def test_every_element_type_is_read(file: Callable[..., bytes], dtype: str) -> None:
    wanted = np.array([[0, 1, 2], [3, 100, 0]]).astype(dtype)
    assert_same(from_bytes(file({"x": wanted})), {"x": wanted})


@FORMATS
def test_bfloat16_is_widened_to_float32(file: Callable[..., bytes]) -> None:
    wanted = np.array([1.0, -2.5, 3.140625, 0.0], np.float32)
    halves = (wanted.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
    writer = Writer(is_stream=file is stream_file)
    assert_same(
        from_bytes(file({"x": writer.tensor(halves, "BFloat16Storage")}, writer=writer)),
        {"x": wanted},
    )


def test_big_endian_zip_is_read_in_its_byte_order() -> None:
    assert_same(from_bytes(zip_file(sample(), byte_order="big")), sample())


def test_zip_without_byte_order_is_little_endian() -> None:
    assert_same(from_bytes(zip_file(sample(), byte_order=None)), sample())


def test_strides_and_offset_select_from_the_storage() -> None:
    base = np.arange(20, dtype=np.float32)
    writer = Writer()
    storage = writer.tensor(base).arguments[0]
    view = Call(REBUILD, (storage, 2, (3, 4), (1, 3), False, Call(ORDERED_DICT, ())))
    found = from_bytes(zip_file({"x": view}, writer=writer))
    assert_same(found, {"x": np.ascontiguousarray(base[2:14].reshape(4, 3).T)})


def test_one_storage_serves_several_tensors() -> None:
    writer = Writer()
    tensor = writer.tensor(np.ones((2, 2), np.float32))
    found = from_bytes(zip_file({"encoder": tensor, "decoder": tensor}, writer=writer))
    assert_same(found, {"encoder": np.ones((2, 2), np.float32)} | {"decoder": found["encoder"]})


@FORMATS
def test_empty_and_scalar_tensors_keep_their_shapes(file: Callable[..., bytes]) -> None:
    wanted = {"none": np.zeros((0, 3), np.float32), "one": np.array(2.5, np.float32)}
    assert_same(from_bytes(file(wanted)), wanted)


def test_parameters_and_sizes_are_what_they_wrap() -> None:
    tensor = np.ones(3, np.float32)
    hooks = Call(ORDERED_DICT, ())
    value = {
        "weight": Call(Name("torch._utils", "_rebuild_parameter"), (tensor, True, hooks)),
        "size": Call(Name("torch", "Size"), ((2, 3),)),
    }
    assert_same(from_bytes(zip_file(value)), {"weight": tensor, "size": (2, 3)})


def test_state_dict_with_attributes_is_a_dict() -> None:
    state = Built(Call(ORDERED_DICT, ()), {"_metadata": {"version": 1}})
    filled = Raw(Writer().opcodes(state) + Writer().opcodes("w") + b"K\x01s")
    assert_same(from_bytes(zip_file({"state_dict": filled})), {"state_dict": {"w": 1}})


def test_python_2_with_torch_before_0_4_is_read() -> None:
    # Byte strings for text, OrderedDict from a list of pairs, _rebuild_tensor, views of storages.
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    writer = Writer(is_stream=True, is_python2=True)
    storage = writer.tensor(np.arange(8, dtype=np.float32)).arguments[0]
    view = storage._replace(identity=(*storage.identity[:5], ("view", 1, 6)))
    tensor = Call(Name("torch._utils", "_rebuild_tensor"), (view, 0, (2, 3), (3, 1)))
    value = {
        "acc": Call(Name("numpy.core.multiarray", "scalar"), (b"\x00\xff\x80",)),
        "state_dict": Call(ORDERED_DICT, ([["conv.weight", tensor]],)),
    }
    found = from_bytes(stream_file(value, writer=writer))
    assert_same(found["state_dict"], {"conv.weight": weight + 1})


def test_objects_beside_the_weights_become_inert_or_plain_data() -> None:
    namespace = Built(
        Raw(Writer().opcodes(Name("argparse", "Namespace")) + b")\x81"), {"lr": 0.1, "k": [1]}
    )
    counts = Raw(
        Writer().opcodes(Call(Name("collections", "defaultdict"), (Name("builtins", "list"),)))
        + Writer().opcodes("a")
        + b"K\x01s"
    )
    found = from_bytes(zip_file(sample() | {"args": namespace, "counts": counts}))
    assert isinstance(found["args"], Inert)
    assert found["args"].name == "argparse.Namespace"
    assert found["counts"] == {"a": 1}
    assert_same(found["state_dict"], sample()["state_dict"])


def test_entries_whose_key_is_not_text_are_left_out() -> None:
    optimiser = {"state": {0: {"step": 1}, (1, 2): 3, "kept": 4}}
    assert from_bytes(zip_file({"optimizer": optimiser})) == {"optimizer": {"state": {"kept": 4}}}


def test_path_is_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_text("no checkpoint")
    with pytest.raises(CheckpointError, match=r"net\.pth: not a checkpoint of torch"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["missing", ".", "a\0b"])
def test_what_is_no_regular_file_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError):
        read_checkpoint(f"{tmp_path}/{name}")


def test_named_pipe_is_rejected_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_checkpoint(tmp_path / "pipe")


def test_file_beyond_the_limit_is_rejected_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_checkpoint, "MAX_FILE_BYTES", 100)
    (tmp_path / "net.pth").write_bytes(zip_file(sample()))
    with pytest.raises(CheckpointError, match="at most 100"):
        read_checkpoint(tmp_path / "net.pth")


def test_whole_model_is_refused_with_advice() -> None:
    model = Raw(Writer().opcodes(Name("models.nin", "Net")) + b")\x81")
    with pytest.raises(CheckpointError, match=r"'models\.nin\.Net'.*state_dict"):
        from_bytes(zip_file(model))


def test_other_zip_archive_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint of torch"):
        from_bytes(archive({"word/document.xml": b"<w/>"}))


@pytest.mark.parametrize("value", [[1, 2], "text", 5, np.ones(3, np.float32)])
def test_what_is_no_dict_is_refused(value: Any) -> None:
    with pytest.raises(CheckpointError, match="wanted a dict"):
        from_bytes(zip_file(value))


def test_stream_of_a_big_endian_machine_is_refused() -> None:
    data = stream_file(sample())
    little = Writer().opcodes("little_endian")[:-2]
    position = data.index(little) + len(little) + 2
    assert data[position : position + 1] == b"\x88"
    with pytest.raises(CheckpointError, match="little-endian"):
        from_bytes(data[:position] + b"\x89" + data[position + 1 :])


def test_stream_of_another_version_is_refused() -> None:
    data = stream_file(sample()).replace(b"J" + struct.pack("<i", 1001), b"J\xea\x03\0\0", 1)
    with pytest.raises(CheckpointError, match="version"):
        from_bytes(data)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_torch_save_is_read_as_torch_load_reads_it(
    tmp_path: Path, is_zip: bool, protocol: int
) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3, 4, 4)).sum().backward()
    optimiser.step()
    saved = {
        "state_dict": net.state_dict(),
        "parameter": net[0].weight,
        "optimizer": optimiser.state_dict(),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "slice": torch.arange(10)[3:7],
        "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "bool": torch.tensor([True, False]),
        "size": torch.Size((2, 3)),
    }
    path = tmp_path / "net.pth"
    torch.save(saved, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    found = read_checkpoint(path)
    assert list(found) == list(saved)
    for key, tensor in net.state_dict().items():
        np.testing.assert_array_equal(found["state_dict"][key], tensor.numpy())
    for key in ("transposed", "slice", "bool"):
        assert_same(found[key], np.ascontiguousarray(saved[key].numpy()))
    np.testing.assert_array_equal(found["parameter"], net[0].weight.detach().numpy())
    np.testing.assert_array_equal(found["bfloat16"], [1.5, -2.0])
    assert found["size"] == (2, 3)


@pytest.mark.skipif(not REAL.exists(), reason="the real checkpoint, ../shared/weights, is absent")
def test_real_checkpoint_is_read() -> None:
    found = read_checkpoint(REAL)
    assert found["best_acc"] == 85.96
    assert len(found["state_dict"]) == 59
    assert found["state_dict"]["module.xnor.6.conv.weight"].shape == (192, 96, 5, 5)
