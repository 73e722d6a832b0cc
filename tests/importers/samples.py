"""A small file of every format: what a reader reads, and what people pass by mistake."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from typing import Any

import keras_files
import numpy as np
import onnx_files
import safetensors.numpy
import small_files
import tflite_files
from torch_files import archive, state_dict, stream_file, zip_file

from bitinfer import modelfile, zoo
from bitinfer.model import Model

KERAS = keras_files.network()
STATE = {"state_dict": state_dict("xnor-lenet5")}

READABLE: dict[str, dict[str, bytes]] = {
    "bnn_pynq": {"npz": small_files.bnn_pynq()},
    "darknet": {"weights": small_files.darknet()[0]},
    "keras": {
        "hdf5": keras_files.hdf5(*KERAS[:2]),
        "zip": keras_files.archive(KERAS[0], keras_files.by_class(*KERAS[1:])),
    },
    "mxnet": {"params": small_files.mxnet()[0]},
    "onnx": {"network": onnx_files.network().SerializeToString()},
    "safetensors": {"weights": safetensors.numpy.save(STATE["state_dict"])},
    "tflite": {"lce": tflite_files.network()},
    "torch_checkpoint": {"zip": zip_file(STATE), "stream": stream_file(STATE)},
}
"""By reader, files that it reads."""

FURTHER: dict[str, dict[str, Any]] = {
    "darknet": {"network": small_files.darknet()[1]},
    "mxnet": {"network": small_files.mxnet()[1], "shape": (3, 6, 6)},
}
"""By reader, what it wants besides."""


def _model_file() -> bytes:
    graph, tensors = zoo.build("xnor-lenet5", zoo.RandomParameters(0))
    return modelfile.to_bytes(Model(graph=graph, tensors=tensors))


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as target:
        target.addfile(tarfile.TarInfo("net.pth"))
    return file.getvalue()


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, weight=np.ones(3))
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


_PICKLE = b"\x80\x04}\x94."
_MODULE = b"\x80\x02c__torch__\nNet\n)\x81."
_BMP = b"BM" + struct.pack("<I", 58) + bytes(52)

OTHERS: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "an empty file", "get it again"),
    "own": (_model_file(), "a bitinfer model file", "run it"),
    "html": (b"\n<!DOCTYPE html><html></html>", "a web page", "download the file itself"),
    "xml": (b"\xef\xbb\xbf<?xml version='1.0'?>", "a web page", "download the file itself"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer", "lfs pull"),
    "half": (zip_file(STATE)[:5000], "a truncated archive", "download it again"),
    "torchscript": (
        archive({"net/data.pkl": _MODULE, "net/constants.pkl": b"", "net/code/net.py": b""}),
        "a TorchScript archive",
        "torch.save(model.state_dict(), FILE)",
    ),
    "pt2": (archive({"net/archive_format": b"pt2"}), "a torch.export archive", "state_dict"),
    "npz": (_npz(), "a zip archive", "unpack it"),
    "deflated": (archive({"a.txt": b"a" * 99}, zipfile.ZIP_DEFLATED), "a zip archive", "unpack it"),
    "pickle": (_PICKLE, "a pickle of Python", "could run anything"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(64), "a picture", "bitinfer run"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(64), "a picture", "bitinfer run"),
    "webp": (b"RIFF\0\0\0\0WEBPVP8 ", "a picture", "bitinfer run"),
    "bmp": (_BMP, "a picture", "bitinfer run"),
    "tar": (_tar(), "a tar archive", "unpack it"),
    "gzip": (gzip.compress(b"x"), "a compressed file", "unpack it"),
    "darknet.cfg": (b"[net]\nbatch=1\n", "darknet's .cfg", "as --network"),
    "npy": (_npy(), "a NumPy array", "no network"),
    "json": (json.dumps({"nodes": []}).encode(), "a JSON document", "holds no weights"),
    "noise": (b"\x01\x02\x03\x04 whatever", "no format that is known here", "01 02 03 04"),
    "text": (b"BMW is no bitmap", "no format that is known here", "docs/command-line.md"),
}
"""By name, a file that no reader reads, what it is called, and words of what to do."""
