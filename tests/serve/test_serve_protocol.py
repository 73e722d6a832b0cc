"""serve/protocol.py: what is a request, and that nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from bitinfer.serve import protocol
from bitinfer.serve.protocol import RequestError
from bitinfer.session import TensorInfo

INPUT = TensorInfo("x", (2, 3))
VALUES = [1.5, -2.0, 0.0, 3.0, 4.25, -0.5]


def request(data: Any = VALUES, shape: Any = (1, 2, 3), **fields: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": list(shape), "datatype": "FP32", "data": data}
    top = {name: fields.pop(name) for name in ("id", "outputs", "parameters") if name in fields}
    return {"inputs": [{**tensor, **fields}], **top}


def read(body: Any, header_length: str | None = None, **options: Any) -> np.ndarray:
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    options = {"datatypes": ("FP32", "UINT8"), "max_batch": 4, **options}
    parsed, binary = protocol.parse(body, header_length)
    return protocol.read_input(parsed, binary, INPUT, **options)


def binary(
    array: np.ndarray, *, size: Any = None, extra: bytes = b"", **fields: Any
) -> tuple[bytes, str]:
    size = array.nbytes if size is None else size
    document = request(shape=array.shape, parameters={"binary_data_size": size}, **fields)
    del document["inputs"][0]["data"]
    document["inputs"][0]["parameters"] = {"binary_data_size": size}
    document.pop("parameters", None)
    text = json.dumps(document).encode()
    return text + array.tobytes() + extra, str(len(text))


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (VALUES, (1, 2, 3)),
        (VALUES, (2, 3)),
        ([VALUES[:3], VALUES[3:]], (2, 3)),
        ([[VALUES[:3], VALUES[3:]]], (1, 2, 3)),
        ([1, -2, 0, 3, 4, 0], (1, 2, 3)),
    ],
)
def test_numbers_come_flat_or_nested_with_a_batch_or_without(data: Any, shape: Any) -> None:
    x = read(request(data, shape))
    assert x.dtype == np.float32
    assert x.shape == shape
    assert x.ravel().tolist() == np.array(data, np.float32).ravel().tolist()


def test_pixels_are_bytes() -> None:
    x = read(request([0, 255, 1, 2, 3, 4], datatype="UINT8"))
    assert x.dtype == np.uint8
    assert x.ravel().tolist() == [0, 255, 1, 2, 3, 4]


@hypothesis.given(
    st.integers(1, 4), st.booleans(), st.randoms(use_true_random=False), st.booleans()
)
def test_bytes_are_the_array(samples: int, pixels: bool, random: Any, alone: bool) -> None:
    shape = (2, 3) if alone else (samples, 2, 3)
    raw = random.randbytes(6 * (1 if alone else samples) * (1 if pixels else 4))
    wanted = np.frombuffer(raw, np.uint8 if pixels else "<f4").reshape(shape)
    x = read(*binary(wanted, datatype="UINT8" if pixels else "FP32"))
    assert x.dtype == wanted.dtype
    assert x.tobytes() == raw
    assert x.shape == shape


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON: .*; it is empty$"),
        (b"{", "not JSON: [^;]*$"),
        (json.dumps(request()).encode() + b"\0\0", "not JSON: .*; bytes behind it need"),
        (b"[]", "not a request"),
        (b"{}", "missing required field `inputs`"),
        (b'{"inputs": []}', "length 1"),
        (b'{"inputs": 3}', "array"),
        (b"\xff\xfe", "not JSON"),
        (json.dumps(request(name="?")).encode().replace(b"?", b"\xff"), "not JSON"),
        (
            json.dumps(request(["?"]))
            .replace('"data": ["?"]', '"parameters": {"?": 1}')
            .encode()
            .replace(b"?", b"\xff"),
            "parameters",
        ),
        (json.dumps(request(["?"] * 6)).encode().replace(b"?", b"\xff"), "data"),
        (b"[" * 100_000, "not"),
        (b'{"inputs": ' + b"[" * 100_000, "not"),
        (json.dumps(request()).encode() + b"1234", "need inference-header-content-length"),
        ({"inputs": request()["inputs"] * 2}, "length 1"),
        (request(name="y"), "there is no input 'y'"),
        (request(datatype="INT64"), "x is INT64, wanted FP32 or UINT8"),
        (request(datatype="BYTES"), "wanted FP32"),
        (request(shape=(1, 3, 2)), r"shape \[1, 3, 2\], wanted \[2, 3\]"),
        (request(shape=(6,)), "wanted"),
        (request(shape=()), "wanted"),
        (request(shape=[[1, 2, 3]]), "shape"),
        (request(shape=(0, 2, 3)), "0 samples"),
        (request(shape=(-1, 2, 3)), "-1 samples"),
        (request(shape=(5, 2, 3)), "5 samples, wanted 1 to 4"),
        (request(shape=(2**62, 2, 3)), "samples, wanted"),
        (request(shape=(2**80, 2, 3)), "samples, wanted"),
        (request(shape=(1.5, 2, 3)), "shape"),
        (request(shape=[1] * 40_000), "shape has"),
        (request(VALUES[:5]), "5 elements"),
        (request([*VALUES, 1]), "7 elements"),
        (request([VALUES[:2], VALUES[2:]], (2, 3)), "nested"),
        (request([VALUES], (2, 3)), "not nested|data"),
        (request([[VALUES]], (2, 3)), "data"),
        (request("abcdef"), "elements"),
        (request(",,,,,"), "data"),
        (request({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}), "data"),
        (request(["1", "2", "3", "4", "5", "6"]), "data"),
        (request([None] * 6), "data"),
        (request([True] * 6), "data"),
        (request([1e39, 0, 0, 0, 0, 0]), "out of the range of FP32"),
        (request([256, 0, 0, 0, 0, 0], datatype="UINT8"), "out of the range of UINT8"),
        (request([-1, 0, 0, 0, 0, 0], datatype="UINT8"), "out of the range of UINT8"),
        (request([2**70, 0, 0, 0, 0, 0], datatype="UINT8"), "range"),
        (request([0.5, 0, 0, 0, 0, 0], datatype="UINT8"), "data"),
        (json.dumps(request()).replace("1.5", "NaN").encode(), "not JSON: .*; JSON has no NaN"),
        (json.dumps(request()).replace("1.5", "1e999").encode(), "data|not JSON"),
        ({"inputs": [{"name": "x", "shape": [1, 2, 3], "datatype": "FP32"}]}, "neither data"),
        (request(id="i" * 257), "id has 257"),
    ],
)
def test_what_is_no_request_is_refused_by_name(body: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read(body)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 23}, "binary_data_size is 23, a tensor FP32 of shape"),
        ({"size": 0}, "binary_data_size is 0"),
        ({"size": -24}, "binary_data_size is -24"),
        ({"size": 2**63}, "binary_data_size"),
        ({"size": True}, "binary_data_size is True"),
        ({"size": "24"}, "binary_data_size is 24"),
        ({"size": 24.0}, "binary_data_size is 24.0"),
        ({"extra": b"1"}, "binary_data_size is 24, but 25 bytes follow"),
        ({"datatype": "UINT8"}, "binary_data_size is 24, a tensor UINT8"),
    ],
)
def test_every_length_of_binary_tensors_is_checked(changes: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read(*binary(np.zeros((1, 2, 3), np.float32), **changes))


@pytest.mark.parametrize("missing", range(1, 25))
def test_missing_bytes_are_noticed(missing: int) -> None:
    body, length = binary(np.zeros((1, 2, 3), np.float32))
    with pytest.raises(RequestError, match=r"binary_data_size|but the body has"):
        read(body[:-missing], length)


@pytest.mark.parametrize("length", ["-1", "1e3", "", " 5", "5 ", "0x10", "9" * 30, "٣", "99999"])
def test_a_header_length_that_is_none_is_refused(length: str) -> None:
    body, _ = binary(np.zeros((1, 2, 3), np.float32))
    with pytest.raises(RequestError, match="inference-header-content-length"):
        read(body, length)


def test_a_header_length_within_the_json_leaves_no_json() -> None:
    body, length = binary(np.zeros((1, 2, 3), np.float32))
    for wrong in (int(length) - 1, int(length) + 1, 0):
        with pytest.raises(RequestError, match=r"not JSON|binary_data_size"):
            read(body, str(wrong))


def test_data_and_bytes_together_are_refused() -> None:
    document = request()
    document["inputs"][0]["parameters"] = {"binary_data_size": 24}
    text = json.dumps(document).encode()
    with pytest.raises(RequestError, match="both data and binary_data_size"):
        read(text + bytes(24), str(len(text)))


def test_bytes_that_belong_to_no_tensor_are_refused() -> None:
    text = json.dumps(request()).encode()
    with pytest.raises(RequestError, match="3 bytes behind the JSON belong to no tensor"):
        read(text + b"abc", str(len(text)))


@hypothesis.given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 400))
def test_mutated_requests_are_answered_or_refused(noise: bytes, start: int, end: int) -> None:
    body, length = binary(np.arange(6, dtype=np.float32).reshape(1, 2, 3))
    mutated = body[:start] + noise + body[end:]
    for header in (length, None):
        try:
            assert read(mutated, header).size == 6
        except RequestError as error:
            assert error.status == 400  # noqa: PT017 - either of the two is right


# --- answers -------------------------------------------------------------------------------------

OUTPUTS = {
    "a": np.array([[1.5, 0.1]], np.float32),
    "b": np.array([[[2.0], [np.float32(1) / 3]]], np.float32),
}


def answer(**fields: Any) -> tuple[Any, bytes]:
    parsed, _ = protocol.parse(json.dumps(request(**fields)).encode(), None)
    protocol.check_outputs(parsed, list(OUTPUTS))
    body, length = protocol.answer(parsed, OUTPUTS, model_name="m", model_version="3")
    split = len(body) if length is None else length
    return json.loads(body[:split]), body[split:]


def test_all_outputs_are_answered_as_numbers_that_keep_every_bit() -> None:
    document, rest = answer(id="seven")
    assert rest == b""
    assert document["model_name"] == "m"
    assert document["model_version"] == "3"
    assert document["id"] == "seven"
    for tensor in document["outputs"]:
        wanted = OUTPUTS[tensor["name"]]
        assert tensor["datatype"] == "FP32"
        assert tensor["shape"] == list(wanted.shape)
        assert np.array(tensor["data"], np.float32).tobytes() == wanted.tobytes()


def test_without_an_id_there_is_none() -> None:
    assert "id" not in answer()[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": n, "parameters": {"binary_data": True}} for n in ("a", "b")]},
    ],
)
def test_outputs_are_answered_as_bytes(fields: Any) -> None:
    document, rest = answer(**fields)
    assert [t["parameters"] for t in document["outputs"]] == [{"binary_data_size": 8}] * 2
    assert rest == OUTPUTS["a"].tobytes() + OUTPUTS["b"].tobytes()


def test_some_outputs_in_the_wanted_order_and_form() -> None:
    wanted = [{"name": "b"}, {"name": "a", "parameters": {"binary_data": False}}]
    document, rest = answer(outputs=wanted, parameters={"binary_data_output": True})
    assert [tensor["name"] for tensor in document["outputs"]] == ["b", "a"]
    assert "data" not in document["outputs"][0]
    assert "data" in document["outputs"][1]
    assert rest == OUTPUTS["b"].tobytes()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"outputs": [{"name": "c"}]}, "there is no output 'c'"),
        ({"outputs": [{"name": "a"}, {"name": "a"}]}, "asked for twice"),
        ({"outputs": [{"name": "a"}] * 40_000}, "outputs has"),
        ({"outputs": 5}, "outputs"),
        ({"outputs": [{"name": "a", "parameters": {"binary_data": 1}}]}, "binary_data is 1"),
        ({"parameters": {"binary_data_output": "yes"}}, "binary_data_output is yes"),
        ({"parameters": []}, "parameters"),
        ({"parameters": {"a": [[]] * 40_000}}, "parameters has"),
        ({"outputs": [{"name": "a", "parameters": {"classification": 2}}]}, "classify"),
    ],
)
def test_outputs_that_there_are_not_are_refused(fields: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        answer(**fields)


def test_numbers_that_json_does_not_have_are_refused_in_json_only() -> None:
    outputs = {"a": np.array([np.nan], np.float32)}
    parsed, _ = protocol.parse(json.dumps(request()).encode(), None)
    with pytest.raises(RequestError, match="not finite"):
        protocol.answer(parsed, outputs, model_name="m", model_version="1")
    wanted = request(parameters={"binary_data_output": True})
    parsed, _ = protocol.parse(json.dumps(wanted).encode(), None)
    body, length = protocol.answer(parsed, outputs, model_name="m", model_version="1")
    assert body[length:] == outputs["a"].tobytes()
