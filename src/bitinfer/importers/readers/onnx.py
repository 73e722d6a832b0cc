"""Reads ONNX and QONNX models, in a process of its own (sandbox.py), with the package ``onnx``.

PyTorch's two exporters, tf2onnx, Brevitas and FINN write these files.  Opset 9 and later are read,
with any number as batch size, and weights of any type that ONNX has, 2 and 4 bits included.
External data is refused: nothing but the file itself is opened.
"""

from __future__ import annotations

from typing import Any

from bitinfer.errors import CheckpointError, MissingExtraError
from bitinfer.importers import sandbox
from bitinfer.importers.foreign import Foreign

_IR_VERSION = b"\x08"
"""Key of the field that every writer puts first (onnx.proto3, ModelProto)."""


def from_bytes(data: bytes) -> Foreign:
    """Return the network.

    Raises:
        CheckpointError: this is no ONNX model, or a damaged one.
        ConversionError: it has parts that have no word in foreign.OPERATIONS.
        MissingExtraError: the package ``onnx`` is not installed.
    """
    if data[:1] != _IR_VERSION:
        raise CheckpointError("this is no ONNX model: it does not begin with an ir_version")
    return sandbox.read(__name__, data)


def parse(data: bytes) -> Foreign:
    """Do what :func:`from_bytes` says, here: called in the child."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("reading ONNX needs the package onnx", "onnx") from error
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf raises errors of its own
        raise CheckpointError(f"this is no ONNX model, or a damaged one: {error}") from error
    return from_model(model)


def from_model(model: Any) -> Foreign:
    """Return the network of an ``onnx.ModelProto`` that was made in this process."""
    from bitinfer.importers.readers import _onnx_walk

    return _onnx_walk.read(model)
