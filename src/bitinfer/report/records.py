"""Reads what ``pytest bench --benchmark-json=FILE`` has written.

Files may come from strangers: sizes and types are checked, and nothing is believed to be short,
printable or finite.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bitinfer.errors import DataError
from bitinfer.files import read_regular
from bitinfer.report.samples import Sample, Summary, levels, summarise

MAX_BYTES = 1 << 28
"""Largest file that is read; a full run takes a few megabytes."""

_Text = Annotated[str, msgspec.Meta(max_length=400)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
_Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e12)]
_Count = Annotated[int, msgspec.Meta(gt=0, lt=1 << 62)]


class _Samples(msgspec.Struct):
    cpu_seconds: list[Annotated[float, msgspec.Meta(ge=0, lt=1e12)]]
    ghz: list[tuple[_Positive, _Positive] | None]
    vector: list[tuple[_Positive, _Positive]]


class _ExtraInfo(msgspec.Struct):
    """What bench/ records beside the times."""

    suite: _Name
    engine: _Name
    layer: _Name
    shape: _Text
    channels: _Count
    kernel_size: _Count
    macs: _Count
    input_elements: _Count
    weight_elements: _Count
    output_elements: _Count
    vector_peak: _Positive
    samples: _Samples
    cpu: _Text = ""
    int8_features: _Text = ""
    pinned: bool = False
    threads: int = 0
    compiler: _Text = ""
    commit: _Text = ""
    backend: _Text = ""
    kernel: _Text = ""
    form: _Text = ""
    version: _Text = ""
    probe: _Text = ""
    read_bytes_per_ns: _Positive | None = None


_OF_LAYERS = {"channels": 1, "kernel_size": 1, "weight_elements": 1, "output_elements": 1}
"""What rows of whole networks do not have, and nothing asks of them."""


class _Stats(msgspec.Struct):
    data: list[_Positive]


class _Benchmark(msgspec.Struct):
    extra_info: dict[str, Any]
    stats: _Stats | None = None


class _File(msgspec.Struct):
    benchmarks: list[_Benchmark]
    datetime: _Text = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One engine at one layer, or network: what was recorded, and what the samples say."""

    info: _ExtraInfo
    summary: Summary

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self.info.engine

    @property
    def layer(self) -> str:
        """The name of the layer or network."""
        return self.info.layer


@dataclasses.dataclass(frozen=True)
class Run:
    """One file: engines that were sampled in turn, and so can be compared.

    Attributes:
        name: the file's name.
        date: when it was written.
        rows: by suite, layer and engine, each in the order of the file.
    """

    name: str
    date: str
    rows: dict[str, dict[str, dict[str, Row]]]

    def all_rows(self) -> list[Row]:
        """Return every row."""
        return [
            row
            for layers in self.rows.values()
            for engines in layers.values()
            for row in engines.values()
        ]


def read(path: str | os.PathLike[str]) -> Run:
    """Read one file.

    Raises:
        DataError: it cannot be read, is no such file, or contradicts itself.
    """
    name = os.fspath(path)
    data = read_regular(path, MAX_BYTES, error=DataError, what="results")
    try:
        document = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(
            f"{name}: not JSON of pytest-benchmark ({error}); "
            "write it with 'pytest bench --benchmark-json=FILE'"
        ) from error
    found: dict[str, dict[str, dict[str, _Sampled]]] = {}
    for number, benchmark in enumerate(document.benchmarks):
        if "engine" not in benchmark.extra_info:
            continue  # of another suite
        info, samples = _sampled(benchmark, f"{name}: benchmark {number}")
        engines = found.setdefault(info.suite, {}).setdefault(info.layer, {})
        if info.engine in engines:
            raise DataError(f"{name}: two rows of {info.engine} at {info.layer}")
        if any(other.macs != info.macs for other, _ in engines.values()):
            raise DataError(f"{name}: layers of different size are called {info.layer}")
        engines[info.engine] = info, samples
    if not found:
        raise DataError(f"{name}: no rows of bitinfer's benchmarks; see 'pytest bench --help'")
    rows = {
        suite: {layer: _rows(engines) for layer, engines in layers.items()}
        for suite, layers in found.items()
    }
    return Run(Path(name).name, document.datetime[:10], rows)


_Sampled = tuple[_ExtraInfo, list[Sample]]


def _rows(engines: dict[str, _Sampled]) -> dict[str, Row]:
    """Summarise the engines of a layer, which were sampled in turn."""
    peak = max(info.vector_peak for info, _ in engines.values())
    found = levels([samples for _, samples in engines.values()], peak)
    return {
        name: Row(info, summarise(samples, info.macs, peak, level))
        for (name, (info, samples)), level in zip(engines.items(), found, strict=True)
    }


def _sampled(benchmark: _Benchmark, where: str) -> _Sampled:
    fields = benchmark.extra_info
    if "layer" not in fields and "network" in fields:
        fields = {**_OF_LAYERS, **fields, "layer": fields["network"]}
    try:
        info = msgspec.convert(fields, _ExtraInfo)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: extra_info: {error}") from error
    times = benchmark.stats.data if benchmark.stats is not None else []
    columns = info.samples
    lengths = {len(column) for column in (columns.cpu_seconds, columns.ghz, columns.vector)}
    if not times or lengths != {len(times)}:
        raise DataError(f"{where}: {len(times)} times, but {sorted(lengths)} probed samples")
    if len({ghz is None for ghz in columns.ghz}) != 1:
        raise DataError(f"{where}: some samples have a clock and some have none")
    samples = [
        Sample(*values)
        for values in zip(times, columns.cpu_seconds, columns.ghz, columns.vector, strict=True)
    ]
    return info, samples
