"""Reads Keras 2 models, Larq's above all, without TensorFlow: HDF5 (.h5, .keras) and zip (.keras).

Keras writes weights in three layouts: HDF5 by the names of layers, and, since TensorFlow 2.12, by
their classes in order, under ``layers`` or ``_layer_checkpoint_dependencies``
(tf_keras/src/saving/saving_lib.py).  Which one a file has is seen from what is in it.  Weights are
those of the trainer; quantizers are applied here.  HDF5 is read by ``h5py`` in a process of its own
(sandbox.py), and links to other files are not followed.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError, ConversionError, MissingExtraError
from bitinfer.files import one_line
from bitinfer.importers import sandbox
from bitinfer.importers.foreign import Foreign

Array = NDArray[Any]


MAX_BYTES = 1 << 31
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


def from_bytes(data: bytes, network: bytes = b"") -> Foreign:
    """Return the network.

    Meaning: ``network`` is what ``model.to_json()`` gives, for files that hold weights alone.

    Raises:
        CheckpointError: this is no Keras model, a damaged one, or weights without their network.
        ConversionError: it has layers or quantizers that have no counterpart.
        MissingExtraError: the package ``h5py`` is not installed.
    """
    if not data.startswith((_HDF5, _ZIP)):
        raise CheckpointError("this is no Keras model: neither HDF5 nor a zip archive")
    return sandbox.read(__name__, data, network)


def parse(data: bytes, network: bytes) -> Foreign:
    """Do what :func:`from_bytes` says, here: called in the child."""
    from bitinfer.importers.readers import _keras_walk

    config: str | bytes | None
    if data.startswith(_ZIP):
        config, stored = _members(data)
        root, _ = _read_hdf5(stored)
    else:
        root, config = _read_hdf5(data)
        config = network or config
    if config is None:
        raise CheckpointError(
            "it holds weights without their network: save the whole model, model.save(FILE), or "
            "pass model.to_json() as --network FILE"
        )
    by_class = _by_class(root)
    return _keras_walk.read(_as_object(config), by_class or _by_name(root), bool(by_class))


def _members(data: bytes) -> tuple[bytes, bytes]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        for name in ("config.json", "model.weights.h5"):
            if archive.getinfo(name).file_size > MAX_BYTES:
                raise CheckpointError(f"{name} unpacks to over {MAX_BYTES} bytes")
        return archive.read("config.json"), archive.read("model.weights.h5")
    except CheckpointError:
        raise
    except Exception as error:  # zipfile lets its struct, zlib and index errors through
        raise CheckpointError(f"this is no Keras archive: {one_line(error)}") from error


def _read_hdf5(data: bytes) -> tuple[dict[str, Array], str | bytes | None]:
    """Return the arrays by their paths, and the configuration if there is one."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading Keras models needs the package h5py", "keras") from error
    arrays: dict[str, Array] = {}
    total = 0

    def visit(path: str, item: Any) -> None:
        nonlocal total
        if not isinstance(item, h5py.Dataset) or path.startswith("optimizer"):
            return
        if item.external or item.is_virtual:
            raise CheckpointError(f"{one_line(path)} is in another file, which is not opened")
        if item.dtype.kind not in "fiub":
            return
        total += item.size * item.dtype.itemsize
        if total > MAX_BYTES:
            raise CheckpointError(f"its weights have over {MAX_BYTES} bytes")
        arrays[path.removeprefix("model_weights/")] = item[()]

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            file.visititems(visit)
            config = file.attrs.get("model_config")
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # h5py raises errors of many kinds
        raise CheckpointError(f"this is damaged HDF5: {one_line(error)}") from error
    return arrays, config if isinstance(config, str | bytes) else None


def _by_class(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Group ``layers/CLASS_n/.../vars/i`` by ``CLASS_n``; what is below it keeps its path."""
    result: dict[str, dict[str, Array]] = {}
    for path, array in arrays.items():
        container, _, rest = path.partition("/")
        layer, _, below = rest.partition("/")
        if container in _CONTAINERS and "vars/" in below:
            result.setdefault(layer, {})[below.removeprefix("vars/")] = array
    return result


def _by_name(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Group ``layer/.../kernel:0`` by ``layer``."""
    result: dict[str, dict[str, Array]] = {}
    for path, array in arrays.items():
        layer, _, rest = path.partition("/")
        name = rest.rpartition("/")[2].partition(":")[0]
        if name in result.get(layer, {}):
            raise ConversionError(f"{one_line(path)}: a layer that holds layers")
        result.setdefault(layer, {})[name] = np.asarray(array)
    return result


def _as_object(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"its configuration is no JSON: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise CheckpointError("its configuration is no JSON object")
    return found
