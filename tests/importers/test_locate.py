"""Weights are found under any key, behind any prefix, beside anything that training loops keep."""

from __future__ import annotations

import argparse
import datetime as dt
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import Call, Name, Writer, state_dict, stream_file, zip_file

from bitinfer import modelfile
from bitinfer.errors import CheckpointError
from bitinfer.importers.convert import convert
from bitinfer.importers.options import Options

LENET5 = state_dict("xnor-lenet5")
OTHER = state_dict("xnor-lenet5", seed=1)


def converted(folder: Path, value: Any, weights: str | None = None) -> tuple[bytes, list[str]]:
    """Return the model file that a checkpoint becomes, and what is remarked."""
    path = folder / "net.pth"
    path.write_bytes(value if isinstance(value, bytes) else zip_file(value))
    model, report = convert(path, options=Options(weights=weights))
    model = type(model)(model.graph, model.tensors, model.labels, model.preprocessing)
    return modelfile.to_bytes(model), [str(finding) for finding in report.findings]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return converted(tmp_path_factory.mktemp("right"), LENET5)[0]


def under(prefix: str, state: Any = LENET5) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "module.",
            "_orig_mod.",
            "model.",
            "net.",
            "network.",
            "ema_model.",
            "student.",
            "a.b.c.",
        ),
        *("module.module.", "_orig_mod.module.", "module._orig_mod.", "model._orig_mod.module."),
        *("model.net.", "_forward_module.model.", "_fsdp_wrapped_module.", "online_model.module."),
    ],
)
def test_any_prefix_is_left_out(tmp_path: Path, right: bytes, prefix: str) -> None:
    assert converted(tmp_path, {"state_dict": under(prefix)})[0] == right


def test_wrappers_of_single_layers_are_left_out(tmp_path: Path, right: bytes) -> None:
    wrapped = {key.replace("conv2.", "conv2.module."): value for key, value in LENET5.items()}
    assert converted(tmp_path, wrapped)[0] == right


@pytest.mark.parametrize(
    "counter",
    [
        {"n_averaged": np.array(3)},
        {"initted": np.array([1.0], np.float32), "step": np.array([7])},
        {"epoch": 3, "name": "lenet", "nothing": None},
        {
            "conv1.total_ops": np.zeros(1),
            "total_params": np.zeros(1),
            "ip2.total_params": np.ones(1),
        },
        {"bin_conv2._extra_state": np.zeros(4, np.uint8)},
    ],
    ids=lambda counter: next(iter(counter)),
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_counters_of_wrappers_are_no_weights(
    tmp_path: Path, right: bytes, counter: dict[str, Any], prefix: str
) -> None:
    assert converted(tmp_path, under(prefix) | counter)[0] == right


def test_what_stands_beside_the_prefix_is_no_part_of_the_network(
    tmp_path: Path, right: bytes
) -> None:
    state = under("model.") | {"criterion.weight": np.ones(10, np.float32)}
    assert converted(tmp_path, {"state_dict": state})[0] == right


def test_what_stands_beside_the_network_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'conv9.weight' is no part of xnor-lenet5"):
        converted(tmp_path, LENET5 | {"conv9.weight": np.ones((2, 2), np.float32)})


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model_state_dict", "model", "net", "weights", "params", "whatever", "ema"],
)
def test_any_key_will_do(tmp_path: Path, right: bytes, key: str) -> None:
    optimizer = {
        "state": {"0": {"exp_avg": np.ones((20, 1, 5, 5), np.float32)}},
        "param_groups": [],
    }
    assert converted(tmp_path, {"optimizer": optimizer, "epoch": 3, key: LENET5})[0] == right


def test_nested_dicts_and_lists_are_searched(tmp_path: Path, right: bytes) -> None:
    for value in ({"model": {"state_dict": LENET5}}, {"a": {"b": {"c": under("net.")}}}):
        assert converted(tmp_path, value)[0] == right
    assert converted(tmp_path, [{"epoch": 1}, LENET5])[0] == right
    assert converted(tmp_path, (LENET5, {"state": {}}))[0] == right


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema", "shadow", "swa_model"])
def test_the_averaged_weights_are_named_and_left_unless_wanted(
    tmp_path: Path, right: bytes, averaged: str
) -> None:
    both = {averaged: OTHER, "net": LENET5}
    data, remarks = converted(tmp_path, both)
    assert data == right
    assert remarks == [
        f"1 other sets of weights are in the file, under '{averaged}'; --weights takes one"
    ]
    assert converted(tmp_path, both, averaged)[0] == converted(tmp_path, OTHER)[0] != right


def test_a_second_set_within_one_dict_is_found_too(tmp_path: Path, right: bytes) -> None:
    both = {"state_dict": under("ema_model.", OTHER) | under("online_model.")}
    data, remarks = converted(tmp_path, both)
    assert data == right
    assert "'state_dict/ema_model'" in remarks[0]
    assert converted(tmp_path, both, "state_dict/ema_model")[0] != right
    with pytest.raises(CheckpointError, match="no weights under 'other', but under 'state_dict/"):
        converted(tmp_path, both, "other")


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    twice = LENET5 | {"module.conv1.weight": LENET5["conv1.weight"]}
    with pytest.raises(CheckpointError, match=r"'module.conv1.weight' stands twice"):
        converted(tmp_path, twice)


