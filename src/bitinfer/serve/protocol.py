"""The Open Inference Protocol V2: requests to arrays, arrays to answers.  Pure functions.

    https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/
    inference_rest.md; binary tensors as in Triton's extension_binary_data.md

Requests come from strangers.  Every number in one is checked against the bytes that are really
there before anything of its size is made: the JSON ends where its header says, the tensors fill
the rest exactly, a shape has the product that its data have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from bitinfer.documents import serving
from bitinfer.files import one_line
from bitinfer.session import TensorInfo

JSON = "application/json"
BINARY = "application/octet-stream"
HEADER_LENGTH = "inference-header-content-length"
"""The HTTP header that says how many bytes of a body are JSON."""
_MAX_ID = 256
_MAX_PART_BYTES = 1 << 16
"""Of the JSON of a shape, of parameters, or of a list of outputs."""
_NONE = msgspec.Raw(b"null")
_NOT_FINITE = re.compile(rb"[\[,:\s](NaN|-?Infinity)\b")
"""As Python's json and JavaScript's writers spell them."""

_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}


class RequestError(ValueError):
    """A request cannot be answered; ``status`` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _bad(message: str) -> RequestError:
    return RequestError(400, message)


class InputTensor(msgspec.Struct):
    """A tensor of a request: ``data``, flat or nested, or ``parameters.binary_data_size``."""

    name: str
    shape: msgspec.Raw
    datatype: str
    parameters: msgspec.Raw = _NONE
    data: msgspec.Raw | UnsetType = UNSET


class WantedOutput(msgspec.Struct):
    """An output that a request asks for; ``parameters.binary_data`` asks for its bytes."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """The JSON of a request; ``parameters.binary_data_output`` asks for bytes of all outputs.

    What a small text can make large is left as text until its length is known.
    """

    inputs: tuple[InputTensor]
    id: str | None = None
    parameters: msgspec.Raw = _NONE
    outputs: msgspec.Raw = _NONE


_NOT_DECODED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises: a string that is no UTF-8 is an error of its own."""
_requests = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()
_floats = msgspec.json.Decoder(list[float])
_integers = msgspec.json.Decoder(list[int])
_parameters = msgspec.json.Decoder(dict[str, Any] | None)
_outputs = msgspec.json.Decoder(list[WantedOutput] | None)


def _decoded(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw, what: str) -> Any:
    """Decode a part of a request that is small if it means anything."""
    text = memoryview(raw)
    if len(text) > _MAX_PART_BYTES:
        raise _bad(f"{what} has {len(text)} bytes, at most {_MAX_PART_BYTES} are allowed")
    try:
        return decoder.decode(text)
    except _NOT_DECODED as error:
        raise _bad(f"{what}: {one_line(error)}") from None


def parse(body: bytes, header_length: str | None) -> tuple[InferRequest, memoryview]:
    """Return the JSON of a request, and the bytes behind it.

    ``header_length`` is the value of the HTTP header of HEADER_LENGTH, if there is one.

    Raises: RequestError.
    """
    split = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 20):
            raise _bad(f"{HEADER_LENGTH} is '{one_line(header_length, 40)}', wanted a number")
        split = int(header_length)
        if split > len(body):
            raise _bad(f"{HEADER_LENGTH} is {split}, but the body has {len(body)} bytes")
    view = memoryview(body)
    try:
        request = _requests.decode(view[:split])
    except msgspec.ValidationError as error:
        raise _bad(f"not a request of the protocol: {one_line(error)}") from None
    except _NOT_DECODED as error:
        raise _bad(f"the body is not JSON: {one_line(error)}{_hint(view[:split], error)}") from None
    if request.id is not None and len(request.id) > _MAX_ID:
        raise _bad(f"id has {len(request.id)} characters, at most {_MAX_ID} are allowed")
    return request, view[split:]


def _hint(text: memoryview, problem: Exception) -> str:
    """Say what to do about a text that is not JSON, where clients commonly write such a one."""
    if not text:
        return "; it is empty"
    if "trailing characters" in str(problem):
        return f"; bytes behind it need {HEADER_LENGTH}"
    if _NOT_FINITE.search(text):
        return "; JSON has no NaN and no infinity, binary tensors do"
    return ""


def read_input(
    request: InferRequest,
    binary: memoryview,
    wanted: TensorInfo,
    *,
    datatypes: Sequence[str],
    max_batch: int,
) -> NDArray[Any]:
    """Return the one input of a request, float32 or uint8, with or without a batch in front.

    Raises: RequestError.
    """
    tensor = request.inputs[0]
    if tensor.name != wanted.name:
        raise _bad(f"there is no input '{one_line(tensor.name, 60)}', the model's is {wanted.name}")
    if tensor.datatype not in datatypes:
        raise _bad(
            f"{wanted.name} is {one_line(tensor.datatype, 20)}, wanted {' or '.join(datatypes)}"
        )
    shape = tuple(_decoded(_integers, tensor.shape, "shape"))
    if shape != wanted.shape and shape[1:] != wanted.shape:
        raise _bad(
            f"{wanted.name} has shape {_text(shape)}, wanted {_text(wanted.shape)} with or without "
            "a number of samples in front"
        )
    samples = 1 if shape == wanted.shape else shape[0]
    if not 1 <= samples <= max_batch:
        raise _bad(f"{wanted.name} has {samples} samples, wanted 1 to {max_batch}")
    dtype, elements = _DTYPES[tensor.datatype], samples * math.prod(wanted.shape)
    size = (_decoded(_parameters, tensor.parameters, "parameters") or {}).get("binary_data_size")
    if size is None:
        if binary:
            raise _bad(f"{len(binary)} bytes behind the JSON belong to no tensor")
        array = _from_json(tensor, dtype, elements, shape)
    else:
        if tensor.data is not UNSET:
            raise _bad(f"{wanted.name} has both data and binary_data_size")
        # A bool is an int to Python, but no size.
        if type(size) is not int or size != elements * dtype.itemsize:
            raise _bad(
                f"{wanted.name}: binary_data_size is {one_line(size, 40)}, a tensor "
                f"{tensor.datatype} of shape {_text(shape)} has {elements * dtype.itemsize}"
            )
        if size != len(binary):
            raise _bad(
                f"{wanted.name}: binary_data_size is {size}, but {len(binary)} bytes follow the "
                "JSON"
            )
        array = np.frombuffer(binary, dtype)
    return array.reshape(shape)


