"""Folders of BNN-PYNQ: words of processing elements become the networks that they are of."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_files
from numpy.typing import NDArray

from bitinfer import session
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.importers.convert import convert, read_network
from bitinfer.importers.options import Options
from bitinfer.verify import random_inputs, verify

Array = NDArray[Any]

CNV = (64, 64, 128, 128, 256, 256, 512, 512, 64)
CNV_SIMD = (3, 32, 32, 32, 32, 32, 4, 8, 1)
CNV_PE = (16, 32, 16, 16, 4, 1, 1, 1, 4)
"""hw/config.h of cnvW1A1."""
DENSE = ((832, 64), (64, 32), (32, 64))
DENSE_SIMD, DENSE_PE = (64, 32, 8), (16, 8, 16)


def written(
    folder: Path, weights: list[Array], limits: list[Array | None], simd: Any, pe: Any
) -> Path:
    """Neuron i * PE + P in file P; a word for SIMD synapses, the first in the lowest bit."""
    folder.mkdir()
    for layer, (weight, limit) in enumerate(zip(weights, limits, strict=True)):
        outputs, inputs = weight.shape
        place = np.left_shift(np.uint64(1), np.arange(simd[layer], dtype=np.uint64))
        groups = (weight > 0).reshape(outputs, inputs // simd[layer], simd[layer])
        all_words = (groups * place).sum(axis=-1, dtype=np.uint64)
        for element in range(pe[layer]):
            words = all_words[element :: pe[layer]]
            name = f"{layer}-{element}"
            (folder / f"{name}-weights.bin").write_bytes(words.astype("<u8").tobytes())
            if limit is not None:
                own = limit[element :: pe[layer]].astype("<i8")
                (folder / f"{name}-thres.bin").write_bytes(own.tobytes())
    return folder


def dense_parts() -> tuple[list[Array], list[Array | None]]:
    weights = [small_files.bipolar(o, i, seed=n) for n, (i, o) in enumerate(DENSE)]
    rng = np.random.default_rng(0)
    limits: list[Array | None] = [i // 2 + rng.integers(-8, 8, o) for i, o in DENSE]
    last = limits[-1]
    assert last is not None
    weights[-1][10:], last[10:] = 1, 32767
    return weights, limits


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    weights, limits = dense_parts()
    folder = written(tmp_path / "lfc", weights, limits, DENSE_SIMD, DENSE_PE)
    (folder / "classes.txt").write_text("\n".join("abcdefghij") + "\n")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_dense_network_is_what_its_words_say(dense: Path) -> None:
    model, report = convert(dense, options=Options(scale=1))
    assert model.labels == tuple("abcdefghij")
    assert [o.became for o in report.layers] == ["binary"] * 3
    pixels = np.random.default_rng(1).integers(0, 256, (20, 28, 28, 1))
    bits = np.zeros((20, 832), bool)
    bits[:, :784] = pixels.reshape(20, 784) >= 127.5
    wanted = None
    for weight, limit in zip(*dense_parts(), strict=True):
        agreements = (bits[:, None] == (weight > 0)[None]).sum(axis=2)
        assert limit is not None
        wanted, bits = agreements - limit, agreements > limit
    assert wanted is not None
    result = session.Session(model, "reference").run(pixels.astype(np.float32))
    np.testing.assert_array_equal(result, wanted[:, :10])
    x = random_inputs(model, 4)
    assert verify(model, read_network(dense), x, "reference").is_equal


def test_folder_and_npz_are_the_same_network(dense: Path, tmp_path: Path) -> None:
    weights, limits = dense_parts()
    arrays: dict[str, Any] = {}
    for i, (weight, limit) in enumerate(zip(weights, limits, strict=True)):
        arrays[f"w{i}_bits"] = np.packbits(weight.ravel() > 0, bitorder="little")
        arrays[f"w{i}_shape"], arrays[f"t{i}"] = np.array(weight.shape), limit
    path = tmp_path / "net.npz"
    np.savez(path, **arrays)
    first, second = convert(dense)[0], convert(path)[0]
    assert first.graph == second.graph
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[name])


def cnv_parts() -> tuple[list[Array], list[Array | None]]:
    synapses = (27, 576, 576, 1152, 1152, 2304, 256, 512, 512)
    weights = [
        small_files.bipolar(o, i, seed=n)
        for n, (o, i) in enumerate(zip(CNV, synapses, strict=True))
    ]
    weights[-1][10:] = 1
    rng = np.random.default_rng(2)
    limits: list[Array | None] = [rng.integers(-2000, 2000, 64)]
    limits += [i // 2 + rng.integers(-9, 9, o) for o, i in zip(CNV[1:], synapses[1:], strict=True)]
    limits[-1] = None
    return weights, limits


def windows(x: Array) -> Array:
    """(H, W, C) to (H - 2, W - 2, 9 C), in the order kh, kw, C."""
    height, width = x.shape[0] - 2, x.shape[1] - 2
    parts = [x[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.concatenate(parts, axis=-1)


def cnv(pixels: Array) -> Array:
    """What the accelerator computes of one picture (32, 32, 3): agreements of 10 classes."""
    weights, limits = cnv_parts()
    x = np.clip(np.rint(128 * (2 * pixels / 255 - 1)), -128, 127)
    for i, (weight, limit) in enumerate(zip(weights, limits, strict=True)):
        x = windows(x) if i < 6 else x.reshape(1, 1, -1)
        sums = x @ weight.T
        if i == 0:
            assert limit is not None
            x = np.where(2 * sums > limit, 1, -1)
        else:
            agreements = (sums + weight.shape[1]) / 2
            if limit is None:
                return np.asarray(agreements.reshape(-1)[:10])
            x = np.where(agreements > limit, 1, -1)
        if i in (1, 3):
            x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max(axis=(1, 3))
    raise AssertionError


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_cnv_counts_the_agreements_of_its_classes(tmp_path: Path, kind: str) -> None:
    weights, limits = cnv_parts()
    if kind == "folder":
        path = written(tmp_path / "cnv", weights, limits, CNV_SIMD, CNV_PE)
    else:
        arrays: dict[str, Any] = {}
        for i, (weight, limit) in enumerate(zip(weights, limits, strict=True)):
            arrays[f"w{i}_bits"] = np.packbits(weight.ravel() > 0, bitorder="little")
            arrays[f"w{i}_shape"] = np.array(weight.shape)
            if limit is not None:
                arrays[f"t{i}"] = limit
        path = tmp_path / "cnv.npz"
        np.savez(path, **arrays)
    model, report = convert(path, options=Options(scale=1))
    assert [o.became for o in report.layers] == ["binary weights", *["binary"] * 8]
    pixels = np.random.default_rng(3).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    wanted = np.stack([cnv(p) for p in pixels])
    np.testing.assert_array_equal(session.Session(model).run(pixels), wanted)


def test_two_bits_are_refused(dense: Path) -> None:
    # With activations of 2 bits every neuron has three thresholds.
    for path in dense.glob("*-thres.bin"):
        path.write_bytes(path.read_bytes() * 3)
    with pytest.raises(ConversionError, match="of 2 bits are not read"):
        convert(dense)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "1-0-weights.bin").unlink(), "not all of 1-0-weights.bin"),
        (lambda f: [p.unlink() for p in f.glob("1-*-weights.bin")], "1-0-weights.bin is missing"),
        (lambda f: (f / "0-3-thres.bin").unlink(), "layer 0: not all of 0-0-thres.bin"),
        (lambda f: [p.unlink() for p in f.glob("1-*-thres.bin")], "network with 1 bit"),
        (lambda f: (f / "2-1-weights.bin").write_bytes(b"1234"), "files of weights are truncated"),
        (
            lambda f: [p.write_bytes(p.read_bytes() + bytes(8)) for p in f.glob("2-*-weights.bin")],
            "are those of no network",
        ),
    ],
)
def test_what_does_not_fit_is_named(dense: Path, change: Any, words: str) -> None:
    change(dense)
    with pytest.raises(CheckpointError, match=words):
        convert(dense)


def test_other_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0-0-weights.txt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="this is a directory: pass the file in it"):
        convert(tmp_path)


def test_archive_of_the_folder_is_read(dense: Path, tmp_path: Path) -> None:
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in dense.iterdir():
            archive.write(path, path.name)
    (tmp_path / "lfc.zip").write_bytes(file.getvalue())
    assert convert(tmp_path / "lfc.zip")[0].graph == convert(dense)[0].graph