def test_several_sets_of_equal_rank_ask_which(tmp_path: Path, right: bytes) -> None:
    both = {"first": LENET5, "second": OTHER}
    with pytest.raises(CheckpointError, match="under 'first', 'second'; --weights NAME takes one"):
        converted(tmp_path, both)
    assert converted(tmp_path, both, "first")[0] == right


def test_weights_without_names_are_said_to_have_none(tmp_path: Path) -> None:
    shadow = {"decay": 0.99, "shadow_params": list(LENET5.values())}
    with pytest.raises(CheckpointError, match="'shadow_params' is a list of tensors without names"):
        converted(tmp_path, shadow)


@pytest.mark.parametrize("write", [zip_file, stream_file])
def test_tensors_of_other_types_stand_beside_the_weights(
    tmp_path: Path, right: bytes, write: Any
) -> None:
    writer = Writer(is_stream=write is stream_file)
    kinds = {"ComplexFloatStorage": np.float64, "QInt8Storage": np.int8, "QUInt8Storage": np.uint8}
    beside = {kind: writer.tensor(np.ones(3, dtype), kind) for kind, dtype in kinds.items()}
    assert converted(tmp_path, write(beside | {"model": LENET5}, writer=writer))[0] == right


@pytest.mark.parametrize(
    ("rebuild", "what"),
    [
        ("_rebuild_qtensor", "a quantized tensor: dequantize"),
        ("_rebuild_sparse_tensor", "a sparse tensor: make it to_dense"),
        ("_rebuild_meta_tensor_no_storage", "a tensor without data"),
    ],
)
def test_a_weight_of_another_kind_is_named(tmp_path: Path, rebuild: str, what: str) -> None:
    state = LENET5 | {"conv1.weight": Call(Name("torch._utils", rebuild), ())}
    with pytest.raises(CheckpointError, match=f"conv1.weight is {what}"):
        converted(tmp_path, state)


def test_a_log_of_a_million_entries_is_passed_over(tmp_path: Path, right: bytes) -> None:
    log = [{"epoch": 1, "batch": i, "loss": 0.5} for i in range(250_000)]
    losses = [0.25] * 1_000_000
    assert converted(tmp_path, {"log": log, "losses": losses, "net": LENET5})[0] == right


@pytest.mark.filterwarnings("ignore")  # of torch, about what it saves
def test_what_torch_and_its_users_save_is_found(tmp_path: Path, right: bytes) -> None:
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(np.array(value)) for key, value in LENET5.items()}
    rng = np.random.default_rng(0)
    beside: dict[str, Any] = {
        "optimizer": torch.optim.Adam([state["conv1.weight"].requires_grad_()]).state_dict(),
        "args": argparse.Namespace(lr=0.1, when=dt.datetime(2020, 1, 1)),
        "best": np.float32(0.5),
        "losses": np.arange(5.0),
        "names": np.array(["a", "b"]),
        "rng": (
            np.random.RandomState(0).get_state(),
            rng.bit_generator.state,
            torch.get_rng_state(),
        ),
        "seen": {1, 2},
        "frozen": frozenset("ab"),
        "z": 1 + 2j,
        "big": 1 << 3000,
        "counts": Counter("abc"),
        "lists": defaultdict(list, a=[1]),
        "tail": deque([1, 2]),
        "when": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "path": Path("x"),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.ones(3, dtype=torch.complex64),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
        "meta": torch.ones(3, device="meta"),
        "callbacks": {"EarlyStopping": {"wait": 0, "best": torch.tensor(1.0)}},
        3: "three",
    }
    state = {key: value.detach() for key, value in state.items()}
    path = tmp_path / "torch.pth"
    ordered = OrderedDict(state)
    ordered._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    parameters = {k: torch.nn.Parameter(v.float()) for k, v in state.items()}
    for value in (ordered, parameters, defaultdict(list, state)):
        for is_zip in (True, False):
            torch.save({**beside, "net": value}, path, _use_new_zipfile_serialization=is_zip)
            assert converted(tmp_path, path.read_bytes())[0] == right


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("is_fortran", [False, True])
def test_weights_as_arrays_of_numpy_are_read(
    tmp_path: Path, right: bytes, protocol: int, *, is_fortran: bool
) -> None:
    torch = pytest.importorskip("torch")
    order = np.asfortranarray if is_fortran else np.ascontiguousarray
    state = {key: order(value) for key, value in LENET5.items()}
    state["conv1.bias"] = state["conv1.bias"].astype(">f4")
    path = tmp_path / "torch.pth"
    torch.save({"net": state}, path, pickle_protocol=protocol)
    assert converted(tmp_path, path.read_bytes())[0] == right


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch
def test_averaged_and_compiled_models_are_read(tmp_path: Path, right: bytes) -> None:
    torch = pytest.importorskip("torch")
    from test_against_torch import LeNet5

    net = LeNet5()
    net.load_state_dict({key: torch.from_numpy(np.array(v)) for key, v in LENET5.items()})
    parallel = torch.nn.DataParallel(net)
    path = tmp_path / "torch.pth"
    wrapped = [parallel, torch.compile(net), torch.compile(parallel)]
    wrapped.append(torch.optim.swa_utils.AveragedModel(net, use_buffers=True))
    wrapped.append(torch.optim.swa_utils.AveragedModel(parallel))
    for module in wrapped:
        torch.save({"epoch": 1, "model": module.state_dict()}, path)
        assert converted(tmp_path, path.read_bytes())[0] == right