def _from_json(
    tensor: InputTensor, dtype: np.dtype[Any], elements: int, shape: tuple[int, ...]
) -> NDArray[Any]:
    if tensor.data is UNSET:
        raise _bad(f"{tensor.name} has neither data nor binary_data_size")
    raw = bytes(tensor.data)
    # Known before a list is made that takes ten times the memory of its text.
    if (commas := raw.count(b",")) != elements - 1:
        raise _bad(
            f"{tensor.name}: data have {commas + 1} elements, the shape {_text(shape)} has "
            f"{elements}"
        )
    try:
        if raw[1:64].lstrip()[:1] == b"[":
            values = _nested(raw, shape, dtype)
        else:
            values = (_integers if dtype == np.uint8 else _floats).decode(raw)
    except _NOT_DECODED as error:
        raise _bad(f"{tensor.name}: data: {one_line(error)}") from None
    if len(values) != elements:
        raise _bad(f"{tensor.name}: data are not {elements} numbers")
    try:
        with np.errstate(over="raise"):
            return np.array(values, dtype)
    except (OverflowError, FloatingPointError):
        raise _bad(f"{tensor.name}: a number is out of the range of {tensor.datatype}") from None


def _nested(raw: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[Any]:
    """Return the numbers of lists that are nested as the shape says, in one list."""
    kind: Any = int if dtype == np.uint8 else float
    for _ in shape:
        kind = list[kind]
    values: list[Any] = msgspec.json.decode(raw, type=kind)
    for inner in shape[1:]:
        if any(len(part) != inner for part in values):
            raise msgspec.ValidationError("the lists are not nested as the shape says")
        values = [item for part in values for item in part]
    return values


def answer(
    request: InferRequest,
    outputs: dict[str, NDArray[np.float32]],
    *,
    model_name: str,
    model_version: str,
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and how much of it is JSON if bytes of tensors follow.

    Raises: RequestError if the request asks for what there is not.
    """
    parameters_of_all = _decoded(_parameters, request.parameters, "parameters")
    binary_by_default = _flag(parameters_of_all, "binary_data_output")
    wanted = _wanted(request, list(outputs))
    tensors, parts = [], []
    for name, parameters in wanted:
        array = outputs[name]
        if "classification" in parameters:
            raise _bad("the parameter classification is not there; POST a picture to /classify")
        if _flag(parameters, "binary_data", default=binary_by_default):
            data = np.ascontiguousarray(array, "<f4").tobytes()
            parts.append(data)
            tensors.append(
                serving.OutputTensor(
                    name=name,
                    datatype="FP32",
                    shape=array.shape,
                    parameters={"binary_data_size": len(data)},
                )
            )
            continue
        if not np.isfinite(array).all():
            raise _bad(
                f"output {name} is not finite, and JSON has no such numbers; ask for binary_data"
            )
        tensors.append(
            serving.OutputTensor(
                name=name, datatype="FP32", shape=array.shape, data=array.ravel().tolist()
            )
        )
    text = _encoder.encode(
        serving.Inference(
            model_name=model_name,
            model_version=model_version,
            outputs=tuple(tensors),
            id=UNSET if request.id is None else request.id,
        )
    )
    return (b"".join([text, *parts]), len(text)) if parts else (text, None)


def check_outputs(request: InferRequest, names: Sequence[str]) -> None:
    """Raise RequestError if a request asks for an output that the model does not have."""
    _wanted(request, names)


def _wanted(request: InferRequest, names: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    outputs = _decoded(_outputs, request.outputs, "outputs")
    if not outputs:
        return [(name, {}) for name in names]
    result = [(output.name, output.parameters or {}) for output in outputs]
    for name, _ in result:
        if name not in names:
            raise _bad(
                f"there is no output '{one_line(name, 60)}'; the model has "
                f"{one_line(', '.join(names))}"
            )
    if len({name for name, _ in result}) != len(result):
        raise _bad("an output is asked for twice")
    return result


def _flag(parameters: dict[str, Any] | None, name: str, *, default: bool = False) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise _bad(f"parameters: {name} is {one_line(value, 40)}, wanted true or false")
    return value


def _text(shape: Sequence[int]) -> str:
    return one_line(f"[{', '.join(map(str, shape[:9]))}]")
