"""Bit-packed XNOR/popcount inference of binary neural networks on CPUs.

    import bitinfer

    session = bitinfer.load("lenet5.bin")
    session.run(x)                          # x: (H, W, C) or (N, H, W, C)
    session.classify("digit.png", top_k=3)

Errors are children of ``bitinfer.BitInferError``, one for each remedy.
Names are imported on first use: ``import bitinfer`` itself loads neither NumPy nor the C extension.
"""

from __future__ import annotations

from bitinfer._version import __version__

# Known to type checkers by its name; importing typing would make `bitinfer --version` slower.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from bitinfer.bits import BitTensor, pack, unpack
    from bitinfer.errors import (
        BackendError,
        BitInferError,
        CheckpointError,
        ConversionError,
        DataError,
        GraphError,
        ImageError,
        InputError,
        MissingExtraError,
        ModelFileError,
        OutputError,
        PicklingError,
        ShapeError,
        UnknownNameError,
        UsageError,
    )
    from bitinfer.from_torch import export
    from bitinfer.functional import bconv2d, bdense
    from bitinfer.session import Prediction, Session, load

_HOMES = {
    "BitTensor": "bits",
    "pack": "bits",
    "unpack": "bits",
    "bconv2d": "functional",
    "bdense": "functional",
    "export": "from_torch",
    "Prediction": "session",
    "Session": "session",
    "load": "session",
    "BackendError": "errors",
    "BitInferError": "errors",
    "CheckpointError": "errors",
    "ConversionError": "errors",
    "DataError": "errors",
    "GraphError": "errors",
    "ImageError": "errors",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "ModelFileError": "errors",
    "OutputError": "errors",
    "PicklingError": "errors",
    "ShapeError": "errors",
    "UnknownNameError": "errors",
    "UsageError": "errors",
}

__all__ = [
    "BackendError",
    "BitInferError",
    "BitTensor",
    "CheckpointError",
    "ConversionError",
    "DataError",
    "GraphError",
    "ImageError",
    "InputError",
    "MissingExtraError",
    "ModelFileError",
    "OutputError",
    "PicklingError",
    "Prediction",
    "Session",
    "ShapeError",
    "UnknownNameError",
    "UsageError",
    "__version__",
    "bconv2d",
    "bdense",
    "export",
    "load",
    "pack",
    "unpack",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'bitinfer' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"bitinfer.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
